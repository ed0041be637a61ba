"""The report of an evaluation: `report.json`, `report.md`, `report.png` and `index.html` in one folder."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starcoder.evaluation.program import Status
from starcoder.evaluation.results import Results, Sample, TaskResult, to_json
from starcoder.evaluation.tables import (
    RECALLED,
    aligned,
    cells,
    escaped,
    has_recalled,
    heading,
    markdown,
    sources,
)
from starcoder.storage import atomic_folder
from starcoder.text import visible

RIGHT = (Status.PASSED, "right")
"""Verdicts that are good."""
INTERVALS = (
    "Intervals hold 95 % of the resamples of a bootstrap over problems; they have no width where all problems score "
    "the same, however few they are."
)


def write_report(folder: Path, results: Results, samples: Iterable[Sample] = ()) -> None:
    """Write the report of a run.

    Args:
        folder: where to; a report that is there is replaced, all of it at once.
        results: what was measured.
        samples: completions to look at; they may be millions, of which the page keeps some of each verdict.

    Raises:
        UserError: when the folder holds something else.
    """
    from starcoder.evaluation.page import render
    from starcoder.evaluation.picture import draw

    with atomic_folder(folder, marker="report.json") as unfinished:
        (unfinished / "report.json").write_text(to_json(results), encoding="utf-8")
        (unfinished / "report.md").write_text(to_markdown(results), encoding="utf-8")
        (unfinished / "report.png").write_bytes(draw(results))
        (unfinished / "index.html").write_text(render(results, samples), encoding="utf-8")


def console(results: Results) -> str:
    """The tables for the terminal, each beside the two published models that matter most."""
    tables = [cells(task, most_models=2) for task in results.tasks]
    parts = [visible(f"{results.model}, {conditions(results)}")]
    for task, table in zip(results.tasks, tables, strict=True):
        parts.append(
            "\n".join([visible(heading(task)), aligned(table), *map(visible, [*remarks(task), *counted(task)])])
        )
    if has_recalled(tables):
        parts.append(RECALLED)
    return "\n\n".join(parts)


def to_markdown(results: Results) -> str:
    """The report in Markdown."""
    tables = [cells(task) for task in results.tasks]
    parts = [f"# Evaluation of {escaped(results.model)}", f"{escaped(conditions(results))}. {INTERVALS}"]
    for task, table in zip(results.tasks, tables, strict=True):
        parts += [f"## {escaped(heading(task))}", markdown(table)]
        parts += [_bullets([*remarks(task), *counted(task), *described(task.settings), *sources(task)])]
    if has_recalled(tables):
        parts.append(RECALLED)
    for title, facts in facts_of(results).items():
        parts += [f"## {title}", _bullets(described(facts))]
    return "\n\n".join(part for part in parts if part) + "\n"


def conditions(results: Results) -> str:
    """Under which conditions programs ran, and when."""
    if not results.isolation:
        return f"{results.date}, no program was run"
    tests = "tests outside the candidate's process" if results.strict else "tests in the candidate's process"
    return f"{results.date}, sandbox: {results.isolation}, {tests}"


def remarks(task: TaskResult) -> list[str]:
    """What a reader of a task's table must know: its section, notes, what was skipped and why, sandbox errors."""
    lines = [f"paper §{task.section.removeprefix('§')}"] if task.section else []
    lines += [*task.notes, *(f"skipped {group}: {reason}" for group, reason in task.skipped.items())]
    if errors := task.verdicts.get(Status.SANDBOX_ERROR, 0):
        lines.append(f"{errors:,} samples could not be judged (sandbox errors): no measure counts them")
    return lines


def counted(task: TaskResult) -> list[str]:
    """How many samples came to each verdict, on one line; none when there was nothing to judge."""
    counts = ", ".join(f"{name} {count:,}" for name, count in task.verdicts.items())
    return [f"verdicts: {counts}"] if counts else []


def facts_of(results: Results) -> dict[str, Mapping[str, Any]]:
    """What reproduces the numbers, by heading."""
    return {
        "Settings": {"seed": results.seed, **results.settings},
        "Model": {"model": results.model, **results.engine},
        "Versions": results.versions,
        "Hardware": results.hardware,
    }


def described(facts: Mapping[str, Any]) -> list[str]:
    """One line for each fact."""
    return [f"{name}: {plain(value)}" for name, value in facts.items()]


def plain(value: Any) -> str:
    """A setting's value as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)
