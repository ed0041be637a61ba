"""`starcoder fit` and `starcoder validate`: Lightning's command line over our modules; recipes are its YAML."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from starcoder.errors import UserError, one_line
from starcoder.training.checkpoint import Checkpoint, newest
from starcoder.training.data import TokenDataModule
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy
from starcoder.training.preemption import EXIT_CODE, Preemption
from starcoder.training.recipe import expand


class StarCoderCLI(LightningCLI):
    """LightningCLI with the subcommands that make sense here; a wrong argument is raised, not printed with a usage."""

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            StarCoderModule,
            TokenDataModule,
            seed_everything_default=1234,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "strategy": {"class_path": "starcoder.training.parallel.ShardedStrategy"},
                "callbacks": [Preemption()],
            },
            parser_kwargs={"prog": "starcoder", "exit_on_error": False},
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's own subcommands, cut to two."""
        return {name: LightningCLI.subcommands()[name] for name in ("fit", "validate")}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Every run keeps a checkpoint, the recipe's section `checkpoint`, and has one seed for everything."""
        parser.add_argument("--extends", type=str | None, help="recipe beside this one that it changes")
        parser.add_lightning_class_args(Checkpoint, "checkpoint")
        for target in ("model.seed", "data.seed"):
            parser.link_arguments("seed_everything", target, compute_fn=int)

    def before_instantiate_classes(self) -> None:
        """Find the last checkpoint; refuse to validate weights that nobody trained."""
        options = self.config[self.subcommand]
        if options.ckpt_path == "last":
            last = newest(Path(options.checkpoint.folder))
            options.ckpt_path = last and str(last)
        if self.subcommand == "validate" and not (options.ckpt_path or options.model.init_from):
            raise UserError("starcoder validate: name the weights with --ckpt_path or --model.init_from")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer; settings that it cannot have, such as an absent accelerator, are the user's to mend."""
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, ModuleNotFoundError) as error:
            raise UserError(f"trainer: {one_line(error)}") from None

    def instantiate_classes(self) -> None:
        """Build everything; then say all that does not go together, before any process is started."""
        super().instantiate_classes()
        trainer, data = self.trainer, self.datamodule
        ranks = trainer.num_nodes * trainer.num_devices
        problems = data.problems(ranks)
        if isinstance(trainer.strategy, ShardedStrategy):
            problems += trainer.strategy.problems()
        if problems:
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
        cli = StarCoderCLI(expand(args))
    except (ArgumentError, MisconfigurationException) as error:
        raise UserError(f"{args[0]}: {one_line(error)}") from None
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # the trainer turns Ctrl-C into exit code 1
            raise KeyboardInterrupt from None
        raise
    trainer: Any = cli.trainer
    if any(isinstance(callback, Preemption) and callback.stopped for callback in trainer.callbacks):
        sys.exit(EXIT_CODE)


_HARMLESS_WARNINGS = (
    "LightningCLI's args parameter",  # the command line arrives through `starcoder.cli`
    '.*ckpt_path="last".* is set, but there is no last checkpoint',  # the first start of a run that may be resumed
    ".*LeafSpec",  # Lightning's use of a torch internal
    ".*does not have many workers",  # recipes choose them
    "Checkpoint directory .* exists and is not empty",
)
