"""StarPII (paper §4.2): StarEncoder with a classifier of tokens on top, trained as a Lightning module.

Shapes: B chunks, T tokens.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
import torch
from lightning.pytorch import LightningModule
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from starcoder.pii.bio import IGNORED, TAGS, chunks, encode, tag
from starcoder.pii.encoder import encoder_config
from starcoder.pii.examples import Example
from starcoder.pii.matching import Score, Scores, score_all
from starcoder.pii.neighbours import look_around
from starcoder.pii.ner import NerDetector

if TYPE_CHECKING:
    from transformers import BertModel

Row = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Ids and tags (T,) of a chunk."""


def new_classifier(encoder: "BertModel", window: int) -> Any:
    """Transformers' token classifier on an encoder; its last layer has learned nothing.

    Args:
        encoder: The encoder, whose weights are copied.
        window: Tokens of the samples that it will be trained on, for its configuration to tell.
    """
    from transformers import BertForTokenClassification

    encoder.config.id2label = dict(enumerate(TAGS))
    encoder.config.label2id = {name: number for number, name in enumerate(TAGS)}
    encoder.config.window = window
    model = BertForTokenClassification(encoder.config)
    model.bert.load_state_dict(encoder.state_dict())
    return model


def small_encoder(vocab_size: int) -> "BertModel":
    """An encoder of about two million parameters that has read nothing, but whose heads look around."""
    from transformers import BertModel

    bert = BertModel(encoder_config("laptop", vocab_size), add_pooling_layer=False)
    look_around(bert)
    return bert


class Chunks(Dataset[Row]):
    """Ids and tags (T,) of the chunks of examples.

    Args:
        examples: The labelled texts.
        tokenizer: The encoder's own.
        size: Most tokens of a chunk.
        rng: What the beginning of a text's first chunk is drawn from, so that entities come at every place; each
            text's chunks begin with its first token when not given.
        empty: Share of the chunks without any entity that are kept, drawn from `rng`.
    """

    def __init__(
        self,
        examples: Iterable[Example],
        tokenizer: tokenizers.Tokenizer,
        size: int,
        rng: np.random.Generator | None = None,
        empty: float = 1.0,
    ) -> None:
        self._chunks: list[Row] = []
        for example in examples:
            tokens = encode(tokenizer, example.text)
            tags = tag(tokens, example.fragments)
            offset = int(rng.integers(size)) if rng else 0
            for part in chunks(len(tags), size, offset):
                if rng is None or (tags[part] > 0).any() or rng.random() < empty:
                    self._chunks.append((tokens.ids[part], tags[part]))

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self._chunks)

    def __getitem__(self, index: int) -> Row:
        """Ids and tags of a chunk."""
        return self._chunks[index]


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Chunks as one batch, padded to the longest: `input_ids`, `attention_mask` and `labels` (B, T)."""
    size = max(len(ids) for ids, _ in rows)
    ids, tags = np.zeros((len(rows), size), dtype=np.int64), np.full((len(rows), size), IGNORED, dtype=np.int64)
    for row, (row_ids, row_tags) in enumerate(rows):
        ids[row, : len(row_ids)], tags[row, : len(row_tags)] = row_ids, row_tags
    lengths = np.array([len(row_ids) for row_ids, _ in rows])
    mask = np.arange(size) < lengths[:, None]
    return {
        "input_ids": torch.from_numpy(ids),
        "attention_mask": torch.from_numpy(mask),
        "labels": torch.from_numpy(tags),
    }


class StarPII(LightningModule):
    """Trains a token classifier on batches of `collate`, and measures it as a detector on whole examples.

    Args:
        detector: Holds transformers' classifier, whose tags are `TAGS`.
        held_out: Examples to measure with.
        learning_rate: Peak of the schedule.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: Decoupled decay of the matrices; vectors have none.
        progress: How much of the run is over, from 0 to 1, asked at every step; the cosine follows it.
    """

    def __init__(
        self,
        detector: NerDetector,
        held_out: Sequence[Example],
        learning_rate: float,
        warmup_steps: int,
        weight_decay: float,
        progress: Callable[[], float],
    ) -> None:
        super().__init__()
        self.model, self.detector, self.progress = detector.model, detector, progress
        self.learning_rate, self.warmup_steps, self.weight_decay = learning_rate, warmup_steps, weight_decay
        self.held_out, self.scores = held_out, Scores()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Mean loss in nats of the tokens of a batch that have a tag."""
        labels = batch["labels"].flatten()
        logits = self.model(batch["input_ids"], batch["attention_mask"]).logits
        total = cross_entropy(logits.flatten(0, 1).float(), labels, ignore_index=IGNORED, reduction="sum")
        loss: Tensor = total / (labels != IGNORED).sum().clamp(min=1)
        self.log("train_loss", loss)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin to count."""
        self.scores = Scores()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """Count what the model finds in the examples of these numbers (B,)."""
        examples = [self.held_out[number] for number in batch.tolist()]
        self.scores += score_all(examples, self.detector.detect_all([example.text for example in examples]))

    def on_validation_epoch_end(self) -> None:
        """Log `val_f1`, of all labels and processes together."""
        total = self.scores.total
        counts = torch.tensor([total.hits, total.extra, total.missed], device=self.device)
        hits, extra, missed = self.trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        self.log("val_f1", Score(hits, extra, missed).f1)

    def configure_optimizers(self) -> Any:
        """AdamW in two groups, and the schedule: linear warm-up by steps, then a cosine to 0 by progress."""
        groups = [
            {"params": [p for p in self.parameters() if (p.ndim >= 2) == matrices], "weight_decay": decay}
            for matrices, decay in ((True, self.weight_decay), (False, 0.0))
        ]
        optimizer = AdamW(groups, lr=self.learning_rate)
        schedule = LambdaLR(optimizer, self._factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _factor(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress())))
