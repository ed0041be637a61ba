"""Bits per byte: how many bits the model needs for a byte of held-out code, whatever its tokenizer.

A file's cross-entropy is summed over its tokens and divided by the bytes of its UTF-8 text, so that models with
different vocabularies compare, which they do not by nats per token. The paper has no such table.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from starcoder.evaluation.task import Likelihood, Problem
from starcoder.evaluation.tasks import held_out


class BitsPerByte(Likelihood):
    """Whole files, each a document of its own.

    Args:
        per_language: files of each language at most.
        characters: of a file, its beginning.
        seed: of the draw of the files.
    """

    name = "bits-per-byte"
    title = "Bits per byte of held-out code"
    section = ""
    data = held_out.FOLDER
    source = held_out.SOURCE

    def __init__(self, per_language: int = 100, characters: int = 16_384, seed: int = 0) -> None:
        self.per_language, self.characters, self.seed = per_language, characters, seed

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        documents = held_out.read_code(folder)
        chosen = held_out.choose(documents, self.per_language, self.seed, lambda d: d.language, lambda d: d.name)
        return [
            Problem(document.name, document.content[: self.characters], group=held_out.title(document.language))
            for document in chosen
        ]

    @override
    def requests(self, problem: Problem) -> list[tuple[str, str]]:
        return [("", problem.prompt)]

    @override
    def scores(self, problem: Problem, nats: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
        return {"bits_per_byte": (math.fsum(nats[0]) / math.log(2), len(problem.prompt.encode()))}
