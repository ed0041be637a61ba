"""From probabilities of tags to entities (paper §4.3).

    tokens          " | token | = | " | gh | p_ | x9 | 4Q | "
    labels of words O   O       O   O   KEY           …    O     the mean over a word's tokens; B- and I- together
    entity                              ╰─────────────╯          words of one label in a row, trimmed

What a sequence of tags must not be cannot come up: an I- without a B- before it begins an entity all the same.

Shapes: T tokens, W words, K tags, L labels.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from starcoder.errors import UserError
from starcoder.pii.bio import Tokens
from starcoder.pii.entity import LABELS, Entity
from starcoder.pii.examples import CATEGORIES

OUTSIDE = "O"


class Tags:
    """What a model's tags mean.

    Args:
        names: The name of each tag by its number, as in a model's `id2label`: `O`, `B-NAME`, `I-NAME`, …; a model
            that does not tell where entities begin has just `NAME`.

    Raises:
        UserError: They are no BIO tags of the labels of `CATEGORIES`.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        tags = [names[number] for number in sorted(names)]
        of = [re.sub("^[BI]-", "", tag) for tag in tags]
        if unknown := sorted(set(of) - {OUTSIDE, *CATEGORIES}):
            raise UserError(f"its tags are no B- and I- of {', '.join(LABELS)}, but {', '.join(unknown)}")
        if OUTSIDE not in of:
            raise UserError(f"its tags have no {OUTSIDE!r}, for what is no entity")
        self.labels = [OUTSIDE, *sorted(set(of) - {OUTSIDE})]
        self._label = np.array([[label == name for name in of] for label in self.labels], dtype=np.float32).T
        begins = np.array([tag.startswith("B-") for tag in tags])
        self._begin = np.where(begins[:, None], self._label, -self._label)

    def entities(self, text: str, tokens: Tokens, probabilities: NDArray[np.float32]) -> list[Entity]:
        """The entities of a text.

        Args:
            text: The text.
            tokens: Its tokens.
            probabilities: Of each tag for each token (T, K).
        """
        if not len(tokens.ids):
            return []
        first = np.flatnonzero(np.diff(tokens.words, prepend=-1))
        last = np.append(first[1:], len(tokens.words)) - 1
        weights = _weights(text, tokens, first)
        of_labels = np.add.reduceat((probabilities @ self._label) * weights[:, None], first)
        of_labels /= np.add.reduceat(weights, first)[:, None]  # (W, L)
        label = of_labels.argmax(axis=1)
        rows = np.arange(len(label))
        begins = (probabilities[first] @ self._begin)[rows, label] > 0
        starts, ends = tokens.starts[first], tokens.ends[last]
        found = []
        for run in _runs(label, begins & _apart(text, starts, ends)):
            name = self.labels[label[run.start]]
            score = float(of_labels[run, label[run.start]].mean())
            if name in LABELS and (span := trim(text, int(starts[run][0]), int(ends[run][-1]), name)):
                found.append(Entity(*span, name, min(score, 1.0), "ner"))
        return found


def trim(text: str, start: int, end: int, label: str) -> tuple[int, int] | None:
    """The span without signs and blanks at its ends, those of a key's right end excepted; None if nothing is left."""
    value = text[start:end]
    left = len(value) - len(re.sub(r"^[\W_]+", "", value))
    right = len(value.rstrip() if label == "KEY" else re.sub(r"\W+$", "", value))
    return (start + left, start + right) if left < right else None


def _weights(text: str, tokens: Tokens, first: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of each token in the mean of its word (T,): blanks in front of letters have no say, words of blanks do."""
    spans = zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)
    weights = np.array([not text[a:b].isspace() for a, b in spans], dtype=np.float32)
    lengths = np.diff(np.append(first, len(weights)))
    blank: NDArray[np.bool_] = np.add.reduceat(weights, first) == 0
    return weights + np.repeat(blank, lengths).astype(np.float32)


def _apart(text: str, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether there is white space before or at the start of each word (W,)."""
    before = np.append(0, ends[:-1])
    return np.array([text[a : b + 1].strip() != text[a : b + 1] for a, b in zip(before, starts, strict=True)])


def _runs(label: NDArray[np.int64], begins: NDArray[np.bool_]) -> Iterator[slice]:
    """Slices of words in a row that have one label, other than `OUTSIDE`, and of which none but the first begins."""
    change = np.flatnonzero(np.diff(label, prepend=-1).astype(bool) | (begins & (label > 0)))
    for start, stop in zip(change, np.append(change[1:], len(label)), strict=True):
        if label[start] > 0:
            yield slice(int(start), int(stop))
