"""`starcoder fit` and `starcoder validate`: Lightning's command line over our modules; recipes are its YAML."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentError
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from starcoder.errors import UserError, one_line
from starcoder.model import StarCoderConfig
from starcoder.training.base import TrainingModule
from starcoder.training.checkpoint import Checkpoint, newest, read_meta
from starcoder.training.data import TokenDataModule, TrainingData
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy
from starcoder.training.preemption import EXIT_CODE, Preemption, ignore_signals, plain_interrupt
from starcoder.training.recipe import expand, setting


class StarCoderCLI(LightningCLI):
    """LightningCLI with the subcommands that make sense here; a wrong argument is raised, not printed with a usage.

    Args:
        args: the command line, its recipes expanded; its `architecture` decides what `model` and `data` are.
    """

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            *_classes(setting(args, "architecture", "starcoder")),
            seed_everything_default=1234,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "strategy": {"class_path": "starcoder.training.parallel.ShardedStrategy"},
                "callbacks": [Preemption()],
            },
            parser_kwargs={"prog": "starcoder", "exit_on_error": False, "allow_abbrev": False},
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's own subcommands, cut to two."""
        return {name: LightningCLI.subcommands()[name] for name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Every run keeps a checkpoint, the recipe's section `checkpoint`, and has one seed for everything."""
        parser.add_argument("--extends", type=str | None, help="recipe beside this one that it changes")
        parser.add_argument(
            "--architecture",
            type=Literal["starcoder", "starencoder"],
            default="starcoder",
            help="what is trained: the language model, or the encoder of the PII detector",
        )
        parser.add_lightning_class_args(Checkpoint, "checkpoint")
        for target in ("model.seed", "data.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=int)

    def before_instantiate_classes(self) -> None:
        """Find the last checkpoint; refuse to validate weights that nobody trained."""
        options = self.config[self.subcommand]
        if options.ckpt_path:
            last = options.ckpt_path == "last"
            folder = Path(options.checkpoint.folder if last else options.ckpt_path)
            found = newest(folder) or (None if last else folder)
            options.ckpt_path = found and str(found)
        if self.subcommand == "validate" and not (options.ckpt_path or options.model.init_from):
            raise UserError("starcoder validate: name the weights with --ckpt_path or --model.init_from")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; settings that it cannot have, such as an absent accelerator, are the user's to mend."""
        try:
            return super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:
            if "No supported gpu backend" not in str(error):
                raise
            raise UserError("torch finds no GPU on this machine; --trainer.accelerator=cpu does without") from None
        except (ValueError, ModuleNotFoundError) as error:
            raise UserError(f"trainer: {one_line(error)}") from None

    def instantiate_classes(self) -> None:
        """Build everything; then say all that does not go together, before any process is started."""
        super().instantiate_classes()
        ckpt_path = self.config[self.subcommand].ckpt_path
        if problems := _problems(self.trainer, self.model, self.datamodule, str(self.subcommand), ckpt_path):
            if self.trainer.global_rank:  # every rank has found them, one tells
                sys.exit(2)
            raise UserError("; ".join(problems))

    def _parse_ckpt_path(self) -> None:
        """The recipe and the options decide; a checkpoint does not override them."""


def run(args: list[str]) -> None:
    """Run `fit` or `validate` with its arguments, e.g. `["fit", "--config", "recipes/smoke.yaml"]`.

    Raises:
        UserError: for an unknown key, a value of the wrong type, a file or an accelerator that is missing.
        SystemExit: with code 75 after SIGTERM or SIGUSR1; `--ckpt_path last` goes on.
        KeyboardInterrupt: after Ctrl-C, once the trainer has shut down.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for harmless in _HARMLESS_WARNINGS:
        warnings.filterwarnings("ignore", message=harmless)
    try:
        with plain_interrupt():
            cli = StarCoderCLI(expand(args))
    except (ArgumentError, MisconfigurationException) as error:
        raise UserError(f"{args[0]}: {one_line(error)}") from None
    trainer: Any = cli.trainer
    stopped = any(isinstance(callback, Preemption) and callback.stopped for callback in trainer.callbacks)
    if stopped:
        ignore_signals()
        sys.exit(EXIT_CODE if trainer.is_global_zero else 0)


def _classes(architecture: str) -> tuple[type[TrainingModule], type[TrainingData]]:
    """The modules of an architecture; the parser refuses one that does not exist."""
    if architecture == "starencoder":
        from starcoder.pii.encoder_module import StarEncoderModule
        from starcoder.pii.pretraining import EncoderDataModule

        return StarEncoderModule, EncoderDataModule
    return StarCoderModule, TokenDataModule


def _problems(trainer: Any, module: TrainingModule, data: TrainingData, stage: str, ckpt_path: str | None) -> list[str]:
    """All that does not go together, as far as that can be known before anything runs."""
    strategy = trainer.strategy
    if not isinstance(strategy, ShardedStrategy):
        return ["trainer.strategy must be a starcoder.training.parallel.ShardedStrategy: only that saves checkpoints"]
    training = stage == "fit"
    problems = data.problems(trainer.num_nodes * trainer.num_devices) if training else []
    problems += strategy.problems()
    if trainer.gradient_clip_algorithm not in (None, "norm"):
        problems.append(
            f"trainer.gradient_clip_algorithm is {trainer.gradient_clip_algorithm}: only the norm is clipped"
        )
    if data.global_batch_size is not None and trainer.accumulate_grad_batches != 1:
        problems.append("trainer.accumulate_grad_batches follows from data.global_batch_size: give one of them")
    if not strategy.problems() and isinstance(module, StarCoderModule):
        problems += _shortage(strategy, module.config, data, training)
    try:
        problems += module.misfits(data)
        data.check(stage)
        if ckpt_path:
            meta = read_meta(Path(ckpt_path))
            problems += module.differences(meta, data) + (data.differences(meta) if training else [])
    except UserError as error:
        problems.append(str(error))
    return problems


def _shortage(strategy: ShardedStrategy, config: StarCoderConfig, data: TrainingData, training: bool) -> list[str]:
    needed, there = 4 * strategy.share(config.n_params), _memory(strategy.root_device)
    if training:
        needed = strategy.least_memory(config, data.batch_size * data.context_length)
    if strategy.root_device.type == "cpu":  # its processes share what there is
        there //= strategy.num_processes
    if needed <= there:
        return []
    return [
        f"weights{', optimizer states, gradients and activations' if training else ''} take at least "
        f"{needed / 1e9:,.0f} GB on each of {strategy.num_processes} devices, which have {there / 1e9:,.0f} GB: "
        "`starcoder plan` tells what does"
    ]


def _memory(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_HARMLESS_WARNINGS = (
    "LightningCLI's args parameter",  # the command line arrives through `starcoder.cli`
    ".*LeafSpec",  # Lightning's use of a torch internal
    "Total length of `list` across ranks is zero",  # no validation
    ".*does not have many workers",  # recipes choose them
)
