"""The Lightning module of StarCoder: model and objective (§5.5-5.6). Parallelism lives elsewhere."""

from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from starcoder.errors import UserError, one_line
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.training.base import TrainingModule
from starcoder.training.checkpoint import newest, read_meta, read_weights
from starcoder.training.data import TokenDataModule


class StarCoderModule(TrainingModule):
    """Trains a `StarCoder` on batches of tokens (B, T+1); what is not named here, `TrainingModule` explains.

    Args:
        preset: name of the model's shape, see `starcoder.model.PRESETS`; not used with `init_from`.
        overrides: fields of `StarCoderConfig` that differ from the preset, or from the folder of `init_from`.
        init_from: checkpoint folder, or Hub repository, to start from: StarCoderBase on the way to StarCoder.
    """

    def __init__(
        self,
        preset: str = "starcoderbase",
        overrides: dict[str, Any] | None = None,
        init_from: str | None = None,
        learning_rate: float = 3e-4,
        min_learning_rate: float = 3e-5,
        warmup_steps: int = 2000,
        decay_steps: int | None = None,
        weight_decay: float = 0.1,
        beta1: float = 0.9,
        beta2: float = 0.95,
        epsilon: float = 1e-8,
        skip_deviations: float = 6.0,
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
        self.model: StarCoder | None = None

    @cached_property
    def config(self) -> StarCoderConfig:
        """The model's shape."""
        hp = self.hparams
        overrides = hp["overrides"] or {}
        if hp["init_from"]:
            return StarCoderConfig.from_pretrained(hp["init_from"], **overrides)
        return StarCoderConfig.preset(hp["preset"], **overrides)

    @property
    def shape(self) -> dict[str, Any]:
        """What tells the model's shape from any other."""
        return asdict(self.config)

    def build(self) -> StarCoder:
        """The model of that shape."""
        return StarCoder(self.config)

    def init_weights(self) -> None:
        """Draw the weights that are here, or read them from `init_from`."""
        assert self.model is not None
        if self.hparams["init_from"]:
            self.model.load_pretrained(self.hparams["init_from"])
        else:
            self.model.init_weights(self.hparams["seed"])

    def batch_loss(self, batch: Tensor) -> Tensor:
        """Mean loss in nats of one micro-batch (B, T+1)."""
        assert self.model is not None
        return self.model.loss(batch[:, :-1], batch[:, 1:])

    def work(self, batch: Tensor) -> tuple[int, int]:
        """Tokens of one micro-batch (B, T+1), and the FLOPs that forward and backward take for them."""
        length = batch.size(1) - 1
        tokens = batch.size(0) * length
        return tokens, tokens * self.config.flops_per_token(length)

    def misfits(self, data: TokenDataModule | None) -> list[str]:
        """What in the data the model has no room for."""
        config, found = self.config, []
        if data and data.vocab_size > config.vocab_size:
            found.append(f"the tokenizer has {data.vocab_size} tokens, the model only {config.vocab_size}")
        if data and data.context_length > config.context_length:
            found.append(
                f"data.context_length is {data.context_length}, but the model's context ends at {config.context_length}"
            )
        return found


def load_trained(checkpoint: Path) -> StarCoder:
    """The model inside a checkpoint, or in the newest one of a folder of checkpoints.

    Raises:
        UserError: when there is none, or it is damaged, or not of a `StarCoderModule`.
    """
    checkpoint = newest(checkpoint) or checkpoint
    shape = read_meta(checkpoint).get("model_config")
    state = {
        name.removeprefix("model."): tensor
        for name, tensor in read_weights(checkpoint).items()
        if name.startswith("model.")
    }
    if shape is None or not state:
        raise UserError(f"{checkpoint} is no checkpoint of this kit's training")
    try:
        with torch.device("meta"):
            model = StarCoder(StarCoderConfig(**shape))
        model.load_state_dict(state, assign=True)
    except (TypeError, RuntimeError) as error:
        raise UserError(f"{checkpoint} does not fit this version of the kit: {one_line(error)}") from None
    return model
