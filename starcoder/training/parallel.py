"""Parallelism (paper §5.5): how one model is spread over processes. Nothing of it is in the model.

The original runs cut every matrix over 4 GPUs and the layers over 4 more (TP 4 × PP 4 × DP 32). Here every GPU holds a
slice of every layer, and a block is whole only while it computes (FSDP2):

    shard_size = all ranks     FSDP: parameters, gradients and optimizer states in as many slices as there are ranks
    shard_size = 8 of 512      HSDP: 64 groups of 8; slices within a group (NVLink), equal copies between groups

    replicate 0   rank 0 [▖   ]  rank 1 [ ▖  ]  rank 2 [  ▖ ]  rank 3 [   ▖]     all-gather, reduce-scatter: ──►
    replicate 1   rank 4 [▖   ]  rank 5 [ ▖  ]  rank 6 [  ▖ ]  rank 7 [   ▖]     all-reduce of slices: ▲▼
"""

import contextlib
from collections.abc import Generator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.optim import Optimizer
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from typing_extensions import override

from starcoder.distributed import Divisible, raise_together
from starcoder.errors import UserError
from starcoder.model import StarCoderConfig
from starcoder.training.base import TrainingModule
from starcoder.training.checkpoint import Saver, damages, newest, read_meta

Checkpointing = Literal["none", "selective", "full"]
BYTES_AT_REST = 16  # of a parameter on all devices that share a copy: weight, gradient, AdamW's two states, all fp32


def parallelize(
    model: Divisible,
    mesh: DeviceMesh,
    *,
    checkpointing: Checkpointing = "none",
    compile_blocks: bool = False,
    param_dtype: torch.dtype = torch.float32,
    reshard_after_forward: bool = True,
) -> None:
    """Make `model` ready to train on every device of `mesh`, in place: what saves memory, then speed, then sharding.

    The names in its state dict stay as they are. Embedding, head (the same table) and last layer norm are one unit,
    each block another.

    Args:
        model: on any device; on `meta` the weights are still to be made.
        mesh: one dimension shards (FSDP); of two, the first replicates and the second shards (HSDP).
        checkpointing: what a block keeps of its forward pass: all of it; its matrix products and attention (the rest,
            which is cheap, is computed again); or only its input.
        compile_blocks: whether each block is compiled.
        param_dtype: what the parameters are cast to for computing; they, the reduced gradients and the optimizer's
            states are fp32.
        reshard_after_forward: whether a block's other slices are given back between its forward and its backward.
    """
    for block in model.blocks:
        if checkpointing != "none":
            _recompute(block, {"context_fn": _KEEP_PRODUCTS} if checkpointing == "selective" else {})
        if compile_blocks:
            block.compile()
    if mesh.size() == 1 and mesh.device_type == "cpu" and param_dtype == torch.float32:
        return  # nothing to share or to cast, and copies cost time
    policy = MixedPrecisionPolicy(param_dtype=param_dtype, reduce_dtype=torch.float32)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard_after_forward)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    for method in model.forward_methods:
        register_fsdp_forward_method(model, method)


def _recompute(block: nn.Module, contexts: dict[str, Any]) -> None:
    """Let `block` compute its forward pass again in its backward; its names stay, and it compiles."""
    forward = block.forward

    def forgetful(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, **contexts, **kwargs)

    block.forward = forgetful


def _keep(_ctx: Any, op: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def _kept_operations() -> frozenset[Any]:
    aten, names = torch.ops.aten, [name for name in dir(torch.ops.aten) if name.startswith("_scaled_dot_product")]
    attention = [getattr(aten, name).default for name in names if not name.endswith("backward")]
    products = [aten.mm.default, aten.addmm.default]
    for library, name in (("mkldnn", "_linear_pointwise"), ("flash_attn", "_flash_attn_forward")):
        with contextlib.suppress(AttributeError):  # not in this build of torch, or not installed
            products.append(getattr(getattr(torch.ops, library), name).default)
    return frozenset([*attention, *products])


_KEPT = _kept_operations()
_KEEP_PRODUCTS = partial(create_selective_checkpoint_contexts, _keep)


def activation_bytes(config: StarCoderConfig, tokens: int, checkpointing: Checkpointing, dtype: torch.dtype) -> int:
    """What all blocks together keep of a forward pass over `tokens` tokens until their backward pass."""
    c, f, d = config.n_embd, config.inner, config.head_size
    values = {"none": 6 * c + 2 * d + 2 * f, "selective": 5 * c + 2 * d + f, "full": c}[checkpointing]
    masks = 2 * c if config.dropout and checkpointing == "none" else 0  # a byte for each value that may drop out
    return config.n_layer * tokens * (values * dtype.itemsize + masks)


def init_alone(backend: str = "gloo", device: torch.device | None = None) -> None:
    """Start a process group of this process alone, which needs no port, unless there is a group already."""
    stores: Any = dist  # torch does not declare them exported
    if not dist.is_initialized():
        dist.init_process_group(backend, store=stores.HashStore(), rank=0, world_size=1, device_id=device)


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all ranks, or HSDP, for a `TrainingModule`; on one CPU process it is no parallelism at all.

    The Trainer's precision stays `32-true`: what computes in bf16 is decided here.

    Args:
        shard_size: ranks that share one copy of parameters, gradients and optimizer states; all of them when not given.
            It must divide the number of ranks. GPUs of one node, or a multiple, keep most traffic inside nodes.
        param_dtype: what parameters are cast to for computing; `auto` is bfloat16 on a GPU and float32 on a CPU.
            Gradients are reduced, and weights kept, in fp32.
        checkpointing: what a block keeps of its forward pass: `none` recomputes nothing, `selective` keeps matrix
            products and attention, `full` its input alone.
        compile_blocks: whether each block is compiled (torch.compile).
        reshard_after_forward: whether a block's other slices are given back between its forward and backward.
        reduce_every_batch: with gradient accumulation, whether each micro-batch's gradients are cut to slices at once
            (4 bytes a parameter over `shard_size`), or stay whole until the last (4 bytes a parameter, but no
            communication). Between replicas only the last micro-batch communicates.
        timeout_minutes: how long a rank waits for the others before it gives up.
    """

    def __init__(
        self,
        shard_size: int | None = None,
        param_dtype: Literal["float32", "bfloat16", "auto"] = "float32",
        checkpointing: Checkpointing = "none",
        compile_blocks: bool = False,
        reshard_after_forward: bool = True,
        reduce_every_batch: bool = True,
        timeout_minutes: float = 30.0,
    ) -> None:
        super().__init__(timeout=timedelta(minutes=timeout_minutes))
        self.shard_size = shard_size
        self.reduce_every_batch = reduce_every_batch
        self.param_dtype = param_dtype
        self.how: dict[str, Any] = {
            "checkpointing": checkpointing,
            "compile_blocks": compile_blocks,
            "reshard_after_forward": reshard_after_forward,
        }
        self.saver = Saver(self._timeout)

    @property
    def module(self) -> TrainingModule:
        """What is trained."""
        if not isinstance(self.lightning_module, TrainingModule):
            raise UserError("ShardedStrategy shards a TrainingModule, nothing else")
        return self.lightning_module

    @property
    def compute_dtype(self) -> torch.dtype:
        """What parameters are cast to on this device."""
        if self.param_dtype == "auto":
            return torch.bfloat16 if self.root_device.type == "cuda" else torch.float32
        return torch.float32 if self.param_dtype == "float32" else torch.bfloat16

    def problems(self) -> list[str]:
        """What cannot be with the Trainer's number of devices; known before any process is started."""
        ranks = self.num_nodes * self.num_processes
        if self.shard_size is not None and (self.shard_size < 1 or ranks % self.shard_size):
            return [f"trainer.strategy.init_args.shard_size {self.shard_size} does not divide the {ranks} ranks"]
        return []

    def least_memory(self, config: StarCoderConfig, tokens: int) -> float:
        """Bytes that a micro-batch of `tokens` tokens takes on each device at least.

        Weights and optimizer states are always there; activations go as gradients come.
        """
        states = BYTES_AT_REST * self.share(config.n_params)
        kept = activation_bytes(config, tokens, self.how["checkpointing"], self.compute_dtype)
        return max(states, states * 3 / 4 + kept)

    def share(self, n_params: int) -> float:
        """How many of all parameters each device holds."""
        return n_params / (self.shard_size or self.num_nodes * self.num_processes)

    @override
    def _configure_launcher(self) -> None:
        """One process launches no others, and so may be a notebook's."""
        if self.num_nodes * self.num_processes > 1:
            super()._configure_launcher()

    @override
    def setup_environment(self) -> None:
        """Start the process group, and lay the ranks out as (replicate, shard), or (shard,) when all share one copy."""
        if problems := self.problems():
            raise UserError("; ".join(problems))
        if self.num_nodes * self.num_processes == 1:
            device = self.root_device if self.root_device.type == "cuda" else None
            init_alone(self._get_process_group_backend(), device)
        self._setup_distributed()
        shard = self.shard_size or self.world_size
        mesh = init_device_mesh(
            self.root_device.type, (self.world_size // shard, shard), mesh_dim_names=("replicate", "shard")
        )
        self._device_mesh = mesh if shard < self.world_size else mesh["shard"]
        self.module._device_mesh = self._device_mesh

    @property
    @override
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every rank has a part of the batch of its own."""
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    @contextlib.contextmanager
    @override
    def tensor_init_context(self, empty_init: bool | None = None) -> Generator[None]:
        """Build the model on `meta`: it may be larger than any device; `setup` gives it memory and weights."""
        with torch.device("meta"):
            yield

    @override
    def setup(self, trainer: Trainer) -> None:
        """Cut the model, and make the weights of the slices that are here."""
        for loop in (trainer.validate_loop, trainer.fit_loop.epoch_loop.val_loop):
            loop.inference_mode = False  # FSDP cannot gather parameters there
        resumed: list[str] = [""] * self.world_size
        dist.all_gather_object(resumed, str(trainer.ckpt_path))
        if len(set(resumed)) > 1:
            raise_together([f"ranks find different checkpoints to go on from ({', '.join(set(resumed))}): start again"])
        assert self.module.model is not None
        parallelize(self.module.model, self.device_mesh, param_dtype=self.compute_dtype, **self.how)
        self.module.model.to_empty(device=self.root_device)
        if trainer.ckpt_path is None:  # otherwise they are read soon
            self.module.init_weights()
        super().setup(trainer)

    @contextlib.contextmanager
    @override
    def block_backward_sync(self) -> Generator[None]:
        """Communicate as little as `reduce_every_batch` allows for a micro-batch that is not the step's last."""
        model = self.module.model
        if isinstance(model, FSDPModule):
            limit = model.set_requires_all_reduce if self.reduce_every_batch else model.set_requires_gradient_sync
            limit(False)
            try:
                yield
            finally:
                limit(True)
        else:
            yield

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """This rank's slices, on its device: the saver copies them."""
        return get_model_state_dict(self.module)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """This rank's slices of the optimizer's states, by parameter name."""
        return get_optimizer_state_dict(self.module, getattr(optimizer, "optimizer", optimizer))

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None) -> None:
        """Begin to save; training goes on once the tensors are copied. See `Saver`."""
        tensors = {"state_dict": checkpoint.pop("state_dict")}
        for state in checkpoint.pop("optimizer_states", []):
            tensors["optimizer"] = state
        self.saver.begin(tensors, checkpoint, Path(self.broadcast(str(filepath))))

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read what belongs to this rank, whatever the number of ranks that saved it.

        Raises:
            UserError: when the checkpoint is missing, damaged, or of another model; no rank goes on then.
        """
        path = Path(self.broadcast(str(newest(Path(checkpoint_path)) or checkpoint_path)))
        meta: dict[str, Any] = {}
        try:
            meta = read_meta(path)
            data = getattr(self.module.trainer, "datamodule", None)
            problems = self.module.differences(meta, data) or damages(path, self.global_rank, self.world_size)
        except UserError as error:
            problems = [str(error)]
        raise_together(problems)
        tensors = {"state_dict": self.lightning_module_state_dict()}
        for optimizer in self.optimizers:
            tensors["optimizer"] = self.optimizer_state(optimizer)
        load(tensors, checkpoint_id=path)
        set_model_state_dict(self.module, tensors["state_dict"])
        for optimizer in self.optimizers:
            set_optimizer_state_dict(self.module, optimizer, tensors["optimizer"])
        return meta

    @override
    def teardown(self) -> None:
        """End no process while it still writes; whether that succeeds matters to `Checkpoint.on_train_end` alone."""
        try:
            self.saver.wait()
        finally:
            super().teardown()
