"""What every training of the kit has in common: optimizer, schedule, clipping, and what a resume must not change."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from starcoder.distributed import Divisible, mean_over_ranks
from starcoder.errors import UserError
from starcoder.training.data import TrainingData
from starcoder.training.guard import StepGuard


def cosine_with_warmup(step: int, warmup_steps: int, decay_steps: int, floor: float) -> float:
    """Factor on the peak learning rate: linear over the warm-up, cosine to `floor` at `decay_steps`, then constant.

    Step counts from 0; the first update already moves, hence `step + 1` in the warm-up.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, decay_steps - warmup_steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def linear_with_warmup(step: int, warmup_steps: int, decay_steps: int, floor: float) -> float:
    """As `cosine_with_warmup`, but the decay is a straight line."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, decay_steps - warmup_steps))
    return 1 - (1 - floor) * progress


class TrainingModule(LightningModule, ABC):
    """AdamW and its schedule over the model of a subclass, which adds arguments of its own and says the defaults.

    Args:
        learning_rate: peak of the schedule, reached after the warm-up.
        min_learning_rate: end of the decay that follows.
        warmup_steps: optimizer steps of linear warm-up.
        decay_steps: optimizer steps from start to the end of the decay; the trainer's `max_steps` when not given.
        weight_decay: decoupled decay of the matrices; biases, layer norms and other 1-D parameters have none.
        beta1: AdamW's decay of the first moment.
        beta2: AdamW's decay of the second moment.
        epsilon: AdamW's denominator guard.
        skip_deviations: a step whose loss or gradient norm lies this many standard deviations above the mean of the
            last 128 is skipped, as is one that is not finite; 0 for the latter alone.
        seed: what the initial weights and the dropout masks are a function of.

    Raises:
        UserError: naming all that is out of range.
    """

    decay = staticmethod(cosine_with_warmup)
    """Factor on the peak learning rate, as `cosine_with_warmup`; a subclass may have another."""

    def __init__(
        self,
        learning_rate: float,
        min_learning_rate: float,
        warmup_steps: int,
        decay_steps: int | None,
        weight_decay: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        skip_deviations: float,
        seed: int,
    ) -> None:
        super().__init__()
        wrong = {
            f"learning_rate is {learning_rate}, not above 0": learning_rate <= 0,
            f"min_learning_rate is {min_learning_rate}, below 0": min_learning_rate < 0,
            f"warmup_steps is {warmup_steps}, below 0": warmup_steps < 0,
            f"decay_steps is {decay_steps}, not above 0": decay_steps is not None and decay_steps < 1,
            f"weight_decay is {weight_decay}, below 0": weight_decay < 0,
            f"beta1 {beta1} or beta2 {beta2} is outside [0, 1)": not (0 <= beta1 < 1 and 0 <= beta2 < 1),
            f"epsilon is {epsilon}, not above 0": epsilon <= 0,
            f"skip_deviations is {skip_deviations}, below 0": skip_deviations < 0,
        }
        if any(wrong.values()):
            raise UserError("model: " + "; ".join(problem for problem, holds in wrong.items() if holds))
        self.save_hyperparameters()
        self.model: Divisible | None = None
        self.mean_val_loss = MeanMetric()
        self.guard = StepGuard(skip_deviations)
        self.step_loss: Tensor | float = 0.0

    @property
    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """What tells the model's shape from any other."""

    @abstractmethod
    def build(self) -> Divisible:
        """The model of that shape, without weights: it is called on `meta`."""

    @abstractmethod
    def init_weights(self) -> None:
        """Draw the weights that are here, or read them."""

    @abstractmethod
    def batch_loss(self, batch: Any) -> Tensor:
        """Mean loss in nats of one micro-batch."""

    @abstractmethod
    def work(self, batch: Any) -> tuple[int, int]:
        """Tokens of one micro-batch, and the FLOPs that forward and backward take for them."""

    def samples(self, batch: Any) -> int:
        """Samples in one micro-batch."""
        return len(batch)

    @abstractmethod
    def misfits(self, data: Any) -> list[str]:
        """What in the data the model has no room for."""

    def configure_model(self) -> None:
        """Build the model once, in every process; under a strategy that shards it, without weights."""
        if self.model is not None:
            return
        if problems := self.misfits(self._data):
            raise UserError("; ".join(problems))
        with torch.device("meta"):
            self.model = self.build()
        if torch.get_default_device().type != "meta":
            self.model.to_empty(device=torch.get_default_device())
            self.init_weights()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Mean loss in nats of one micro-batch."""
        loss = self.batch_loss(batch)
        self.step_loss = self.step_loss + loss.detach() / self.trainer.accumulate_grad_batches
        return loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Take the step, and give its gradients back: Lightning would keep them until the next forward pass is over."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients together, let the guard decide, and log loss and norm of the whole step."""
        parameters = [p for p in self.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        loss = mean_over_ranks(torch.as_tensor(self.step_loss))
        self.step_loss = 0.0
        # AdamW's kernel asks this before it changes anything; it is set at every step.
        optimizer.found_inf = self.guard(loss, norm)
        if gradient_clip_val:
            clip_grads_with_norm_(parameters, gradient_clip_val, norm)
        self.log_dict({"train_loss": loss, "grad_norm": norm, "skipped_steps": self.guard.skipped.float()})

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the mean loss in nats over all validation batches."""
        self.mean_val_loss.update(self.batch_loss(batch), weight=self.samples(batch))
        self.log("val_loss", self.mean_val_loss, prog_bar=True)

    def on_train_start(self) -> None:
        """Let what the recipe says now win over what it said when the checkpoint was saved."""
        hp, schedule = self.hparams, self.lr_schedulers()
        assert isinstance(schedule, LambdaLR)
        schedule.base_lrs = [hp["learning_rate"]] * 2
        for group, options in zip(schedule.optimizer.param_groups, self._groups(), strict=True):
            factor = schedule.lr_lambdas[0](schedule.last_epoch)
            group.update(options, initial_lr=hp["learning_rate"], lr=hp["learning_rate"] * factor)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Key dropout by (seed, micro-batch, rank), so that a resumed run draws what the uninterrupted one would."""
        key = [self.hparams["seed"], self.trainer.fit_loop.total_batch_idx + 1, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def configure_optimizers(self) -> Any:
        """AdamW in two groups, and the schedule that multiplies the peak learning rate at every optimizer step."""
        hp = self.hparams
        matrices = [p for p in self.parameters() if p.ndim >= 2]
        vectors = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": p} | options for p, options in zip((matrices, vectors), self._groups(), strict=True)]
        optimizer = AdamW(groups, lr=hp["learning_rate"], fused=True)
        decay_steps = hp["decay_steps"] or self.trainer.max_steps
        if decay_steps <= 0:
            raise UserError("the schedule needs an end: set model.decay_steps or trainer.max_steps")
        floor = hp["min_learning_rate"] / hp["learning_rate"]
        schedule = LambdaLR(optimizer, lambda step: self.decay(step, hp["warmup_steps"], decay_steps, floor))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        """AdamW's options for matrices, and for what has one dimension."""
        hp = self.hparams
        common = {"betas": (hp["beta1"], hp["beta2"]), "eps": hp["epsilon"]}
        return [common | {"weight_decay": decay} for decay in (hp["weight_decay"], 0.0)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the model's shape and the tokenizer's digest beside the weights: a checkpoint explains itself."""
        checkpoint["model_config"] = self.shape
        checkpoint["tokenizer"] = self._data.tokenizer.digest if self._data else None
        checkpoint["accumulation"] = self.trainer.accumulate_grad_batches

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another shape or tokenizer; count in micro-batches of this run, whatever its devices.

        Raises:
            UserError: naming all that differs.
        """
        if problems := self.differences(checkpoint, self._data):
            raise UserError(problems[0])
        recount(checkpoint, self.trainer.accumulate_grad_batches)

    def differences(self, checkpoint: dict[str, Any], data: TrainingData | None) -> list[str]:
        """What forbids to go on from `checkpoint` with this model and this data."""
        ours, theirs = self.shape, checkpoint.get("model_config", {})
        found = [
            f"{name} {theirs.get(name)} instead of {value}" for name, value in ours.items() if theirs.get(name) != value
        ]
        if data and data.tokenizer.digest != checkpoint.get("tokenizer"):
            found.append("another tokenizer")
        return [f"the checkpoint is of another model: {', '.join(found)}"] if found else []

    @property
    def _data(self) -> TrainingData | None:
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, TrainingData) else None


def recount(checkpoint: dict[str, Any], accumulation: int) -> None:
    """Make Lightning's counters of micro-batches those of a run that has taken `accumulation` a step from the start."""
    more = accumulation - checkpoint.get("accumulation", accumulation)
    loop = checkpoint["loops"]["fit_loop"] if more else {}
    for scope in ("total", "current") if more else ():
        steps = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"][scope]["completed"]
        counters = loop["epoch_loop.batch_progress"][scope]
        counters.update({name: count + steps * more for name, count in counters.items()})
    checkpoint["accumulation"] = accumulation
