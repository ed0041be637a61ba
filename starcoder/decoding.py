"""The step of decoding with shapes that stay, so that it can be compiled, and replayed as a CUDA graph.

One token of a small batch is a few hundred short kernels, which a GPU computes faster than Python launches them: a
graph launches them all at once. Its shapes and addresses are fixed, hence a graph for each number of rows and of slots,
powers of two; the rows that are too many compute something that nobody looks at.

Shapes: B sequences, R rows of the graph (R ≥ B), V vocabulary.
"""

from typing import Any, Literal
from weakref import ref

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from starcoder.cache import KVCache
from starcoder.errors import UserError
from starcoder.model import StarCoder

Decoding = Literal["auto", "eager", "graph", "compiled"]
"""How a step is computed: operation by operation; as a CUDA graph; compiled by `torch.compile`, and as a graph. On CPU
there are no graphs. Auto is graph for a model that a GPU holds whole, eager otherwise."""

_SHAPES = 64


def power_of_two(n: int) -> int:
    """The smallest that is not below `n`."""
    return 1 << (n - 1).bit_length()


def resolved(decoding: Decoding, model: StarCoder) -> Decoding:
    """What auto means for a model."""
    if decoding != "auto":
        return decoding
    whole = not isinstance(model, FSDPModule)
    return "graph" if whole and model.transformer.wte.weight.is_cuda else "eager"


class Static:
    """Decoding steps of fixed shapes.

    Args:
        model: not sharded.
        compiled: whether `torch.compile` fuses what it can; that takes half a minute for each shape.

    Raises:
        UserError: when the model is sharded.
    """

    def __init__(self, model: StarCoder, compiled: bool) -> None:
        if isinstance(model, FSDPModule):
            raise UserError("a sharded model decodes eagerly only: set decoding to eager")
        self.model = model
        self.logits = _logits
        if compiled:
            # Only with this does inductor make kernels of its own for products with a single row.
            options: dict[str, Any] | None = {"coordinate_descent_tuning": True} if torch.cuda.is_available() else None
            self.logits = torch.compile(_logits, dynamic=False, options=options)
        self._steps: dict[int, _Step] = {}
        self._first: ref[Tensor] | None = None  # of the layers that the graphs were made for; keeps none of them

    def next_logits(self, tokens: list[int], cache: KVCache) -> Tensor:
        """Logits (B, V) of what follows the last token of each sequence in `cache`, which has room for it."""
        if not self._first or self._first() is not cache.kv[0]:
            self._steps, self._first = {}, ref(cache.kv[0])
        rows = min(power_of_two(len(tokens)), cache.shape[1])
        unused = [0] * (rows - len(tokens))
        if rows not in self._steps:
            self._steps[rows] = _Step(self, rows, cache)
        logits = self._steps[rows](torch.tensor([tokens + unused, cache.lengths + unused]))
        cache.lengths = [length + 1 for length in cache.lengths]
        return logits[: len(tokens)]

    def compute(self, inputs: Tensor, cache: KVCache) -> Tensor:
        """Logits (R, V), given tokens and positions (2, R)."""
        tokens, positions = inputs.unsqueeze(2)  # (R, 1)
        cache.place(positions, cache.shape[2], masked=True)
        with torch._dynamo.config.patch(recompile_limit=_SHAPES):
            return self.logits(self.model, tokens, positions, cache)


def _logits(model: StarCoder, tokens: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
    x: Tensor = model.transformer(tokens, positions, cache)  # (R, 1, C)
    return model.transformer.wte.logits(x[:, 0])


class _Step:
    """The step of so many rows; on CUDA, a graph from its first call on."""

    def __init__(self, static: Static, rows: int, cache: KVCache) -> None:
        self.static, self.cache = static, cache
        self.inputs = torch.zeros(2, rows, dtype=torch.long, device=cache.device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        self.inputs.copy_(inputs, non_blocking=True)
        if not self.inputs.is_cuda:
            return self.static.compute(self.inputs, self.cache)
        if not self.graph:
            self._capture()
        assert self.graph
        self.graph.replay()
        return self.logits

    def _capture(self) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles, loads kernels, and writes to the cache what replaying writes
                self.static.compute(self.inputs, self.cache)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = self.static.compute(self.inputs, self.cache)
