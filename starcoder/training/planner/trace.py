"""One training step of the real model under the real strategy, on fake tensors in a fake process group of any size.

No memory is taken and nothing is computed, but every operator and every collective of rank 0, which has the largest
slices, passes by with its true shapes. A block is like any other, so 2 and 4 of them tell what 40 need (`extrapolate`):

    start ─► forward ─────────────────► late_backward ───────► early_backward ─────► optimizer
             embedding, blocks, loss    second half of blocks   first half            clipping, AdamW
             leaves activations         ◄─ at rest before it    leaves gradients ─►

Deeper models begin the late backward with more activations, and end the early backward with more gradients: the peak of
each phase grows by what a block leaves at rest on its side. Between the two ends memory is a straight line, so the peak
is at one of them.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.distributed._tools.fake_collectives  # teaches fake tensors the collectives
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer
from torch.testing._internal.distributed.fake_pg import FakeStore

import starcoder.loss
from starcoder.model import Attention, StarCoder, StarCoderConfig
from starcoder.training.parallel import Checkpointing, parallelize
from starcoder.training.planner.ledger import Amounts, Ledger, Phase

_SHORT = 65  # tokens of the first step, which is not measured
_AT_REST = {"late_backward": "forward", "optimizer": "early_backward"}  # where what deeper models have more of is seen
DEPTHS = (2, 4)  # blocks that are measured; the fewest that have a first, a last and one in between on either side


@dataclass(frozen=True, order=True)
class Layout:
    """How a job is spread over GPUs.

    Args:
        ranks: GPUs of the job.
        shard_size: GPUs that share one copy of the parameters; it divides `ranks`.
        checkpointing: what a block keeps of its forward pass, see `parallelize`.
        micro_batch: sequences that a GPU computes at a time.
        accumulation: micro-batches of a step.
        compile_blocks: whether blocks are compiled; it changes the time alone (memory is that of the eager step, an
            upper bound).
        reshard_after_forward: whether a block is cut again between forward and backward.
        reduce_every_batch: whether gradients are cut to slices after every micro-batch.
    """

    ranks: int
    shard_size: int
    checkpointing: Checkpointing = "none"
    micro_batch: int = 1
    accumulation: int = 1
    compile_blocks: bool = False
    reshard_after_forward: bool = True
    reduce_every_batch: bool = True


Trace = dict[str, Phase]


def trace(config: StarCoderConfig, length: int, layout: Layout) -> Trace:
    """The phases of a step of one rank, a sequence being `length` tokens, measured on few blocks and extrapolated.

    With accumulation there is a phase `backward_between` more: that of every micro-batch but the last.
    """
    few, more = (run(config.replace(n_layer=depth), length, layout) for depth in DEPTHS)
    return extrapolate(few, more, config.n_layer)


def extrapolate(few: Trace, more: Trace, n_layer: int) -> Trace:
    """What `n_layer` blocks take, from what the two numbers of blocks of `DEPTHS` do.

    Of an odd number of blocks the late half of the backward pass has one more.
    """
    blocks = n_layer - DEPTHS[1]
    added = {"late_backward": 2 * math.ceil(blocks / 2), "early_backward": 2 * math.floor(blocks / 2)}

    def grow(base: Amounts, big: Amounts, small: Amounts, blocks: int = blocks) -> Amounts:
        factor = blocks / (DEPTHS[1] - DEPTHS[0])
        return Counter({name: round(base[name] + factor * (big[name] - small[name])) for name in {*base, *big}})

    grown = {}
    for name, phase in more.items():
        at_rest = _AT_REST.get(name, name)
        grown[name] = Phase(
            peak=grow(phase.peak, more[at_rest].rest, few[at_rest].rest),
            rest=grow(phase.rest, phase.rest, few[name].rest),
            work=grow(phase.work, phase.work, few[name].work, added.get(name, blocks)),
        )
    return merge(grown)


def merge(phases: Trace) -> Trace:
    """The two halves of the backward pass as one phase."""
    late, early = phases.pop("late_backward"), phases.pop("early_backward")
    peak = max(late.peak, early.peak, key=Counter.total)
    return phases | {"backward": Phase(peak, early.rest, late.work + early.work)}


def run(config: StarCoderConfig, length: int, layout: Layout) -> Trace:
    """The phases of a step of a model with all the blocks of `config`."""
    with _fake_mesh(layout) as mesh, FakeTensorMode(), _as_on_a_gpu():
        with torch.device("meta"):
            model = StarCoder(config)
        parallelize(
            model,
            mesh,
            checkpointing=layout.checkpointing,
            param_dtype=torch.bfloat16,
            reshard_after_forward=layout.reshard_after_forward,
        )
        model.to_empty(device="cpu")
        _gpu_dropout(model)
        optimizer = _optimizer(model)
        tokens = torch.zeros(layout.micro_batch, length + 1, dtype=torch.long)
        first = Ledger()  # a first step has allocations of its own: optimizer states, FSDP's buffers
        with _whole_parameters(model) as whole:
            _step(model, optimizer, tokens[:1, :_SHORT], replace(layout, accumulation=1), first)
        ledger = Ledger()
        ledger.own([*model.parameters(), *whole], "parameters")
        ledger.own((state for states in optimizer.state.values() for state in states.values()), "optimizer")
        with ledger:
            _step(model, optimizer, tokens, layout, ledger)
        phases = ledger.phases()
    if layout.shard_size > 1 and not phases["forward"].work["all_gather"]:
        raise RuntimeError("FSDP's collectives passed unseen: they have other names in this version of torch")
    phases = {name: phase for name, phase in phases.items() if name not in ("start", "forward_between")}
    if "backward_between" in phases:  # the last micro-batch needs more, as it has all the gradients beside it
        phases["backward_between"] = Phase(work=phases["backward_between"].work)
    return phases


@contextlib.contextmanager
def _whole_parameters(model: nn.Module) -> Generator[list[Tensor]]:
    """The parameters that modules compute with: FSDP's gathered ones, which keep no memory but come back every step."""
    found: list[Tensor] = []
    marks = [
        module.register_forward_pre_hook(lambda module, _: found.extend(module.parameters(recurse=False)))
        for module in model.modules()
    ]
    try:
        yield found
    finally:
        for mark in marks:
            mark.remove()


@contextlib.contextmanager
def _fake_mesh(layout: Layout) -> Generator[DeviceMesh]:
    """The mesh of `ShardedStrategy`, in a fake process group of which this process is rank 0."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=layout.ranks)
    try:
        shape = (layout.ranks // layout.shard_size, layout.shard_size)
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard"))
        yield mesh if shape[0] > 1 else mesh["shard"]
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _as_on_a_gpu() -> Generator[None]:
    """Let the head's softmax take a whole chunk of tokens at once, as on a GPU, not blocks that fit a CPU's cache."""
    with patch.object(starcoder.loss, "_BLOCK_BYTES", 2**40):
        yield


def _gpu_dropout(model: StarCoder) -> None:
    """Dropout as CUDA's kernels do it.

    Flash attention keeps no mask (it draws the numbers again), so here it has none; elsewhere a mask is one byte an
    element, where the CPU's operator keeps one in the tensor's dtype.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            module.forward = partial(_native_dropout, p=module.p)  # type: ignore[method-assign]
        elif isinstance(module, Attention):
            module.dropout = 0.0


def _native_dropout(x: Tensor, p: float) -> Tensor:
    return torch.native_dropout(x, p, True)[0]


def _optimizer(model: StarCoder) -> Optimizer:
    """AdamW as `StarCoderModule.configure_optimizers` makes it."""
    groups = [{"params": [p for p in model.parameters() if (p.ndim >= 2) == matrices]} for matrices in (True, False)]
    return AdamW(groups, fused=True)


def _step(model: StarCoder, optimizer: Optimizer, tokens: Tensor, layout: Layout, ledger: Ledger) -> None:
    """One optimizer step as the Trainer takes it; of all micro-batches but the last, one stands for the others."""
    if layout.accumulation > 1:
        limit = _limit(model, layout.reduce_every_batch)
        limit(False)
        ledger.begin("forward_between")
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        ledger.begin("backward_between")
        torch.autograd.backward(loss)
        ledger.own_rest("gradients")  # of this micro-batch, which FSDP keeps where nobody sees them
        limit(True)
    ledger.begin("forward")
    middle = model.transformer.h[len(model.transformer.h) // 2]
    mark = middle.register_forward_pre_hook(partial(_begin_early_backward, ledger))
    loss = model.loss(tokens[:, :-1], tokens[:, 1:])
    mark.remove()
    ledger.begin("late_backward")
    torch.autograd.backward(loss)
    ledger.own((p.grad for p in model.parameters()), "gradients")
    ledger.begin("optimizer")
    norm = get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    clip_grads_with_norm_(model.parameters(), 1.0, norm)
    optimizer.step()
    optimizer.zero_grad()


def _limit(model: nn.Module, reduce_every_batch: bool) -> Any:
    assert isinstance(model, FSDPModule)
    return model.set_requires_all_reduce if reduce_every_batch else model.set_requires_gradient_sync


def _begin_early_backward(ledger: Ledger, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    inputs[0].register_hook(lambda _: ledger.begin("early_backward"))  # type: ignore[no-untyped-call]
