"""Cross-entropy of a linear head that never holds all the logits.

At 8192 tokens and 49,152 rows of vocabulary the logits of one sequence take 1.6 GB in fp32, and the plain way keeps
several copies. Here they exist for one chunk of tokens at a time: its logits, their loss and their gradient are made in
the forward pass, one after the other in the same memory, and the backward pass only scales.

Shapes: N tokens, n tokens of a chunk, V vocabulary, C channels.
"""

from typing import Any

import torch
from torch import Tensor

from starcoder.linear import linear

_CHUNK_BYTES = 48 * 2**20  # of logits: long enough for matrix products to run at full speed
_BLOCK_BYTES = 3 * 2**20  # of fp32 softmax rows on CPU: few enough for its passes to stay in the cache
_TILE = 4096  # rows of the weight's gradient whose product, before it is added in fp32, stays in the cache


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk_size: int | None = None, ignore_index: int = -100
) -> Tensor:
    """Mean cross-entropy in nats of the logits `hidden @ weight.T` against `targets`.

    Products run in the dtype of `hidden` and `weight` (under autocast, in its dtype); the softmax, the loss and the
    weight's gradient summed over chunks are fp32. The gradient has no gradient, and the backward
    pass can run once only, as it scales in place.

    Args:
        hidden: (N, C).
        weight: (V, C).
        targets: (N,) int64 in [0, V), or `ignore_index` where a token does not count.
        chunk_size: tokens whose logits exist at a time; about 50 MB of logits when not given.
        ignore_index: the target that neither counts nor gives a gradient.

    Returns:
        fp32 scalar; 0 when no token counts.
    """
    device = hidden.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    chunk_size = chunk_size or max(1, _CHUNK_BYTES // (weight.size(0) * weight.element_size()))
    counts = targets != ignore_index  # (N,)
    total: Tensor = _SummedLoss.apply(hidden, weight, targets, counts, chunk_size, torch.is_grad_enabled())
    return total / counts.sum().clamp(min=1)


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, counts: Tensor, chunk_size: int, with_grad: bool
    ) -> Tensor:
        targets, counts = targets.where(counts, 0).unsqueeze(1), counts.unsqueeze(1)  # (N, 1)
        grad_hidden = torch.empty_like(hidden) if with_grad and ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if with_grad and ctx.needs_input_grad[1] else None
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(hidden), chunk_size):
            chunk = slice(start, start + chunk_size)
            x, mask = hidden[chunk], counts[chunk]
            logits = linear(x, weight)  # (n, V)
            total += _losses_(logits, targets[chunk]).mul_(mask).sum()
            if grad_hidden is not None:
                torch.mm(logits, weight, out=grad_hidden[chunk]).mul_(mask)
            if grad_weight is not None:
                _add_product_(grad_weight, logits.t(), x * mask)
            del logits  # before the next chunk's are made
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grads[0]
        if grad_weight is not None:
            grad_weight = grad_weight.mul_(grads[0]).to(ctx.dtype)  # another (V, C) would be the peak of the whole step
        return grad_hidden, grad_weight, None, None, None, None


def _losses_(logits: Tensor, targets: Tensor) -> Tensor:
    """fp32 losses (n, 1) of targets (n, 1); the logits (n, V) become their gradient, softmax minus one-hot."""
    block = max(1, _BLOCK_BYTES // (4 * logits.size(1))) if logits.device.type == "cpu" else len(logits)
    losses = []
    for rows, target in zip(torch.split(logits, block), torch.split(targets, block), strict=True):
        p = rows.float()  # (n, V), the rows themselves when they are fp32
        top = p.amax(dim=1, keepdim=True)
        p_target = p.gather(1, target) - top
        total = p.sub_(top).exp_().sum(dim=1, keepdim=True)
        loss = total.log() - p_target
        rows.copy_(p.div_(total).scatter_(1, target, torch.expm1(-loss)))
        losses.append(loss)
    return torch.cat(losses)


def _add_product_(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to the fp32 total; products of lower precision come out rounded, but their sum does not."""
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, out=total)
    else:
        for part, rows in zip(torch.split(total, _TILE), torch.split(a, _TILE), strict=True):
            part.add_(rows @ b)
