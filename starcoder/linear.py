"""The linear layer, fast on CPU too, from the single row of decoding to the thousands of training.

PyTorch hands fp32 products on CPU to MKL, which leaves much of some processors unused. Two Zen 4 cores, November 2026,
`python -m tests.benchmarks.bench_linear`, in GFLOP/s:

    4096 rows, (2048, 512)            output         gradient of x      gradient of the weight
    MKL                               117            151                190
    oneDNN                            137            205                130

and for few rows, which are bound by how fast the weight streams from memory, in GB/s of a (49152, 512) head:

    rows                              1       2       8       32
    MKL                               10      5       6       4
    oneDNN                            21      16      13      8
    slices multiplied side by side    32      25      8       5

Hence oneDNN from eight rows on, slices below, and MKL for the gradient of the weight. Other devices and dtypes, and
what is compiled, take `F.linear`.

Shapes: M rows, C channels in, N channels out.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

_ONEDNN: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # absent where torch was built without oneDNN
_FEW_ROWS = 8


def _flops(x: torch.Size, weight: torch.Size, *_: object, **__: object) -> int:
    return 2 * math.prod(x) * weight[0]


if _ONEDNN:
    register_flop_formula(_ONEDNN)(_flops)


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, C) to (…, N)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x (…, C) and weight (N, C) to (…, N)."""
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.numel() > 0
    if not (_ONEDNN and plain) or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        out: Tensor = _Linear.apply(x, weight, bias)
        return out
    return _product(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.size(-1))  # (M, N)
        return (
            linear(grad, weight.t()) if needs_x else None,
            rows.t() @ x.reshape(-1, x.size(-1)) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `linear` gives, on CPU in fp32 and without gradient."""
    if x.numel() >= _FEW_ROWS * x.size(-1):
        return onednn(x, weight, bias)
    rows = multiply_in_slices(x.reshape(-1, x.size(-1)), weight, bias)
    return rows.view(*x.shape[:-1], len(weight))


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One product by oneDNN: x (…, C) and weight (N, C) to (…, N)."""
    out: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
    return out


def multiply_in_slices(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Many small products that threads share: x (M, C) and weight (N, C) to (M, N)."""
    n = math.gcd(len(weight), 64)
    slices, columns = weight.reshape(n, -1, x.size(1)), x.t().expand(n, -1, -1)  # (n, N/n, C), (n, C, M)
    product = torch.bmm(slices, columns) if bias is None else torch.baddbmm(bias.view(n, -1, 1), slices, columns)
    return product.flatten(0, 1).t().contiguous()  # (M, N)
