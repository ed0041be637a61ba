"""What a training step allocates, computes and sends, written down operator by operator as it runs on fake tensors.

Memory is a list of events, +bytes when a storage appears or grows and −bytes when it goes. What a storage was for is
often known only later (a product is a gradient because FSDP then packs it for the reduce-scatter), so the events are
summed up at the end, when all is known.
"""

import weakref
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._guards import active_fake_mode
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

KINDS = ("parameters", "gradients", "optimizer", "activations", "communication")
Amounts = Counter[str]

_ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu": 2,
    "_scaled_dot_product_flash_attention_for_cpu_backward": 5,
}
_COLLECTIVES = {
    "c10d::_allgather_base_": "all_gather",
    "c10d::_reduce_scatter_base_": "reduce_scatter",
    "c10d::allreduce_": "all_reduce",
}
_NO_TRAFFIC = ("empty", "new_empty", "all_gather_copy_in", "_c10d_functional", "record_function", "prim")


@dataclass(eq=False)
class _Storage:
    nbytes: int = 0
    kind: str = "activations"
    alive: Any = None  # the weak reference whose callback writes the end down


@dataclass
class Phase:
    """One part of a step.

    Attributes:
        peak: bytes by kind (`KINDS`) at the moment of this phase that needs most.
        rest: bytes by kind when the phase ends: what it leaves behind.
        work: FLOPs (`matmul`, `attention`, of which `recomputed_matmul` and `recomputed_attention`; attention counts
            its whole T×T square), `traffic`, bytes that the other operators read and write, and for each collective
            `all_gather`, `reduce_scatter`, `all_reduce` the bytes of its whole tensor, and `…_calls`.
    """

    peak: Amounts = field(default_factory=Counter)
    rest: Amounts = field(default_factory=Counter)
    work: Amounts = field(default_factory=Counter)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down what runs under it; enter it inside the `FakeTensorMode` whose tensors count.

    Tensors that were there before are made known with `own`. `begin` starts a phase, `phases` sums up.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages: dict[int, _Storage] = {}
        self._events: list[tuple[_Storage, int]] = []
        self._starts: list[tuple[str, int]] = []
        self._work: dict[str, Amounts] = {}
        self._fake_mode = active_fake_mode()
        self.begin("start")

    def begin(self, phase: str) -> None:
        """What comes from here on belongs to `phase`."""
        self._starts.append((phase, len(self._events)))
        self._now = self._work.setdefault(phase, Counter())
        self._forward = "backward" not in phase

    def own(self, tensors: Iterable[Tensor | None], kind: str) -> None:
        """Say what the storages of `tensors` are for."""
        for tensor in tensors:
            if tensor is not None:
                self._see(tensor.to_local() if isinstance(tensor, DTensor) else tensor).kind = kind

    def own_rest(self, kind: str) -> None:
        """Say what the activations are that are still there when a backward pass is over."""
        for storage in self._storages.values():
            if storage.kind == "activations":
                storage.kind = kind

    def phases(self) -> dict[str, Phase]:
        """What each phase took, in the order of their beginnings."""
        ends = [start for _, start in self._starts[1:]] + [len(self._events)]
        found: dict[str, Phase] = {}
        live: Amounts = Counter()
        for (name, start), end in zip(self._starts, ends, strict=True):
            phase = found.setdefault(name, Phase(work=self._work[name]))
            peak = self._replay(live, start, end)
            phase.peak = max(phase.peak, peak, key=lambda amounts: amounts.total())
            phase.rest = live.copy()
        return found

    def _replay(self, live: Amounts, start: int, end: int) -> Amounts:
        """Bring `live` from one event to another; its value at the highest total on the way."""
        total = highest = live.total()
        peak, best = live.copy(), start
        for index in range(start, end):
            total += self._events[index][1]
            if total > highest:
                highest, best = total, index + 1
        for index in range(start, end):
            storage, change = self._events[index]
            live[storage.kind] += change
            if index + 1 == best:
                peak = live.copy()
        return peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator, then write it down."""
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it comes again with what is local
        out = func(*args, **(kwargs or {}))
        if active_fake_mode() is self._fake_mode:  # DTensor finds out shapes in fake modes of its own
            read = {name: value for name, value in (kwargs or {}).items() if name != "out"}
            given = [leaf for leaf in tree_leaves((args, read)) if isinstance(leaf, Tensor)]
            made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            for tensor in made:
                self._see(tensor)
            self._count(func, given, made, args, kwargs or {}, out)
        return out

    def _count(
        self,
        func: Any,
        given: list[Tensor],
        made: list[Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: Any,
    ) -> None:
        space, name = func._schema.name.split("::")
        if collective := _COLLECTIVES.get(func._schema.name):
            self._communicate(collective, given)
        elif name in _ATTENTION:
            q, k = (given[0], given[1]) if _ATTENTION[name] == 2 else (given[1], given[2])
            flops = 2 * _ATTENTION[name] * q.numel() * k.size(2)
            self._add_flops("attention", flops, recomputed=_ATTENTION[name] == 2)
        elif (count := flop_registry.get(func._overloadpacket)) is not None:
            # A product with a bias is one of a forward pass, whenever it runs.
            self._add_flops("matmul", count(*args, **kwargs, out_val=out), recomputed=name == "addmm")
        elif not func.is_view and not f"{name}.{space}".startswith(_NO_TRAFFIC) and space not in _NO_TRAFFIC:
            written = made or _written(func, args, kwargs)
            self._now["traffic"] += sum(tensor.nbytes for tensor in (*given, *written))
        self._recognize(name, args, kwargs)

    def _add_flops(self, what: str, flops: int, recomputed: bool) -> None:
        self._now[what] += flops
        if recomputed and not self._forward:
            self._now[f"recomputed_{what}"] += flops

    def _communicate(self, collective: str, given: list[Tensor]) -> None:
        """Bytes of the whole tensor: the larger of input and output; a clipping norm is only a few bytes."""
        self._now[collective] += max(tensor.nbytes for tensor in given)
        self._now[f"{collective}_calls"] += 1
        if collective == "reduce_scatter":
            self.own(given[:1], "gradients")
        elif collective == "all_reduce":
            self.own(given, "gradients")
        elif collective == "all_gather":
            self.own(given[:2], "communication")

    def _recognize(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name == "chunk_cat":  # whole gradients, and the fp32 buffer in which they are then reduced
            self.own(args[0], "gradients")
            self.own([kwargs["out"]], "communication")

    def _see(self, tensor: Tensor) -> _Storage:
        untyped = tensor.untyped_storage()
        key = untyped._cdata
        if key not in self._storages:
            storage = self._storages[key] = _Storage()
            storage.alive = weakref.ref(untyped, lambda _: self._resize(self._storages.pop(key), 0))
        storage = self._storages[key]
        self._resize(storage, untyped.nbytes())
        return storage

    def _resize(self, storage: _Storage, nbytes: int) -> None:
        if nbytes != storage.nbytes:
            self._events.append((storage, nbytes - storage.nbytes))
            storage.nbytes = nbytes

    def __enter__(self) -> "Ledger":
        """Begin to listen; FSDP frees a block's parameters by resizing their storage, which is no operator."""
        self._watch = _watched_resize(self)
        self._watch.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc: Any) -> None:
        """Listen no more."""
        super().__exit__(*exc)  # type: ignore[no-untyped-call]
        self._watch.__exit__(None, None, None)


@contextmanager
def _watched_resize(ledger: Ledger) -> Generator[None]:
    resize = torch.UntypedStorage.resize_

    @wraps(resize)
    def watched(self: torch.UntypedStorage, size: int) -> Any:
        out = resize(self, size)
        if storage := ledger._storages.get(self._cdata):
            ledger._resize(storage, self.nbytes())
        return out

    torch.UntypedStorage.resize_ = watched  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.UntypedStorage.resize_ = resize  # type: ignore[method-assign]


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """What an operator that returns nothing writes to."""
    changed = [argument.alias_info is not None and argument.alias_info.is_write for argument in func._schema.arguments]
    values = [*args, *[None] * (len(changed) - len(args))]
    named = [argument.name for argument in func._schema.arguments]
    chosen = [kwargs.get(name, value) for name, value, write in zip(named, values, changed, strict=True) if write]
    return [leaf for leaf in tree_leaves(chosen) if isinstance(leaf, Tensor)]
