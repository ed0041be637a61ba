"""The plan as a picture: memory and step time of every layout, as stacked bars."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from starcoder.training.planner.layouts import Plan
from starcoder.training.planner.ledger import KINDS


def draw(plans: Sequence[Plan], chosen: Plan | None, path: Path) -> None:
    """Write the picture to `path` as PNG; the recommended layout's name is bold."""
    figure = Figure(figsize=(13, 2 + 0.32 * len(plans)), layout="constrained")
    memory, time = figure.subplots(1, 2, sharey=True)
    reserve = [plan.needed - plan.peak.total() for plan in plans]
    parts = {kind: [plan.peak[kind] / 2**30 for plan in plans] for kind in KINDS}
    _bars(memory, parts | {"reserve": [nbytes / 2**30 for nbytes in reserve]}, "memory of a GPU at the peak [GiB]")
    capacity = plans[0].cluster.gpu.memory / 2**30
    memory.axvline(capacity, color="black", linestyle="--", label=f"{plans[0].cluster.gpu.name}: {capacity:.1f} GiB")
    names = list(vars(plans[0].time))
    _bars(time, {name: [getattr(plan.time, name) for plan in plans] for name in names}, "time of a step [s]")
    memory.set_yticks(range(len(plans)), [_label(plan) for plan in plans])
    memory.invert_yaxis()
    for plan, label in zip(plans, memory.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if plan is chosen else "normal")
    for axes in (memory, time):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=4, fontsize="small", frameon=False)
    job, cluster = plans[0].job, plans[0].cluster
    figure.suptitle(f"{job.name} on {job.nodes} x {job.per_node} {cluster.gpu.name}")
    figure.savefig(path, format="png", dpi=120)


def _bars(axes: Axes, parts: dict[str, list[float]], title: str) -> None:
    left = [0.0] * len(next(iter(parts.values())))
    for name, widths in parts.items():
        axes.barh(range(len(widths)), widths, left=left, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_xlabel(title)


def _label(plan: Plan) -> str:
    layout = plan.layout
    own = " (recipe)" if layout == plan.job.layout else ""
    return f"shard {layout.shard_size}, {layout.checkpointing}, {layout.micro_batch} x {layout.accumulation}{own}"
