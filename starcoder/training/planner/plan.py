"""`starcoder plan`: does the job fit, how long does it take, what does it cost (paper §5.7), before GPUs are rented."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starcoder.errors import UserError
from starcoder.storage import atomic_file
from starcoder.training.planner import calibration
from starcoder.training.planner.calibration import EFFICIENCIES, likely
from starcoder.training.planner.estimate import Cluster
from starcoder.training.planner.hardware import GPUS
from starcoder.training.planner.job import read_job
from starcoder.training.planner.layouts import Plan, best, candidates, compare, fallback, shortage
from starcoder.training.planner.ledger import KINDS
from starcoder.training.planner.picture import draw
from starcoder.training.planner.text import assumptions, describe, recommendation, table


def plan(
    recipe: Path,
    nodes: int | None = None,
    gpus: int | None = None,
    gpu: str = "a100-80gb",
    network_gbit: float | None = None,
    preset: str | None = None,
    context_length: int | None = None,
    output: Path = Path("build/plan"),
) -> None:
    """Say which layout of a training job fits its GPUs and is fastest, and what the run costs; no GPU is needed.

    One step of the real model under the real strategy is run on fake tensors for each of a dozen layouts or more, then
    timed by a roofline whose efficiencies come from published runs. Prints a table, and writes `plan.png` and
    `plan.json`.

    Args:
        recipe: file, or name of one in `recipes/`.
        nodes: machines; the recipe's `trainer.num_nodes` when not given.
        gpus: GPUs of a machine; the recipe's `trainer.devices` when not given.
        gpu: kind of GPU, such as a100-80gb or h100-80gb.
        network_gbit: Gbit/s of a machine's network in each direction; what is usual with that GPU when not given.
        preset: shape of another model than the recipe's, such as starcoderbase-3b.
        context_length: tokens of a sequence, if not the recipe's.
        output: folder in which a folder of the recipe's name is written.

    Raises:
        UserError: when the recipe or the GPU is not known, the numbers do not go together, or no layout fits.
    """
    if gpu not in GPUS:
        raise UserError(f"no GPU {gpu!r}; there are {', '.join(GPUS)}")
    if network_gbit is not None and not 0 < network_gbit < math.inf:
        raise UserError(f"--network_gbit is {network_gbit}: give a number above 0")
    job = read_job(recipe, nodes, gpus, preset, context_length)
    network = network_gbit * 1e9 / 8 if network_gbit else GPUS[gpu].node_network
    cluster = Cluster(GPUS[gpu], job.ranks, job.per_node, network)
    layouts, folder = candidates(job), output / job.name
    folder.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before the work
    print(f"{describe(job, cluster)}\n\ntrying {len(layouts)} layouts ...", flush=True)
    plans = compare(job, cluster, layouts)
    chosen = best(plans)
    _write(folder, plans, chosen)
    if chosen is None:
        print(table(plans, chosen))
        raise UserError(shortage(plans))
    print(f"{recommendation(chosen, fallback(plans, chosen))}\n\n{table(plans, chosen)}\n\n{assumptions(chosen)}")
    print(f"\n{calibration.summary()}\nwritten: {folder}/plan.png, plan.json")


def _write(folder: Path, plans: Sequence[Plan], chosen: Plan | None) -> None:
    rows = [_row(plan) | {"recommended": plan is chosen} for plan in plans]
    with atomic_file(folder / "plan.png") as path:
        draw(plans, chosen, path)
    with atomic_file(folder / "plan.json") as path:
        path.write_text(json.dumps(_job(plans[0]) | {"layouts": rows}, indent=2) + "\n")


def _job(plan: Plan) -> dict[str, Any]:
    job, cluster = plan.job, plan.cluster
    return {
        "recipe": job.name,
        "model": asdict(job.config),
        "tokens": job.tokens,
        "nodes": job.nodes,
        "gpus_per_node": job.per_node,
        "gpu": asdict(cluster.gpu),
        "network_bytes_per_second": cluster.network,
        "efficiencies": asdict(EFFICIENCIES),
    }


def _row(plan: Plan) -> dict[str, Any]:
    """Everything that the table shows and more, with units in the names."""
    inside, between = plan.sent
    return {
        **asdict(plan.layout),
        "recipe": plan.layout == plan.job.layout,
        "peak_bytes": {kind: plan.peak[kind] for kind in KINDS},
        "needed_bytes": round(plan.needed),
        "available_bytes": round(plan.cluster.gpu.memory),
        "fits": plan.fits,
        "sent_inside_nodes_bytes": round(inside),
        "sent_between_nodes_bytes": round(between),
        "flops_per_token": plan.flops_per_token,
        "step_seconds": asdict(plan.time) | {"total": plan.time.total},
        "tokens_per_second_per_gpu": plan.tokens_per_second,
        "mfu": plan.mfu,
        "days": plan.days,
        "likely_days": likely(plan.days),
        "gpu_hours": plan.gpu_hours,
        "kwh": plan.kwh,
        "kg_co2e": plan.kg,
    }
