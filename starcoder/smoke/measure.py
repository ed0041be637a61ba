"""What the smoke run is judged by: loss on held-out files against n-gram baselines, and single-line infilling.

Shapes: N tokens of a text, B windows, T tokens of a window, V vocabulary.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from starcoder.corpus.document import Document
from starcoder.errors import UserError
from starcoder.generation import infill
from starcoder.model import StarCoder
from starcoder.tokenizer import Sentinel, Tokenizer

Ids = npt.NDArray[np.integer[Any]]
ANSWER_TOKENS = 32
"""Tokens that an infilled line may have."""
_FIM_SENTINELS = (Sentinel.FIM_PREFIX, Sentinel.FIM_SUFFIX, Sentinel.FIM_MIDDLE)
FILE_TOKENS = 2048
"""Tokens of one held-out file that count, so that long files do not outweigh the rest."""
DISCOUNT = 0.75
"""Share of a count that absolute discounting moves to the unigram distribution (Ney et al. 1994)."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out files as windows of a token stream.

    Args:
        windows: (B, T+1) token ids.
        languages: (B, T) index into `names` of the file that each target belongs to.
        names: languages of the files.
        n_files: number of files in the windows.
    """

    windows: Ids
    languages: Ids
    names: tuple[str, ...]
    n_files: int


def held_out(documents: Iterable[Document], tokenizer: Tokenizer, context_length: int, max_tokens: int) -> HeldOut:
    """Windows of about `max_tokens` tokens from the beginnings of a fair sample of `documents`.

    Raises:
        UserError: when the files do not fill one window.
    """
    ids: list[int] = []
    labels: list[int] = []
    names: dict[str, int] = {}
    n_files = 0
    for document in sorted(documents, key=lambda d: hashlib.sha256(d.name.encode()).digest()):
        piece = [*tokenizer.encode(document.content), Sentinel.EOD][:FILE_TOKENS]
        label = names.setdefault(document.language, len(names))
        ids += piece
        labels += [label] * len(piece)
        n_files += 1
        if len(ids) >= max_tokens:
            break
    n_windows = len(ids) // (context_length + 1)
    if n_windows == 0:
        raise UserError(f"the held-out files hold {len(ids)} tokens, less than one window of {context_length + 1}")
    windows = np.array(ids[: n_windows * (context_length + 1)]).reshape(n_windows, -1)  # (B, T+1)
    languages = np.array(labels[: windows.size]).reshape(windows.shape)[:, 1:]  # (B, T)
    return HeldOut(windows, languages, tuple(names), n_files)


@torch.inference_mode()
def model_nats(model: StarCoder, text: HeldOut, batch_size: int = 16) -> npt.NDArray[np.float32]:
    """Cross-entropy in nats of every target, (B, T)."""
    model.eval()
    windows = torch.from_numpy(text.windows)
    losses = [model.nats(batch[:, :-1], batch[:, 1:]) for batch in torch.split(windows, batch_size)]
    result: npt.NDArray[np.float32] = torch.cat(losses).numpy()
    return result


class NGrams:
    """Unigram and bigram models counted on training tokens.

    The unigram has one count added to every token. The bigram subtracts `DISCOUNT` from every count and gives what it
    gained to the unigram: p(b|a) = (max(c(ab) - δ, 0) + δ · distinct(a·) · p(b)) / c(a).

    Args:
        tokens: training token ids (N,).
        vocab_size: V.
    """

    def __init__(self, tokens: Ids, vocab_size: int) -> None:
        counts = np.bincount(tokens, minlength=vocab_size)
        self.unigram = (counts + 1) / (counts.sum() + vocab_size)
        pairs = tokens[:-1].astype(np.int64) * vocab_size + tokens[1:]
        self.pairs = np.bincount(pairs, minlength=vocab_size**2).reshape(vocab_size, vocab_size)
        self.context = self.pairs.sum(axis=1)
        self.distinct = (self.pairs > 0).sum(axis=1)

    def unigram_nats(self, text: HeldOut) -> npt.NDArray[np.float64]:
        """Cross-entropy in nats of every target, (B, T)."""
        result: npt.NDArray[np.float64] = -np.log(self.unigram[text.windows[:, 1:]])
        return result

    def bigram_nats(self, text: HeldOut) -> npt.NDArray[np.float64]:
        """Cross-entropy in nats of every target given the token before it, (B, T)."""
        before, target = text.windows[:, :-1], text.windows[:, 1:]
        seen = np.maximum(self.pairs[before, target] - DISCOUNT, 0)
        backoff = DISCOUNT * self.distinct[before] * self.unigram[target]
        context = self.context[before]
        known = (seen + backoff) / np.maximum(context, 1)
        result: npt.NDArray[np.float64] = -np.log(np.where(context > 0, known, self.unigram[target]))
        return result


@dataclass(frozen=True)
class Hole:
    """A line cut out of a file: the text before it, the line without its line break, the text after it."""

    prefix: str
    line: str
    suffix: str


def single_line_holes(
    documents: Iterable[Document], tokenizer: Tokenizer, count: int, context_length: int, reach: int = 240
) -> list[Hole]:
    """One masked line each from a fair sample of `documents`, chosen by a hash of the file's name.

    A line counts when it has at least three characters besides white space and is no comment; `reach` characters of
    text stay on either side, and prompt and answer must fit `context_length` tokens.
    """
    ordered = sorted(documents, key=lambda d: hashlib.sha256(d.name.encode()).digest())
    room = context_length - len(_FIM_SENTINELS) - ANSWER_TOKENS
    holes = (hole for document in ordered for hole in _hole(document, reach))
    fitting = (hole for hole in holes if len(tokenizer.encode(hole.prefix) + tokenizer.encode(hole.suffix)) <= room)
    return list(islice(fitting, count))


def _hole(document: Document, reach: int) -> Iterator[Hole]:
    lines = document.content.splitlines(keepends=True)
    eligible = [n for n, line in enumerate(lines) if len(line.strip()) >= 3 and not line.lstrip().startswith("#")]
    if eligible:
        chosen = eligible[int.from_bytes(hashlib.sha256(document.name.encode()).digest()[:8]) % len(eligible)]
        line = lines[chosen].rstrip("\r\n")
        before, after = "".join(lines[:chosen]), lines[chosen][len(line) :] + "".join(lines[chosen + 1 :])
        yield Hole(before[-reach:], line, after[:reach])


def exact_matches(model: StarCoder, tokenizer: Tokenizer, holes: list[Hole], batch_size: int = 32) -> list[bool]:
    """Whether greedy infilling gives each hole's line back, white space at both ends aside (paper §6.2.3's measure)."""
    model.eval()
    answers: list[str] = []
    for start in range(0, len(holes), batch_size):
        pairs = [(hole.prefix, hole.suffix) for hole in holes[start : start + batch_size]]
        answers += infill(model, tokenizer, pairs, max_new_tokens=ANSWER_TOKENS, stop=["\n"])
    return [answer.strip() == hole.line.strip() for answer, hole in zip(answers, holes, strict=True)]


def by_language(text: HeldOut, nats: npt.NDArray[Any]) -> dict[str, float]:
    """Mean of `nats` (B, T) over the targets of each language that has any."""
    targets = {name: text.languages == index for index, name in enumerate(text.names)}
    return {name: float(nats[mask].mean()) for name, mask in targets.items() if mask.any()}
