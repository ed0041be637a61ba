"""What StarEncoder learns from (paper §4.2): two halves of a file, or of two files, with some of their tokens hidden.

    file ─► its first 10,000 characters, halved ─► A, B ─► <cls> A <sep> B <sep> ─► 15 % of the tokens are targets,
            half of the time B is of another file                                   8 of 10 hidden, 1 other, 1 as it is

All draws of a sample are keyed by (seed, epoch, index): they are the same on any rank, in any worker, after any resume.
A group of rows of a parquet shard is to the order of samples what a chunk is to token shards: 16 of them are in memory.

Shapes: B samples of a micro-batch on one rank, T tokens, K targets.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from starcoder.corpus.document import SCHEMA, shards
from starcoder.errors import UserError
from starcoder.pii.vocabulary import SPECIAL_TOKENS
from starcoder.tokenizer import SENTINELS, Tokenizer
from starcoder.training.fim import sample_rng
from starcoder.training.stream import SHUFFLED_CHUNKS, chunk_order

MASK_RATE = 0.15
NEGATIVE_RATE = 0.5
NO_TARGET = -100
FRAME = 3
"""Tokens of a sample that are of no text: <cls>, <sep>, <sep>."""
_order = lru_cache(maxsize=2)(chunk_order)  # for many groups, it takes longer than the rest of a sample
_UNASSIGNED = re.compile("[\U00040000-\U0007ffff]")  # planes 4-7: the released vocabulary cannot spell them

Ids = NDArray[np.int64]
Batch = dict[str, Tensor]


class Sample(NamedTuple):
    """One pair: ids, token types and targets (`NO_TARGET` where there is none), (T,) each, and whether B is foreign."""

    ids: Ids
    types: Ids
    targets: Ids
    negative: bool


class Texts:
    """The texts of a corpus by number, read by groups of rows, of which the last few that were used stay in memory.

    Args:
        folder: the corpus.
        split: "train" or "validation".

    Raises:
        UserError: when a shard is missing, corrupt or of another version, or there are fewer than two documents.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.groups = [(path, group, rows) for path in shards(folder, split) for group, rows in _groups(path)]
        self.rows = np.array([rows for _, _, rows in self.groups], dtype=np.int64)
        self.first = np.cumsum([0, *self.rows])
        if len(self) < 2:
            raise UserError(f"{folder} has {len(self)} {split} documents, but a pair takes two: build a larger corpus")
        layout = [(path.name, path.stat().st_size, group, rows) for path, group, rows in self.groups]
        self.digest = hashlib.sha256(repr(layout).encode()).hexdigest()

    def __len__(self) -> int:
        """Number of documents."""
        return int(self.first[-1])

    def __getitem__(self, index: int) -> str:
        """The content of document `index`."""
        place = self.group_of(index)
        path, group, _ = self.groups[place]
        return str(_contents(path, group)[int(index - self.first[place])])

    def group_of(self, index: int) -> int:
        """Which group of rows holds document `index`."""
        return int(np.searchsorted(self.first, index, side="right")) - 1


def _groups(path: Path) -> list[tuple[int, int]]:
    """Number and rows of each group of a shard, from its footer."""
    try:
        with pq.ParquetFile(path) as shard:
            if not shard.schema_arrow.equals(SCHEMA):
                raise UserError(f"{path} does not hold documents of this version: build the corpus again")
            return [(group, shard.metadata.row_group(group).num_rows) for group in range(shard.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(path, error) from None


@lru_cache(maxsize=SHUFFLED_CHUNKS)
def _contents(path: Path, group: int) -> Any:
    """The column of contents of one group: strings of Arrow, which are small."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as shard:
            return shard.read_row_group(group, columns=["content"])["content"]
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(path, error) from None


def _corrupt(path: Path, error: Exception) -> UserError:
    return UserError(f"{path} is corrupt ({str(error).splitlines()[0]}): build the corpus again")


@dataclass(frozen=True)
class Pairs(Dataset[Sample]):
    """Masked pairs of the halves of texts, by (epoch, index).

    Attributes:
        texts: the corpus.
        tokenizer: StarCoder's.
        length: most tokens of a sample, T.
        seed: what all draws are keyed by.
        max_characters: how much of a text is read.
        random_start: whether that begins anywhere in the text, elsewhere in each epoch, or where the text does.
        shuffled: whether the epochs visit the groups of rows in the order of `chunk_order`, or as they are.
    """

    texts: Texts
    tokenizer: Tokenizer
    length: int
    seed: int
    max_characters: int = 10_000
    random_start: bool = False
    shuffled: bool = True

    def __len__(self) -> int:
        """Number of samples: one a document."""
        return len(self.texts)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample whose A is of document `index`."""
        epoch, index = key
        rng = sample_rng(self.seed, epoch, index)
        negative = bool(rng.random() < NEGATIVE_RATE)
        first, second = self._halves(index, rng)
        if negative:
            _, second = self._halves(self.other(epoch, index, rng), rng)
        ids, types = frame(self._encode(first), self._encode(second), self.length, self.tokenizer.vocab_size)
        ids, targets = mask(ids, rng, self.tokenizer.vocab_size)
        return Sample(ids, types, targets, negative)

    def other(self, epoch: int, index: int, rng: np.random.Generator) -> int:
        """Another document, of the groups of rows that are in memory when the epoch comes to `index`."""
        rows, first, own = self.texts.rows, self.texts.first, self.texts.group_of(index)
        order = _order(len(rows), self.seed, epoch) if self.shuffled else np.arange(len(rows))
        start = int(np.flatnonzero(order == own)[0]) // SHUFFLED_CHUNKS * SHUFFLED_CHUNKS
        near = order[max(0, min(start, len(order) - SHUFFLED_CHUNKS)) :][:SHUFFLED_CHUNKS]
        ends = np.cumsum(rows[near])
        draw = int(rng.integers(ends[-1] - 1))
        place = int(np.flatnonzero(near == own)[0])
        draw += draw >= ends[place] - rows[own] + index - first[own]  # step over the document itself
        group = int(np.searchsorted(ends, draw, side="right"))
        return int(first[near[group]] + draw - (ends[group] - rows[near[group]]))

    def _halves(self, index: int, rng: np.random.Generator) -> tuple[str, str]:
        text = self.texts[index]
        if self.random_start:
            text = text[rng.integers(max(0, len(text) - self.max_characters) + 1) :]
        text = text[: self.max_characters]
        return text[: len(text) // 2], text[len(text) // 2 :]

    def _encode(self, text: str) -> Ids:
        return self.tokenizer.encode_array(_UNASSIGNED.sub("", text)).astype(np.int64)


@dataclass(frozen=True)
class FixedPairs(Dataset[Sample]):
    """The pairs of epoch 0 by index, for validation."""

    pairs: Pairs

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`."""
        return self.pairs[0, index]


def frame(first: Ids, second: Ids, length: int, vocab_size: int) -> tuple[Ids, Ids]:
    """`<cls> A <sep> B <sep>` and its token types, of at most `length` tokens.

    What is too long loses the end of its longer part, then of both, as transformers' "longest_first" does.
    """
    pad = vocab_size
    _, sep, cls, _ = range(pad, pad + len(SPECIAL_TOKENS))
    room = length - FRAME
    if len(first) > len(second):
        second = second[: room // 2]
        first = first[: room - len(second)]
    else:
        first = first[: room // 2]
        second = second[: room - len(first)]
    ids = np.concatenate([[cls], first, [sep], second, [sep]]).astype(np.int64)
    return ids, (np.arange(len(ids)) >= len(first) + 2).astype(np.int64)


def mask(ids: Ids, rng: np.random.Generator, vocab_size: int) -> tuple[Ids, Ids]:
    """Make each token of the text a target with probability `MASK_RATE`.

    Returns:
        Ids with 80 % of the targets replaced by <mask>, 10 % by a token of text at random; and the targets.
    """
    chosen = (rng.random(len(ids)) < MASK_RATE) & (ids < vocab_size)
    fate = rng.random(len(ids))
    others = rng.integers(len(SENTINELS), vocab_size, len(ids))
    targets = np.where(chosen, ids, NO_TARGET)
    hidden = np.where(chosen & (fate < 0.8), vocab_size + SPECIAL_TOKENS.index("<mask>"), ids)
    return np.where(chosen & (fate >= 0.9), others, hidden), targets


@dataclass(frozen=True)
class Collate:
    """Makes a batch of samples, padded to the longest, by the names of transformers' arguments where it has them.

    `input_ids`, `token_type_ids`, `attention_mask` (B, T); `next_sentence_label` (B,), 1 where B is of another file;
    `masked` (K,), the places of the targets in the B·T tokens, and `targets` (K,), what belongs there.
    """

    pad: int

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Stack `samples`."""
        shape = (len(samples), max(len(sample.ids) for sample in samples))
        ids, types, seen, targets = (np.full(shape, value) for value in (self.pad, 0, 0, NO_TARGET))
        for row, sample in enumerate(samples):
            n = len(sample.ids)
            ids[row, :n], types[row, :n], seen[row, :n], targets[row, :n] = sample.ids, sample.types, 1, sample.targets
        masked = np.flatnonzero(targets != NO_TARGET)
        arrays = {
            "input_ids": ids,
            "token_type_ids": types,
            "attention_mask": seen,
            "next_sentence_label": np.array([int(sample.negative) for sample in samples]),
            "masked": masked,
            "targets": targets.flatten()[masked],
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
