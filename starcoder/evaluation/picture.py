"""The picture of a report: our numbers with their intervals beside published ones."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from starcoder.evaluation.results import Results, Row, TaskResult
from starcoder.evaluation.tables import beside, heading, is_share, label, models
from starcoder.text import visible

PANELS = 24
"""Measures that are drawn at most; the tables have them all."""
_BESIDE, _LABEL = 3, 80
_WIDTH, _BAR, _MARGIN = 9.0, 0.24, 1.1
_OURS, _THEIRS = "#3b76c4", ("#d99a1c", "#8a8f98", "#5fa777")


def draw(results: Results) -> bytes:
    """A PNG with a panel for each measure of each task: a bar for each row, with those of up to three models."""
    panels = [(task, measure) for task in results.tasks for measure in task.measures][:PANELS]
    heights = [_MARGIN + _BAR * _bars(task, measure) for task, measure in panels]
    figure = Figure(figsize=(_WIDTH, max(1.5, sum(heights))), layout="constrained")
    grid = figure.add_gridspec(max(1, len(panels)), 1, height_ratios=heights or None)
    for index, (task, measure) in enumerate(panels):
        _panel(figure.add_subplot(grid[index, 0]), task, measure, results.model)
    if any(patch.get_hatch() for axes in figure.axes for patch in axes.patches):
        figure.supxlabel("hatched: recalled, not re-checked", fontsize=8, x=0.99, ha="right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _rows(task: TaskResult, measure: str) -> list[Row]:
    return [row for row in task.table if measure in row.measures]


def _bars(task: TaskResult, measure: str) -> int:
    return len(_rows(task, measure)) * (1 + len(models(task, measure)[:_BESIDE]))


def _panel(axes: Axes, task: TaskResult, measure: str, model: str) -> None:
    """Horizontal bars, the first row on top; a hatched bar is a recalled number."""
    rows, names, scale = _rows(task, measure), models(task, measure)[:_BESIDE], 100 if is_share(measure) else 1
    step = len(names) + 1.6
    places = [index * step for index in range(len(rows))]
    estimates = [row.measures[measure] for row in rows]
    values = [scale * estimate.value for estimate in estimates]
    # The estimate of few problems may lie outside its own interval by a rounding error.
    errors = [
        [scale * max(0.0, estimate.value - estimate.low) for estimate in estimates],
        [scale * max(0.0, estimate.high - estimate.value) for estimate in estimates],
    ]
    axes.barh(places, values, xerr=errors, color=_OURS, label=_literal(model), capsize=2, height=0.9)
    for index, name in enumerate(names, start=1):
        _theirs(axes, task, rows, measure, name, [place + index for place in places], _THEIRS[index - 1])
    axes.set_yticks(
        [place + len(names) / 2 for place in places], [_literal(label(task, row) or task.title) for row in rows]
    )
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_title(f"{_literal(heading(task))}: {measure}{' (%)' if scale == 100 else ''}", fontsize=10, loc="left")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _theirs(
    axes: Axes, task: TaskResult, rows: Sequence[Row], measure: str, model: str, places: Sequence[float], color: str
) -> None:
    """The bars of one published model, where it has numbers."""
    scale = 100 if is_share(measure) else 1
    found = [beside(task, row, measure).get(model) for row in rows]
    bars = [(place, number) for place, number in zip(places, found, strict=True) if number]
    drawn = axes.barh([p for p, _ in bars], [scale * n.value for _, n in bars], color=color, label=model, height=0.9)
    for bar, (_, number) in zip(drawn, bars, strict=True):
        if number.recalled:
            bar.set(hatch="///", edgecolor="white")


def _literal(text: str) -> str:
    """Text of others: short, and no formula to matplotlib."""
    text = visible(text).replace("$", r"\$")
    return text if len(text) <= _LABEL else text[: _LABEL - 1] + "…"
