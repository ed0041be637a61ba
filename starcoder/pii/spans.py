"""From probabilities of tags to entities (paper §4.3).

    tokens          " | token | = | " | gh | p_ | x9 | 4Q | "
    labels of words O   O       O   O   KEY           …    O     the mean over a word's tokens; B- and I- together
    entity                              ╰─────────────╯          words of one label in a row, trimmed

A word beside one of an entity belongs to it too, where the model is not sure that it is outside: half a name is none.
What a sequence of tags must not be cannot come up: an I- without a B- before it begins an entity all the same, and a B-
within one ends it only behind white space. Up to four other characters between words of one label, none of them
blank, are taken for part of the entity.

Shapes: T tokens, W words, K tags, L labels.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from starcoder.errors import UserError
from starcoder.pii.bio import Tokens
from starcoder.pii.entity import LABELS, Entity
from starcoder.pii.examples import CATEGORIES

OUTSIDE = "O"
_BRIDGED = 4
_BESIDE = 0.25
"""Least probability of the label of a word that only its neighbour makes a part of an entity."""


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
        of_labels = np.add.reduceat(probabilities @ self._label, first) / (last - first + 1)[:, None]  # (W, L)
        label = _grown(of_labels.argmax(axis=1), of_labels)
        begins = (probabilities[first] @ self._begin)[np.arange(len(label)), label] > 0
        words = list(zip(tokens.starts[first].tolist(), tokens.ends[last].tolist(), strict=True))
        found = []
        for run in _runs(text, words, label.tolist(), begins.tolist()):
            number = int(label[run[0]])
            name, score = self.labels[number], float(of_labels[run, number].mean())
            if name in LABELS and (span := trim(text, words[run[0]][0], words[run[-1]][1], name)):
                found.append(Entity(*span, name, min(score, 1.0), "ner"))
        return found


def _grown(label: NDArray[np.intp], of_labels: NDArray[np.floating]) -> NDArray[np.intp]:
    """The labels of words (W,), with those words added that are beside one, and may be of its label (W, L)."""
    grown = label.copy()
    for word in np.flatnonzero(label):
        for step in (-1, 1):
            place = word + step
            while 0 <= place < len(grown) and not grown[place] and of_labels[place, label[word]] > _BESIDE:
                grown[place] = label[word]
                place += step
    return grown


def trim(text: str, start: int, end: int, label: str) -> tuple[int, int] | None:
    """The span without signs and blanks at its ends, those of a key's right end excepted; None if nothing is left."""
    value = text[start:end]
    left = len(value) - len(re.sub(r"^[\W_]+", "", value))
    right = len(value.rstrip() if label == "KEY" else re.sub(r"\W+$", "", value))
    return (start + left, start + right) if left < right else None


def _runs(
    text: str, words: Sequence[tuple[int, int]], labels: Sequence[int], begins: Sequence[bool]
) -> Iterator[list[int]]:
    """Numbers of the words of each entity."""
    run: list[int] = []
    for number, label in enumerate(labels):
        if label == 0:
            continue
        if run:
            last = run[-1]
            between = text[words[last][1] : words[number][0] + 1]
            if label != labels[last] or _ends(between, begins[number], number - last):
                yield run
                run = []
        run.append(number)
    if run:
        yield run


def _ends(between: str, begins: bool, distance: int) -> bool:
    """Whether an entity ends before a word of the same label, which begins with the last character of `between`."""
    blank = any(map(str.isspace, between))
    if distance == 1:
        return begins and blank
    return blank or len(between) > _BRIDGED + 1
