"""The data modules: which data a run reads, what can go wrong with them, and how far it is.

Shapes: B micro-batch of one rank, T tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from starcoder.errors import UserError
from starcoder.tokenizer import Tokenizer, load
from starcoder.training.loader import FimWindows, Position, TrainingLoader, Window, Windows, outlive_signals
from starcoder.training.stream import Shards, open_shards


class TrainingData(LightningDataModule, ABC):
    """What every training reads: batches of a size that is the same on any number of devices, and a position in them.

    The position is part of every checkpoint. A subclass adds arguments of its own, and says the defaults.

    Args:
        train: what to train on.
        validation: what to validate on; without it there is no validation.
        tokenizer: folder of the tokenizer, or `owner/name` on the Hub.
        context_length: most tokens that the model sees in a sample, T.
        batch_size: samples in a micro-batch on one device.
        global_batch_size: samples in an optimizer step of all devices together. Gradients are accumulated over as many
            micro-batches as that takes, so that the steps are the same on any number of devices. When not given, it
            follows from the devices and the trainer's `accumulate_grad_batches`.
        seed: seed of the order of the samples, and of what is drawn for each.
        num_workers: processes that prepare batches on each rank; 0 prepares them in the training process.
        problems: what else is wrong, to be told together.

    Raises:
        UserError: when a number is out of range.
    """

    kind = "data"
    """What messages call it."""

    def __init__(
        self,
        train: str | Path,
        validation: str | Path | None,
        tokenizer: str | Path,
        context_length: int,
        batch_size: int,
        global_batch_size: int | None,
        seed: int,
        num_workers: int,
        problems: Sequence[str] = (),
    ) -> None:
        super().__init__()
        numbers = (
            ("context_length", context_length, 1),
            ("batch_size", batch_size, 1),
            ("global_batch_size", global_batch_size, 1),
            ("seed", seed, 0),
            ("num_workers", num_workers, 0),
        )
        wrong = [
            f"{name} must be at least {least}, but is {value}"
            for name, value, least in numbers
            if value is not None and value < least
        ]
        if wrong := [*wrong, *problems]:
            raise UserError("data: " + "; ".join(wrong))
        self.train = train
        self.validation = validation
        self.context_length = context_length
        self.batch_size = batch_size
        self.global_batch_size = global_batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.position = Position()
        self._opened: dict[str, Any] = {}
        self._tokenizer_folder = tokenizer

    @abstractmethod
    def open_data(self, name: str, location: str | Path) -> Any:
        """Open the data called "train" or "validation" at `location`; what is returned has a `digest`.

        Raises:
            UserError: when it is missing or damaged, does not belong to the tokenizer, or is too short.
        """

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the data."""
        return load(self._tokenizer_folder)

    def problems(self, ranks: int) -> list[str]:
        """What cannot be with this number of devices."""
        if self.global_batch_size is not None and self.global_batch_size % (self.batch_size * ranks):
            return [
                f"data.global_batch_size {self.global_batch_size} is no multiple of batch_size {self.batch_size} "
                f"on {ranks} devices"
            ]
        return []

    def setup(self, stage: str) -> None:
        """Check tokenizer and data before anything runs, and start at the first sample.

        Raises:
            UserError: as `check`; or when the global batch cannot be split.
        """
        self.check(stage)
        if stage == "fit":
            self._set_accumulation()
            self.position = Position()

    def check(self, stage: str) -> None:
        """Open tokenizer and data.

        Raises:
            UserError: when they are missing, damaged or do not belong together, or are too short.
        """
        locations = {"train": self.train if stage == "fit" else None, "validation": self.validation}
        for name, location in locations.items():
            if location is not None and name not in self._opened:
                self._opened[name] = self.open_data(name, location)

    def state_dict(self) -> dict[str, Any]:
        """The position in the data, and which data. Lightning keeps the loader's too, but forgets it after an epoch."""
        return asdict(self.position) | {"shards": self._opened["train"].digest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the position in `state_dict`, also where the loader exists already.

        Raises:
            UserError: when it is a position in other data.
        """
        if "train" not in self._opened:  # validation alone has no position
            return
        if problems := self.differences({type(self).__qualname__: state_dict}):
            raise UserError(problems[0])
        vars(self.position).update({name: state_dict[name] for name in vars(self.position)})

    def differences(self, checkpoint: dict[str, Any]) -> list[str]:
        """What forbids to go on from the position in `checkpoint` in this data."""
        if checkpoint.get(type(self).__qualname__, {}).get("shards") == self._opened["train"].digest:
            return []
        return [
            f"the checkpoint is of a run on other {self.kind} than {self.train}: start anew, with another "
            "checkpoint.folder or without this one"
        ]

    def _ranks(self) -> dict[str, int]:
        """This process, and the number of those that split a batch, in Lightning's words."""
        return (self.trainer and self.trainer.distributed_sampler_kwargs) or {"rank": 0, "num_replicas": 1}

    def _set_accumulation(self) -> None:
        ranks = self._ranks()["num_replicas"]
        if problems := self.problems(ranks):
            raise UserError(problems[0])
        trainer: Any = self.trainer
        if self.global_batch_size is not None and trainer:
            before = trainer.accumulate_grad_batches
            trainer.accumulate_grad_batches = self.global_batch_size // (self.batch_size * ranks)
            if isinstance(trainer.val_check_interval, int):  # Lightning counts micro-batches, recipes optimizer steps
                trainer.val_check_interval = trainer.val_check_interval // before * trainer.accumulate_grad_batches


class TokenDataModule(TrainingData):
    """Token shards as batches (B, T+1) of int64: tokens are `batch[:, :-1]`, targets `batch[:, 1:]`.

    A sample is a window. What is not named here, `TrainingData` explains; the paper's global batch has 512 windows.

    Args:
        train: token shards to train on: a folder, or a URL that litdata reads (s3://, gs://, r2://, azure://, hf://).
        tokenizer: folder of the tokenizer that made the shards.
        context_length: tokens that the model sees, T; the paper's is 8192. A window has one more.
        fim_rate: probability that a document, or the part of it in a window, is permuted (paper: 0.5).
        fim_spm_rate: probability that a permuted one has the suffix first (paper: 0.5).
        shuffle: whether the order of the windows is random, another one in each epoch.
        cache: folder for the chunks of shards at a URL; must have room for all of them.

    Raises:
        UserError: when a number is out of range.
    """

    kind = "token shards"

    def __init__(
        self,
        train: str | Path,
        tokenizer: str | Path,
        context_length: int = 8192,
        batch_size: int = 1,
        global_batch_size: int | None = None,
        validation: str | Path | None = None,
        fim_rate: float = 0.5,
        fim_spm_rate: float = 0.5,
        seed: int = 1234,
        shuffle: bool = True,
        num_workers: int = 0,
        cache: str | Path = "build/cache",
    ) -> None:
        rates = {"fim_rate": fim_rate, "fim_spm_rate": fim_spm_rate}
        problems = [
            f"{name} must lie between 0 and 1, but is {rate}" for name, rate in rates.items() if not 0 <= rate <= 1
        ]
        super().__init__(
            train,
            validation,
            tokenizer,
            context_length,
            batch_size,
            global_batch_size,
            seed,
            num_workers,
            problems,
        )
        self.fim_rates = (fim_rate, fim_spm_rate)
        self.shuffle = shuffle
        self.cache = Path(cache)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that can occur in a batch."""
        return self.tokenizer.vocab_size

    def train_dataloader(self) -> TrainingLoader:
        """Shuffled and permuted windows.

        Raises:
            UserError: when there are fewer windows than the ranks take in a step.
        """
        shards = self._opened["train"]
        length = self.context_length + 1
        ranks = self._ranks()
        accumulation = self.trainer.accumulate_grad_batches if self.trainer else 1
        loader = TrainingLoader(
            FimWindows(Windows(shards, length), self.tokenizer, *self.fim_rates, self.seed),
            shards.windows(length),
            self.seed if self.shuffle else None,
            self.batch_size,
            accumulation,
            ranks["rank"],
            ranks["num_replicas"],
            self.num_workers,
            self.position,
        )
        if len(loader) == 0:
            windows = sum(loader.chunk_windows)
            raise UserError(
                f"{self.train} has {windows} windows, but a step takes {loader.windows_per_step}; lower the batch size"
            )
        return loader

    def val_dataloader(self) -> DataLoader[Window] | list[Any]:
        """All windows, in order and as they are; Lightning shares them out among the ranks."""
        if self.validation is None:
            return []
        return DataLoader(
            Windows(self._opened["validation"], self.context_length + 1),
            self.batch_size,
            num_workers=self.num_workers,
            worker_init_fn=outlive_signals,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )

    def open_data(self, name: str, location: str | Path) -> Shards:
        """Open token shards, which must hold a window."""
        shards = open_shards(location, self.tokenizer, self.cache)
        length = self.context_length + 1
        if not any(shards.windows(length)):
            raise UserError(
                f"no chunk of {location} ({shards.n_tokens:,} tokens) holds a window of context_length + 1 = "
                f"{length:,} tokens: take a shorter context, or more data"
            )
        return shards
