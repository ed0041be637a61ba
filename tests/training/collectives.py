"""Counts the collectives of each micro-batch of a step on four ranks that are not there (a fake process group)."""

import json
from collections import Counter
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from starcoder.model import StarCoder, StarCoderConfig
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy, parallelize


class Count(TorchDispatchMode):
    """Collectives by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, name = func._schema.name.split("::")
        if space == "c10d":
            self.names[name] += 1
        return func(*args, **kwargs or {})


def main() -> None:
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    print(json.dumps([batches(mesh, reduce_every_batch) for reduce_every_batch in (False, True)]))


def batches(mesh: DeviceMesh, reduce_every_batch: bool) -> list[Counter[str]]:
    model = StarCoder(StarCoderConfig.preset("smoke", vocab_size=256))
    parallelize(model, mesh)
    strategy = ShardedStrategy(shard_size=2, reduce_every_batch=reduce_every_batch)
    strategy._lightning_module = StarCoderModule("smoke")
    strategy.module.model = model
    counts = []
    for last in (False, False, True):
        tokens = torch.zeros(1, 16, dtype=torch.long)
        with Count() as count, nullcontext() if last else strategy.block_backward_sync():
            model.loss(tokens, tokens).backward()
        counts.append(count.names)
    return counts
