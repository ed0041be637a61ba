"""What a corpus will be made of: its sources cut into tasks, its rules, and a budget shared out before reading.

A plan is made before anything is read and is the same for the same options and input, on any machine.
"""

import heapq
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from starcoder.corpus.ingest import Ingest, Rules
from starcoder.corpus.redaction import Redactor
from starcoder.corpus.sampling import fair_share, fit
from starcoder.corpus.sources.base import Source, Unit
from starcoder.errors import UserError
from starcoder.storage import atomic_file

_BUDGET = "budget.json"


@dataclass(frozen=True, slots=True)
class Piece:
    """A unit of the `source`-th source."""

    source: int
    unit: Unit

    @property
    def key(self) -> str:
        """Unique in a plan."""
        return f"{self.source}/{self.unit.name}"


@dataclass(frozen=True)
class Plan:
    """All that the stages need to know; picklable.

    Attributes:
        work: Folder of what the stages pass on.
        output: Folder of the corpus.
        sources: Where candidates come from.
        tasks: The pieces that each task reads.
        rules: What decides about a single candidate.
        similarity: Jaccard similarity that makes a near-duplicate.
        validation_share: Share of the bytes to hold out.
        seed: Seed of all random choices.
        redactor: Replaces personal data.
        facts: What the corpus records about how it was made.
    """

    work: Path
    output: Path
    sources: tuple[Source, ...]
    tasks: tuple[tuple[Piece, ...], ...]
    rules: Rules
    similarity: float
    validation_share: float
    seed: int
    redactor: Redactor
    facts: Mapping[str, Any]

    @property
    def result(self) -> Path:
        """Folder in which the corpus grows."""
        return self.work / "corpus"

    @cached_property
    def ingest(self) -> Ingest:
        """The rules, with what they need built once in a process."""
        return Ingest(self.rules)

    def chosen(self, piece: Piece) -> frozenset[str] | None:
        """The names of the documents of a piece that fit the byte budget; None when there is no budget."""
        return None if self._budget is None else frozenset(self._budget.get(piece.key, ()))

    @cached_property
    def _budget(self) -> dict[str, list[str]] | None:
        path = self.work / _BUDGET
        return json.loads(path.read_text()) if path.is_file() else None


def share_out(plan: Plan, max_bytes: int) -> None:
    """Decide which files fit `max_bytes`, and write them into the work folder.

    Each repository and language has a fair share: a random sample of its files stays. Shares go to languages too, or
    else the rarer ones of a large repository would nearly vanish with its cap.
    """
    sizes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    listed: list[tuple[str, str]] = []
    for piece in (piece for task in plan.tasks for piece in task):
        for candidate in plan.sources[piece.source].candidates(piece.unit):
            document = plan.ingest.listed(candidate)
            if not document.rejection:
                # Versions of a package, or sources that overlap, have files of one name: they stay together.
                sizes[document.repository, document.language][document.name] += document.size
                listed.append((piece.key, document.name))
    cap = fair_share((sum(files.values()) for files in sizes.values()), max_bytes)
    chosen = {name for files in sizes.values() for name in fit(files, cap, plan.seed)}
    budget: dict[str, list[str]] = {}
    for key, name in listed:
        if name in chosen:
            budget.setdefault(key, []).append(name)
    with atomic_file(plan.work / _BUDGET) as partial:
        partial.write_text(json.dumps(budget))


def cut_into_tasks(
    sources: Sequence[Source], task_bytes: int, max_bytes: int | None = None
) -> tuple[tuple[Piece, ...], ...]:
    """Share the units of all sources out to tasks: large ones first, each to the emptiest task.

    Args:
        sources: What there is to read.
        task_bytes: About how many bytes a task reads.
        max_bytes: Most bytes that all tasks read together.

    Raises:
        UserError: There is nothing to read.
    """
    pieces = [Piece(number, unit) for number, source in enumerate(sources) for unit in source.units()]
    if not pieces:
        raise UserError("the sources have nothing to read")
    size = min(sum(piece.unit.size for piece in pieces), max_bytes or sys.maxsize)
    count = max(1, min(len(pieces), round(size / task_bytes)))
    tasks: list[list[Piece]] = [[] for _ in range(count)]
    filled = [(0, number) for number in range(count)]
    for piece in sorted(pieces, key=lambda piece: (-piece.unit.size, piece.source, piece.unit.name)):
        size, number = heapq.heappop(filled)
        tasks[number].append(piece)
        heapq.heappush(filled, (size + piece.unit.size, number))
    return tuple(tuple(sorted(task, key=lambda piece: (piece.source, piece.unit.name))) for task in tasks)
