"""A model with products in eight bits, for CPUs: a byte a weight instead of four, and faster arithmetic.

Every row of a weight matrix has a scale of its own, and so has every token, measured when it comes (W8A8, dynamic):

    x (M, C) ──► round(x / scale of the row) ──┐
                                               ├──► exact sums in 32 bits ──► · both scales ──► + bias, (M, N)
    weight (N, C), rounded once likewise ──────┘

Hence the result for one token does not depend on the others in its batch. Norms, attention and the residual stream stay
in fp32. Nothing is calibrated; measure what your model loses before you rely on it: `starcoder evaluate --dtype int8`.

Shapes: M rows, C channels in, N channels out, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from starcoder.errors import UserError
from starcoder.linear import Linear
from starcoder.model import StarCoder, TokenTable

M = TypeVar("M", bound=StarCoder)

_ONEDNN: Any = torch.ops.onednn
_MOST = 127
_TINY = 1e-30  # for a row of nothing
_ZERO = 128  # oneDNN is fast with unsigned activations: 128 stands for 0


def quantize(model: M) -> M:
    """Put eight-bit products in the place of a model's own; it cannot be trained or saved any more.

    Args:
        model: on CPU; it is changed in place, one matrix at a time.

    Raises:
        UserError: when the model is elsewhere, or this machine cannot do it.
    """
    if reason := impossible():
        raise UserError(f"{reason}: leave int8 out")
    if model.transformer.wte.weight.device.type != "cpu":
        raise UserError("int8 is for CPU: use bfloat16 on a GPU")
    model.requires_grad_(False).float()
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, Linear):
                setattr(module, name, Int8Linear(child))
            elif isinstance(child, TokenTable):
                setattr(module, name, Int8Table(child))
    return model


def impossible() -> str | None:
    """Why there are no such products on this machine; none when there are."""
    if not hasattr(_ONEDNN, "qlinear_prepack"):
        return "int8 needs a torch with oneDNN, which this one has not"
    ones = _Int8(torch.ones(16, 64)).product(torch.ones(1, 64), torch.tensor(0.0))
    if (ones - 64).abs().max() > 1:  # two products of the largest numbers do not fit 16 bits
        return "int8 needs a CPU with VNNI, without which sums are cut off at 16 bits"
    return None


class _Int8(nn.Module):
    """A matrix of one byte a number."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        largest = weight.abs().amax(1, keepdim=True).clamp(min=_TINY)  # (N, 1)
        self.scale = largest.squeeze(1) / _MOST
        self.weight = (weight * (_MOST / largest)).round_().to(torch.int8)  # (N, C)
        self.packed = _ONEDNN.qlinear_prepack(self.weight, None)
        self.no_zero_points = torch.zeros(len(weight), dtype=torch.int32)
        self.half_up = torch.tensor(_ZERO + 0.5)

    def product(self, x: Tensor, bias: Tensor) -> Tensor:
        """Map x (…, C) in fp32 to (…, N)."""
        rows = x.reshape(-1, x.size(-1))  # (M, C)
        largest = torch.linalg.vector_norm(rows, torch.inf, 1, keepdim=True).clamp_(min=_TINY)  # (M, 1)
        rounded = torch.addcmul(self.half_up, rows, _MOST / largest).to(
            torch.uint8
        )  # which cuts what is behind the point
        sums = _ONEDNN.qlinear_pointwise(
            rounded, 1.0, _ZERO, self.packed, self.scale, self.no_zero_points,
            None, 1.0, 0, torch.float32, "none", [], "",
        )  # fmt: skip
        return torch.addcmul(bias, sums, largest, value=1 / _MOST).view(*x.shape[:-1], -1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if fn(self.scale[:0]).device != self.scale.device:
            raise UserError("int8 is for CPU: use bfloat16 on a GPU")
        return self  # the numbers have the types that the product takes

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        raise UserError("a model in int8 is not saved: save the one that it was made of")


class Int8Linear(_Int8):
    """What stands in the place of a `Linear`."""

    def __init__(self, linear: Linear) -> None:
        super().__init__(linear.weight)
        self.weight = torch.empty(0, dtype=torch.int8)  # the packed form is enough
        self.bias = linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Map x (…, C) to (…, N)."""
        return self.product(x, self.bias)


class Int8Table(_Int8):
    """What stands in the place of a `TokenTable`."""

    def __init__(self, table: TokenTable) -> None:
        super().__init__(table.weight)
        self.no_bias = torch.tensor(0.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (…) to their vectors (…, C)."""
        return self.weight[tokens] * self.scale[tokens].unsqueeze(-1)

    def logits(self, x: Tensor) -> Tensor:
        """Map hidden states (…, C) to (…, V)."""
        return self.product(x, self.no_bias)

    def floats(self) -> Tensor:
        """The table (V, C) in fp32."""
        return self.weight * self.scale.unsqueeze(1)
