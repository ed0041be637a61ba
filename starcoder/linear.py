"""The linear layer, fast also for the few rows a step that decoding gives it.

Decoding is bound by how fast weights stream from memory. On CPU, PyTorch hands fp32 products to MKL, which for a single
row reads 10 GB/s where a core can do 25, and for a few rows of a long table reaches a third of the core's FLOPs.

    rows           1 … 7                                 8 or more
    nn.Linear      1: slices multiplied side by side     MKL
    output head    slices multiplied side by side        oneDNN

Shapes: M rows, C channels in, N channels out.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ONEDNN = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]  # torch lacks the annotation


class Linear(nn.Linear):
    """`nn.Linear` that multiplies a single row in slices."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, C) to (…, N)."""
        if torch.is_grad_enabled() or x.numel() > x.size(-1):
            return super().forward(x)
        return thin_linear(x, self.weight, self.bias)


def thin_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` without gradient for few rows of x (…, C), or a long weight (N, C): (…, N)."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return F.linear(x, weight, bias)
    rows = x.flatten(0, -2)  # (M, C)
    if len(rows) >= 8 and _ONEDNN:
        out = F.linear(rows.to_mkldnn(), weight, bias).to_dense()
    else:
        out = _linear_in_slices(rows, weight, bias)
    return out.view(*x.shape[:-1], len(weight))


def _linear_in_slices(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    n = math.gcd(len(weight), 64)
    slices, columns = weight.view(n, -1, x.size(1)), x.t().expand(n, -1, -1)  # (n, N/n, C), (n, C, M)
    product = torch.bmm(slices, columns) if bias is None else torch.baddbmm(bias.view(n, -1, 1), slices, columns)
    return product.flatten(0, 1).t().contiguous()  # (M, N)
