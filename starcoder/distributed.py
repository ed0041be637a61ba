"""The part of a tensor that this process holds, so that weights are made and read without ever being whole."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

Part = tuple[slice, ...]


def local_part(tensor: Tensor) -> Part:
    """Which part of `tensor` is here: all of it, unless it is sharded over processes."""
    if not isinstance(tensor, DTensor):
        return tuple(slice(size) for size in tensor.shape)
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))


@torch.no_grad()
def fill(tensor: Tensor, read: Callable[[Part], Tensor]) -> None:
    """Set the part of `tensor` that is here to what `read` gives for it."""
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    if local.numel():
        local.copy_(read(local_part(tensor)))
