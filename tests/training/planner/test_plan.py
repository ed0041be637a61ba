"""The planner from recipe to table, picture and numbers; in two processes of its own, then in this one."""

import json
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
import yaml

from starcoder.errors import UserError
from starcoder.training.planner import layouts
from starcoder.training.planner.calibration import likely
from starcoder.training.planner.estimate import Cluster
from starcoder.training.planner.hardware import GPUS
from starcoder.training.planner.job import read_job
from starcoder.training.planner.layouts import compare
from starcoder.training.planner.plan import plan
from tests.conftest import ROOT

RECIPE: dict[str, Any] = {
    "model": {"preset": "smoke", "overrides": {"dropout": 0.1}},
    "data": {"context_length": 256, "batch_size": 1, "global_batch_size": 2},
    "trainer": {"max_steps": 100, "devices": 2, "strategy": {"init_args": {"param_dtype": "bfloat16"}}},
}


class Here(Executor):
    """Does in this process what two others would first have to import torch for."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(function(*args, **options))
        return future


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "ProcessPoolExecutor", Here)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def test_a_plan_is_a_table_a_recommendation_and_its_assumptions(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan(recipe, gpu="rtx4090", output=tmp_path / "plan")
    out = capsys.readouterr().out
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 120
    table = [line for line in out.splitlines() if line.count("|") == 3]
    assert sum(line.startswith("*") for line in table) == 1
    assert sum("r" in line[:2] for line in table) == 1
    assert "shard_size: " in out
    assert "315 W a GPU" in out
    assert "left out of the fit" in out

    numbers = json.loads((tmp_path / "plan" / "tiny" / "plan.json").read_text())
    rows = numbers["layouts"]
    assert len(rows) == len(table) - 2 == 7
    assert [row["recommended"] for row in rows].count(True) == 1
    best = next(row for row in rows if row["recommended"])
    assert best["fits"]
    assert best["step_seconds"]["total"] <= 1.01 * min(row["step_seconds"]["total"] for row in rows)
    assert (tmp_path / "plan" / "tiny" / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("in_process")
def test_what_does_not_fit_is_shown_and_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"model": {"preset": "starcoderbase-3b", "overrides": {"n_layer": 20}}}
    data = {"data": {"context_length": 256, "global_batch_size": 2}, "trainer": {"max_steps": 1}}
    Path("large.yaml").write_text(yaml.safe_dump(RECIPE | changes | data))
    with pytest.raises(
        UserError, match=r"large does not fit 1 x A10G: a GPU needs .* GiB at least and has 22.1; \d of them"
    ):
        plan(Path("large.yaml"), gpu="a10g")
    assert "NO" in capsys.readouterr().out
    assert Path("build/plan/large/plan.json").exists()


@pytest.mark.usefixtures("in_process")
def test_the_readme_tells_what_the_recipes_own_layout_gives() -> None:
    job = read_job(Path("starcoderbase"))
    assert job.layout is not None
    cluster = Cluster(GPUS["a100-80gb"], job.ranks, job.per_node, GPUS["a100-80gb"].node_network)
    found = compare(job, cluster, [job.layout])[0]
    low, high = likely(found.days)
    row = (
        f"| planned: shard size {job.layout.shard_size}, {job.layout.checkpointing}, compiled "
        f"| {found.needed / 2**30:.0f} GiB | {found.tokens_per_second:,.0f} | {100 * found.mfu:.0f} % "
        f"| {found.days:.1f} ({low:.1f}-{high:.1f}) | {found.gpu_hours:,.0f} | {found.kwh:,.0f} kWh "
        f"| {found.kg / 1000:.1f} t |"
    )
    assert row in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpu": "a100"}, "no GPU 'a100'; there are a100-40gb, a100-80gb"),
        ({"network_gbit": 0}, "--network_gbit is 0: give a number above 0"),
        ({"network_gbit": float("nan")}, "--network_gbit is nan: give a number above 0"),
        ({"recipe": Path("/etc")}, "no recipe /etc; "),
        ({"nodes": 0}, "--nodes is 0: give a number of 1 or more"),
        ({"nodes": 3}, "a global batch of 2 sequences cannot be split over 6 GPUs"),
    ],
)
def test_a_mistake_is_told_before_anything_is_traced(recipe: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(**{"recipe": recipe} | options)
