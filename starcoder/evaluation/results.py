"""What an evaluation found, as the report shows it and `report.json` keeps it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from starcoder.errors import UserError, one_line

SCHEMA = 1
"""Version of `report.json`; a change that a reader would notice counts it up."""

PARTIAL = "no result of the whole benchmark"
"""What a task's notes say when only some of its problems were posed."""


class Estimate(NamedTuple):
    """A measure with its 95 % interval (a tuple, because torchmetrics copies what `compute` returns field by field).

    Args:
        value: the measure; NaN when nothing was measured.
        low: lower end of the interval.
        high: upper end.
        n: problems that it is taken over.
    """

    value: float
    low: float
    high: float
    n: int = 0


@dataclass(frozen=True)
class Row:
    """One row of a task's table.

    Args:
        group: such as a language or a library; empty when the task has one row.
        measures: estimates by name, such as `pass@1`; shares are between 0 and 1.
        n_problems: problems of the row.
        n_samples: judged samples of the row, those with a sandbox error left out.
    """

    group: str
    measures: dict[str, Estimate]
    n_problems: int
    n_samples: int


@dataclass(frozen=True)
class TaskResult:
    """One benchmark.

    Args:
        name: the task's key.
        title: its name in tables.
        section: the paper's section.
        settings: temperature, top-p, samples, stop strings, prompt style, data, whatever decides its numbers.
        rows: one for each group that was judged.
        total: all groups together; None when there is one row.
        verdicts: how many samples came to each verdict (a `Status`, or "right" and "wrong").
        skipped: groups that could not be judged, each with the reason.
        notes: what a reader must know, such as that only the first 20 problems were posed.
    """

    name: str
    title: str
    section: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    total: Row | None = None
    verdicts: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> tuple[Row, ...]:
        """The rows, and the total unless groups are missing from it."""
        return self.rows if self.total is None or self.skipped else (*self.rows, self.total)

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of the measures, in the order of the rows."""
        return tuple(dict.fromkeys(name for row in self.table for name in row.measures))


@dataclass(frozen=True)
class Results:
    """A whole run.

    Args:
        model: what was evaluated.
        engine: the engine's settings: versions, device, precision, the weights' digest.
        settings: the command's settings, the preset's name among them.
        versions: of Python and the libraries that matter.
        isolation: the level that held in the sandbox; empty when no program was run.
        strict: whether tests ran outside the candidate's process.
        seed: of the samples.
        date: when it ended, ISO 8601.
        hardware: processor, accelerator, memory, in words.
        tasks: the benchmarks.
    """

    model: str
    engine: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str]
    isolation: str
    strict: bool
    seed: int
    date: str
    hardware: dict[str, str]
    tasks: tuple[TaskResult, ...]


@dataclass(frozen=True)
class Sample:
    """One completion to look at; the model and the program wrote most of it, so it is hostile.

    Args:
        task: key of its task.
        problem: the problem's id.
        sample: its number.
        verdict: what it came to; `right` says whether that is good.
        right: whether the completion is right.
        prompt: what the model read; for infilling, the text before the gap.
        completion: what it wrote.
        suffix: the text after the gap.
        expected: the reference, where the benchmark has one.
        detail: one line that explains the verdict.
        stdout: what the program printed.
        stderr: what it complained of.
        group: the row of the table that it counts for.
    """

    task: str
    problem: str
    sample: int
    verdict: str
    right: bool
    prompt: str
    completion: str
    suffix: str = ""
    expected: str = ""
    detail: str = ""
    stdout: str = ""
    stderr: str = ""
    group: str = ""


def to_json(results: Results) -> str:
    """The text of `report.json`: the fields of `Results` under their names; an estimate's ends are null for NaN."""
    data = {"schema": SCHEMA, **asdict(results)}
    for task in data["tasks"]:
        for row in (*task["rows"], *filter(None, [task["total"]])):
            row["measures"] = {name: _plain(Estimate(*numbers)) for name, numbers in row["measures"].items()}
    return json.dumps(data, indent=2, allow_nan=False, default=str) + "\n"


def read_report(path: Path) -> Results:
    """Read a `report.json`.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        UserError: when it is not there, is no report, or one of another version.
    """
    path = path / "report.json" if path.is_dir() else path
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA:
            raise UserError(f"{path} is a report of another version: evaluate again")
        return Results(**{**data, "tasks": tuple(map(_task, data["tasks"]))})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as an evaluation's report.json ({one_line(error)})") from error


def _plain(estimate: Estimate) -> dict[str, float | int | None]:
    return {name: None if math.isnan(number) else number for name, number in estimate._asdict().items()}


def _task(data: Mapping[str, Any]) -> TaskResult:
    total = data["total"] and _row(data["total"])
    rows = tuple(map(_row, data["rows"]))
    return TaskResult(**{**data, "rows": rows, "total": total, "notes": tuple(data["notes"])})


def _row(data: Mapping[str, Any]) -> Row:
    return Row(**{**data, "measures": {name: _estimate(numbers) for name, numbers in data["measures"].items()}})


def _estimate(data: Mapping[str, Any]) -> Estimate:
    numbers: dict[str, Any] = {name: math.nan if number is None else number for name, number in data.items()}
    return Estimate(**numbers)
