"""The tables of a report as text: our numbers beside the published ones."""

import math
from collections.abc import Sequence

from starcoder.evaluation.published import BASE, CUSHMAN, PROMPTED, SANTACODER, STARCODER, Published, published
from starcoder.evaluation.results import Estimate, Row, TaskResult
from starcoder.text import visible

RECALLED = "† recalled, not re-checked: no public page that could be read confirms this number"
INTERVAL = "95 % interval"
_NAMED = 6
"""Skipped rows that a title names; of more it tells the number."""
_FIRST = (STARCODER, BASE, PROMPTED, CUSHMAN, SANTACODER)
_NO_SHARES = ("perplexity", "bits", "nats")

Cells = list[list[str]]


def is_share(measure: str) -> bool:
    """Whether a measure is between 0 and 1, and printed in per cent."""
    return not measure.startswith(_NO_SHARES)


def number(value: float, measure: str) -> str:
    """A measure as the tables print it: per cent with one decimal, or three decimals; a dash for none."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f}" if is_share(measure) else f"{value:.3f}"


def interval(estimate: Estimate, measure: str) -> str:
    """The 95 % interval of an estimate."""
    return f"{number(estimate.low, measure)} to {number(estimate.high, measure)}"


def cited(found: Published | None, measure: str) -> str:
    """A published number with the decimals it has, and a dagger when it is recalled; empty for none."""
    if found is None:
        return ""
    shown = f"{100 * found.value:.2f}".removesuffix("0") if is_share(measure) else f"{found.value:g}"
    return shown + "†" * found.recalled


def heading(task: TaskResult) -> str:
    """The task's title; with skipped groups it says so."""
    if not task.skipped:
        return task.title
    names = list(task.skipped)
    told = ", ".join(names) if len(names) <= _NAMED else f"{len(names)}"
    return f"{task.title} (incomplete: {told} skipped, no total)"


def models(task: TaskResult, measure: str) -> list[str]:
    """The models with published numbers for a measure in any row of the task's table, the paper's own first."""
    found = dict.fromkeys(model for row in task.table for model in beside(task, row, measure))
    prompted = [PROMPTED] if task.settings.get("prompt") == "prompted" else []
    first = dict.fromkeys([*prompted, *_FIRST])
    return [model for model in first if model in found] + [model for model in found if model not in first]


def beside(task: TaskResult, row: Row, measure: str) -> dict[str, Published]:
    """The published numbers that a row of the task's table compares with; a row of all is not whole without some."""
    if task.skipped and not row.group:
        return {}
    return published(task.name, "" if row is task.total else row.group, measure)


def label(task: TaskResult, row: Row) -> str:
    """What the table calls a row; nothing when it is the only one."""
    if row is task.total:
        return "all"
    return row.group or "those judged" * bool(task.skipped)


def cells(task: TaskResult, most_models: int | None = None) -> Cells:
    """The table of a task, its header first: group, each measure beside the published numbers, problems, samples.

    Args:
        task: the results.
        most_models: how many published models each measure has at most; None for all.
    """
    columns = [(measure, models(task, measure)[:most_models]) for measure in task.measures]
    header = [""]
    for measure, names in columns:
        header += [f"{measure} %" if is_share(measure) else measure, INTERVAL, *names]
    return [[*header, "problems", "samples"], *(_line(task, row, columns) for row in task.table)]


def _line(task: TaskResult, row: Row, columns: Sequence[tuple[str, list[str]]]) -> list[str]:
    line = [label(task, row)]
    for measure, names in columns:
        estimate = row.measures.get(measure)
        line += [number(estimate.value, measure), interval(estimate, measure)] if estimate else ["–", ""]
        found = beside(task, row, measure)
        line += [cited(found.get(name), measure) for name in names]
    return [*line, f"{row.n_problems:,}", f"{row.n_samples:,}"]


def sources(task: TaskResult) -> list[str]:
    """Where the published numbers of a task's table come from: one line for each source, with its models."""
    found: dict[str, dict[str, None]] = {}
    for row in task.table:
        for measure in row.measures:
            for model, number in beside(task, row, measure).items():
                found.setdefault(number.source, {})[model] = None
    return [f"{', '.join(names)}: {source}" for source, names in found.items()]


def has_recalled(tables: Sequence[Cells]) -> bool:
    """Whether a dagger needs its explanation."""
    return any("†" in cell for table in tables for line in table for cell in line)


def aligned(table: Cells) -> str:
    """A table for the terminal: columns as wide as they must be, the first to the left, the others to the right."""
    table = [list(map(visible, line)) for line in table]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = (
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in table
    )
    return "\n".join(line.rstrip() for line in lines)


def markdown(table: Cells) -> str:
    """A table in Markdown."""
    header, *lines = ([escaped(cell) for cell in line] for line in table)
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def escaped(text: str) -> str:
    """Text of others in Markdown: on one line, and no markup."""
    return "".join(f"\\{c}" if c in "\\`*[]<>#|" else c for c in visible(text))
