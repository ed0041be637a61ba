"""The linear layer, fast also for the one token a step that decoding gives it.

Decoding is bound by how fast weights stream from memory. On CPU, PyTorch hands an fp32 product of few rows to an MKL
routine that reads 10 GB/s where a core can do 25; the same product in slices, multiplied side by side as a batch, does.

Shapes: M rows, C channels in, N channels out.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """`nn.Linear` that multiplies a single row in slices."""

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, C) to (…, N)."""
        if torch.is_grad_enabled() or x.numel() > x.size(-1):
            return super().forward(x)
        return thin_linear(x, self.weight, self.bias)


def thin_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` for few rows, or for many rows of weight: x (…, C), weight (N, C), bias (N,), result (…, N)."""
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return F.linear(x, weight, bias)
    n = math.gcd(len(weight), 64)
    slices, columns = weight.view(n, -1, x.size(-1)), x.flatten(0, -2).t().expand(n, -1, -1)  # (n, N/n, C), (n, C, M)
    product = torch.bmm(slices, columns) if bias is None else torch.baddbmm(bias.view(n, -1, 1), slices, columns)
    return product.flatten(0, 1).t().contiguous().view(*x.shape[:-1], len(weight))
