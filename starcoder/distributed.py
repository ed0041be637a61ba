"""Processes that share a model: the part of a tensor that is here, and what all of them agree on."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from starcoder.errors import UserError

Part = tuple[slice, ...]


class Divisible(nn.Module, ABC):
    """A model that can be spread over processes block by block."""

    forward_methods: tuple[str, ...] = ()
    """What computes with the parameters besides `forward`."""

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Its layers, in their order."""


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


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean of every rank's `value`, made on the device: the host does not wait for it."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def raise_together(problems: list[str]) -> None:
    """End every process when any of them has a problem; rank 0 tells the first, the others leave in silence.

    Raises:
        UserError: on rank 0.
        SystemExit: on the others.
    """
    found: list[list[str]] = [problems]
    if dist.is_initialized():
        found = [problems] * dist.get_world_size()
        dist.all_gather_object(found, problems)
    if told := [problem for of_rank in found for problem in of_rank]:
        if dist.is_initialized() and dist.get_rank() > 0:
            raise SystemExit(2)
        raise UserError(told[0])
