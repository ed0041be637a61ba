"""What a corpus will be made of: its sources cut into tasks, its rules, and the work folder that a killed run leaves.

A plan is made before anything is read and is the same for the same options and input, on any machine. The work folder
belongs to one plan: a run with other options, other input or other code does not go on from it.
"""

import hashlib
import heapq
import json
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from starcoder.corpus.benchmarks import BenchmarkStrings
from starcoder.corpus.ingest import Ingest, Rules
from starcoder.corpus.redaction import Redactor
from starcoder.corpus.sampling import fair_share, fit
from starcoder.corpus.sources.base import Source, Unit
from starcoder.errors import UserError
from starcoder.storage import atomic_file

_ROOM = Path(__file__).parent
_LOGS = "logs"


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
        output: Folder of the corpus.
        sources: Where candidates come from.
        tasks: The pieces that each task reads.
        rules: What decides about a single candidate.
        similarity: Jaccard similarity that makes a near-duplicate.
        validation_share: Share of the bytes to hold out.
        seed: Seed of all random choices.
        benchmarks: What must not be in a training set.
        redactor: Replaces personal data.
        facts: What the corpus records about how it was made.
    """

    output: Path
    sources: tuple[Source, ...]
    tasks: tuple[tuple[Piece, ...], ...]
    rules: Rules
    similarity: float
    validation_share: float
    seed: int
    benchmarks: BenchmarkStrings
    facts: Mapping[str, Any]
    redactor: Redactor

    @property
    def work(self) -> Path:
        """Folder of what the stages pass on."""
        return self.output.with_name(f"{self.output.name}.work")

    @property
    def logs(self) -> Path:
        """Folder of the executor's logs and markers."""
        return self.work / _LOGS

    @property
    def result(self) -> Path:
        """Folder in which the corpus grows."""
        return self.work / "corpus"

    @property
    def marker(self) -> Path:
        """Tells whose the work folder is."""
        return self.work / "plan.json"

    @property
    def budget_file(self) -> Path:
        """What `share_out` decides."""
        return self.work / "budget.json"

    @property
    def digest(self) -> str:
        """Changes with whatever the corpus depends on: options, input, and the code of this room."""
        digest = hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode())
        for path in sorted(_ROOM.rglob("*.py")):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def open(self) -> bool:
        """Prepare the work folder; return whether it goes on from what a killed run of the same plan left there."""
        shared_out = self.facts["options"]["max_bytes"] is None or self.budget_file.is_file()
        if shared_out and self.marker.is_file() and self.marker.read_text() == self.digest:
            return True
        shutil.rmtree(self.work, ignore_errors=True)
        with atomic_file(self.marker) as partial:
            partial.write_text(self.digest)
        return False

    def clear(self) -> None:
        """Remove all but the logs from the work folder; first of all the marker, for no run can go on from a part."""
        self.marker.unlink(missing_ok=True)
        for path in self.work.iterdir():
            if path.is_dir() and path.name != _LOGS:
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()

    def chosen(self, piece: Piece) -> frozenset[str] | None:
        """The names of the documents of a piece that fit the byte budget; None when there is no budget."""
        return None if self._budget is None else frozenset(self._budget.get(piece.key, ()))

    @cached_property
    def _budget(self) -> dict[str, list[str]] | None:
        return json.loads(self.budget_file.read_text()) if self.budget_file.is_file() else None

    def verdicts(self, shard: int) -> dict[int, dict[str, Any]]:
        """What the comparison of clusters says about the documents of a shard, by row."""
        files = sorted((self.work / "verdicts").glob("*.parquet"))
        rows = [row for file in files for row in pq.read_table(file, filters=[("shard", "=", shard)]).to_pylist()]
        return {row["row"]: row for row in rows}


def share_out(plan: Plan, max_bytes: int) -> None:
    """Decide which files fit `max_bytes`, and write them into the work folder.

    Each repository and language has a fair share: a random sample of its files stays. Shares go to languages too, or
    else the rarer ones of a large repository would nearly vanish with its cap.
    """
    sizes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    listed: list[tuple[str, str]] = []
    ingest = Ingest(plan.rules)
    for piece in (piece for task in plan.tasks for piece in task):
        for candidate in plan.sources[piece.source].candidates(piece.unit):
            document = ingest.listed(candidate)
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
    with atomic_file(plan.budget_file) as partial:
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
