"""The data module of StarEncoder's training: batches of masked pairs from a corpus, see `starcoder.pii.pairs`."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from starcoder.errors import UserError
from starcoder.pii.pairs import FRAME, Collate, FixedPairs, Pairs, Sample, Texts
from starcoder.training.data import TrainingData
from starcoder.training.loader import TrainingLoader, outlive_signals


class EncoderDataModule(TrainingData):
    """Masked pairs from a corpus; see `Collate` for the batches.

    What is not named here, `TrainingData` explains; the paper's global batch has 4096 samples of 1024 tokens.

    Args:
        corpus: folder that `starcoder corpus build` wrote.
        max_characters: how much of a file is read, halved into A and B (the authors': 10,000).
        random_start: whether that begins anywhere in the file, elsewhere in each epoch, or where the file does.
        validate: whether the corpus's validation split is used while training.

    Raises:
        UserError: when a number is out of range.
    """

    kind = "documents"

    def __init__(
        self,
        corpus: str | Path,
        tokenizer: str | Path,
        context_length: int = 1024,
        batch_size: int = 64,
        global_batch_size: int | None = None,
        max_characters: int = 10_000,
        random_start: bool = False,
        validate: bool = True,
        seed: int = 1234,
        num_workers: int = 0,
    ) -> None:
        least = FRAME + 2
        problems = [f"context_length {context_length} is below {least}"] if 0 < context_length < least else []
        problems += [f"max_characters is {max_characters}, below 2"] if max_characters < 2 else []
        super().__init__(
            corpus,
            corpus if validate else None,
            tokenizer,
            context_length,
            batch_size,
            global_batch_size,
            seed,
            num_workers,
            problems,
        )
        self.max_characters, self.random_start = max_characters, random_start

    def open_data(self, name: str, location: str | Path) -> Texts:
        """Open a split of the corpus."""
        _ = self.tokenizer  # a wrong one is told before anything runs
        return Texts(Path(location), name)

    def train_dataloader(self) -> TrainingLoader:
        """Pairs in the order of the epoch.

        Raises:
            UserError: when there are fewer documents than the ranks take in a step.
        """
        pairs = self._pairs("train")
        ranks = self._ranks()
        loader = TrainingLoader(
            pairs,
            pairs.texts.rows.tolist(),
            self.seed,
            self.batch_size,
            self.trainer.accumulate_grad_batches if self.trainer else 1,
            ranks["rank"],
            ranks["num_replicas"],
            self.num_workers,
            self.position,
            Collate(self.tokenizer.vocab_size),
        )
        if len(loader) == 0:
            raise UserError(
                f"{self.train} has {len(pairs)} documents, but a step takes {loader.windows_per_step}; "
                "lower the batch size"
            )
        return loader

    def val_dataloader(self) -> DataLoader[Sample] | list[Any]:
        """The pairs of the validation split, the same every time; Lightning shares them out among the ranks."""
        if self.validation is None:
            return []
        return DataLoader(
            FixedPairs(self._pairs("validation")),
            self.batch_size,
            num_workers=self.num_workers,
            worker_init_fn=outlive_signals,
            collate_fn=Collate(self.tokenizer.vocab_size),
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),
        )

    def _pairs(self, split: str) -> Pairs:
        return Pairs(
            self._opened[split],
            self.tokenizer,
            self.context_length,
            self.seed,
            self.max_characters,
            self.random_start,
            shuffled=split == "train",
        )
