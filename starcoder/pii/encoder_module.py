"""StarEncoder's training as `starcoder fit` runs it (paper §4.2), and the folder that it leaves."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from transformers import BertConfig, BertForPreTraining
from typing_extensions import override

from starcoder.distributed import fill, raise_together
from starcoder.errors import UserError
from starcoder.pii.encoder import (
    MARKER,
    SHAPE,
    StarEncoder,
    check_encoder,
    encoder_config,
    flops_per_token,
    save_encoder,
)
from starcoder.pii.neighbours import look_around
from starcoder.pii.pairs import Batch
from starcoder.pii.pretrained import read_whole
from starcoder.pii.pretraining import EncoderDataModule
from starcoder.pii.vocabulary import SPECIAL_TOKENS
from starcoder.release.folder import local_folder
from starcoder.storage import check_replaceable
from starcoder.training.base import TrainingModule, linear_with_warmup
from starcoder.training.checkpoint import Checkpoint
from starcoder.training.preemption import Preemption


class StarEncoderModule(TrainingModule):
    """Trains a `StarEncoder` on masked pairs; the loss is that of the masked tokens plus that of the pair.

    What is not named here, `TrainingModule` explains.

    Args:
        preset: "starencoder" or "laptop"; not used with `init_from`.
        vocab_size: tokens of StarCoder's tokenizer, V.
        overrides: fields of transformers' `BertConfig` that differ from the preset.
        init_from: folder, or Hub repository, of an encoder to go on with, such as bigcode/starencoder.
        look_around: a new encoder's first heads begin with a look at the tokens around, see `starcoder.pii.neighbours`.

    Raises:
        UserError: the weights cannot both be read and begin with a look around.
    """

    decay = staticmethod(linear_with_warmup)

    def __init__(
        self,
        preset: str = "starencoder",
        vocab_size: int = 49_152,
        overrides: dict[str, Any] | None = None,
        init_from: str | None = None,
        look_around: bool = False,
        learning_rate: float = 6e-4,
        min_learning_rate: float = 0.0,
        warmup_steps: int = 24_000,
        decay_steps: int | None = None,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.98,
        epsilon: float = 1e-6,
        skip_deviations: float = 0.0,
        seed: int = 1234,
    ) -> None:
        super().__init__(
            learning_rate,
            min_learning_rate,
            warmup_steps,
            decay_steps,
            weight_decay,
            beta1,
            beta2,
            epsilon,
            skip_deviations,
            seed,
        )
        if init_from and look_around:
            raise UserError("model.look_around is for new encoders: leave it out, or model.init_from")
        self.model: StarEncoder | None = None

    @cached_property
    def config(self) -> BertConfig:
        """The model's shape."""
        hp = self.hparams
        if not hp["init_from"]:
            return encoder_config(hp["preset"], hp["vocab_size"], **(hp["overrides"] or {}))
        folder = local_folder(hp["init_from"])
        check_encoder(folder)
        return BertConfig.from_pretrained(folder)

    @property
    def shape(self) -> dict[str, Any]:
        """What tells the model's shape from any other."""
        return {"model_type": "bert"} | {name: getattr(self.config, name) for name in SHAPE}

    def build(self) -> StarEncoder:
        """The model of that shape."""
        return StarEncoder(self.config)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw the weights that are here, or read them from `init_from`."""
        assert self.model is not None
        hp = self.hparams
        if not hp["init_from"]:
            self.model.init_weights(hp["seed"])
        if hp["init_from"] or hp["look_around"]:
            whole = self._whole().state_dict()
            for name, parameter in self.model.named_parameters():
                fill(parameter, whole[name].__getitem__)

    def _whole(self) -> torch.nn.Module:
        """The model to begin with, not sharded."""
        if folder := self.hparams["init_from"]:
            source: torch.nn.Module = read_whole(BertForPreTraining, local_folder(folder))
            return source
        with torch.device("cpu"):
            model = self.build()
        model.init_weights(self.hparams["seed"])
        look_around(model.bert)
        return model

    def batch_loss(self, batch: Batch) -> Tensor:
        """Mean loss in nats of one micro-batch; its parts are logged."""
        assert self.model is not None
        parts = self.model.measure(batch)
        if self.trainer.training:
            self.log_dict({name: value.detach() for name, value in parts.items()})
        else:
            named = {f"val_{name}": value for name, value in parts.items()}
            self.log_dict(named, batch_size=self.samples(batch), sync_dist=True)
        return parts["mlm_loss"] + parts["nsp_loss"]

    def samples(self, batch: Batch) -> int:
        """Samples in one micro-batch."""
        return len(batch["input_ids"])

    def work(self, batch: Batch) -> tuple[int, int]:
        """Tokens of one micro-batch, padding included, and the FLOPs that forward and backward take for them."""
        tokens = batch["input_ids"].numel()
        return tokens, tokens * flops_per_token(self.config, batch["input_ids"].size(1))

    def misfits(self, data: EncoderDataModule | None) -> list[str]:
        """What in the data the model has no room for."""
        config, found = self.config, []
        if data and data.tokenizer.vocab_size + len(SPECIAL_TOKENS) != config.vocab_size:
            found.append(
                f"the tokenizer has {data.tokenizer.vocab_size} tokens, the model is for "
                f"{config.vocab_size - len(SPECIAL_TOKENS)}: set model.vocab_size"
            )
        if data and data.context_length > config.max_position_embeddings:
            found.append(
                f"data.context_length is {data.context_length}, but the model's positions end at "
                f"{config.max_position_embeddings}"
            )
        return found


class SaveEncoder(Callback):
    """Writes the trained encoder and its tokenizer as a folder of transformers' when training has ended.

    Args:
        output: the folder; an encoder that was written there before is replaced, and nothing else.
    """

    def __init__(self, output: str) -> None:
        self.output = Path(output)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would end badly after days.

        Raises:
            UserError: when something else is in the folder, or nothing saves checkpoints.
        """
        problems = [] if _folder_of(trainer) else ["SaveEncoder needs a Checkpoint: it writes what that has saved"]
        try:
            check_replaceable(self.output, MARKER)
        except UserError as error:
            problems.append(str(error))
        raise_together(problems)

    @override
    def on_fit_end(self, trainer: Any, pl_module: LightningModule) -> None:
        """Write the folder, from the last checkpoint; a run that was told to stop has no time for it."""
        stopped = any(isinstance(callback, Preemption) and callback.stopped for callback in trainer.callbacks)
        if trainer.is_global_zero and not stopped:
            folder = _folder_of(trainer)
            assert folder is not None
            save_encoder(folder, trainer.datamodule.tokenizer, self.output)
        trainer.strategy.barrier()


def _folder_of(trainer: Any) -> Path | None:
    return next((callback.folder for callback in trainer.callbacks if isinstance(callback, Checkpoint)), None)
