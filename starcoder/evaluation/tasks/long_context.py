"""What a long window is worth (paper §6.4): perplexity of code, by how much of its repository is before it.

The files of a held-out repository are put one after another, and two things are measured:

- perplexity by position: one window over the beginning of this text; tokens at position 4,096 have seen 4,096 others.
- the paper's measure: perplexity of the same region of about 1K tokens, once in a window of 2K and once of 8K:

      text    ········································[== region ==]
      @2K                                [-- before --][== region ==]
      @8K     [---------------- before --------------][== region ==]

Windows are counted in characters, three to a token (StarCoder's tokenizer has about as many on code), because only the
engine knows tokens: so every model reads the same text. Positions and windows beyond a model's own are left out; in one
of 8K, text of more than 8K tokens loses its beginning.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.task import Likelihood, Problem
from starcoder.evaluation.tasks import held_out

if TYPE_CHECKING:
    from starcoder.corpus.document import Document

POSITIONS = (0, 256, 512, 1024, 2048, 4096, 8192)
"""Bounds, in tokens, between which nats are averaged."""
TOKEN = 3
"""Characters that stand for a token where only characters can be counted."""
WINDOWS = (2048, 8192)
"""Tokens of the windows that end with the region."""
REGION, SHORT, LONG = (1024 * TOKEN, WINDOWS[0] * TOKEN, WINDOWS[1] * TOKEN)
"""Characters of the region and of those windows."""
CURVE = 8192 * 5
"""Characters of the text for perplexity by position: enough for 8,192 tokens of the densest code."""


class LongContext(Likelihood):
    """Repositories of at least a long window, each language of a repository by itself.

    Args:
        per_language: repositories of each language at most.
        seed: of the draw of the repositories.
    """

    name = "long-context"
    title = "Perplexity by position in the window"
    section = "§6.4"
    data = held_out.FOLDER
    source = held_out.SOURCE

    def __init__(self, per_language: int = 20, seed: int = 0) -> None:
        self.per_language, self.seed = per_language, seed

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        found = [problem for problem in _repositories(held_out.read_code(folder)) if len(problem.prompt) >= LONG]
        if not found:
            raise UserError(f"no held-out repository has {LONG} characters of one language: build a larger corpus")
        return held_out.choose(found, self.per_language, self.seed, lambda p: p.group, lambda p: p.id)

    @override
    def requests(self, problem: Problem) -> list[tuple[str, str]]:
        text = problem.prompt
        region = text[LONG - REGION : LONG]
        before = [text[LONG - tokens * TOKEN : LONG - REGION] for tokens in WINDOWS if self._holds(tokens)]
        return [("", text), *((context, region) for context in before)]

    @override
    def scores(self, problem: Problem, nats: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
        curve, *regions = nats
        bounds = [(low, high) for low, high in pairwise(POSITIONS) if self._holds(high)]
        parts = {_between(low, high): curve[low:high] for low, high in bounds}
        parts |= dict(zip((_within(tokens) for tokens in WINDOWS if self._holds(tokens)), regions, strict=True))
        return {name: (math.fsum(part), len(part)) for name, part in parts.items() if part}

    @override
    def missing(self) -> dict[str, str]:
        measures = {_between(low, high): high for low, high in pairwise(POSITIONS)}
        measures |= {_within(tokens): tokens for tokens in WINDOWS}
        reason = f"the model's window holds {self.window} tokens"
        return {name: reason for name, tokens in measures.items() if not self._holds(tokens)}

    def _holds(self, tokens: int) -> bool:
        """Whether the model's window has that many tokens, which goes for one that is not known."""
        return self.window is None or tokens <= self.window

    @override
    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        return {name: math.exp(mean) for name, mean in means.items()}


def _between(low: int, high: int) -> str:
    return f"perplexity {low}-{high}"


def _within(tokens: int) -> str:
    return f"perplexity@{tokens // 1024}K"


def _repositories(documents: "Sequence[Document]") -> Iterator[Problem]:
    """The beginning of each language's files of each repository, one file after another in the order of their paths."""

    def place(document: "Document") -> tuple[str, str]:
        return document.repository, document.language

    for (repository, language), files in groupby(sorted(documents, key=place), key=place):
        text = "\n".join(document.content for document in files)
        yield Problem(f"{repository} {language}", text[:CURVE], group=held_out.title(language))
