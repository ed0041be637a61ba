"""The same numbers on every layout, without a GPU: gloo ranks on this machine.

Processes start slowly, so that all runs of one number of ranks share a launch: see the fixtures.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Tiny
from tests.training.layouts import Steps, run_job, run_jobs

STEPS, STOP = 20, 7
TOLERANCE = 1e-6
LAYOUTS: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "accumulation": {"batch_size": 2},
        "full": {"strategy": {"checkpointing": "full"}},
        "selective": {"strategy": {"checkpointing": "selective"}},
    },
    2: {
        "fsdp": {},
        "fsdp, accumulation, full": {"batch_size": 1, "strategy": {"checkpointing": "full"}},
        "fsdp, accumulation of whole gradients": {"batch_size": 2, "strategy": {"reduce_every_batch": False}},
        "replicas": {"strategy": {"shard_size": 1, "reshard_after_forward": False}},
    },
    4: {
        "fsdp": {},
        "hsdp": {"strategy": {"shard_size": 2}},
        "hsdp, accumulation, selective": {"batch_size": 1, "strategy": {"shard_size": 2, "checkpointing": "selective"}},
    },
}
DROPOUT = {"dropout": 0.1, "batch_size": 1, "strategy": {"checkpointing": "selective"}}


def with_stop(folder: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """An undisturbed run, one that stops, and the one that goes on from there."""
    first, second = {"folder": str(folder / "a")} | changes, {"folder": str(folder / "b")} | changes
    return {
        "undisturbed": first | {"steps": STEPS},
        "before": second | {"steps": STOP},
        "after": second | {"steps": STEPS, "resume": True},
    }


def layouts(folder: Path, ranks: int) -> dict[str, dict[str, Any]]:
    return {name: {"steps": STEPS, "folder": str(folder / name)} | changes for name, changes in LAYOUTS[ranks].items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layouts")
    for name in ("1", "2", "4"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def one(tiny: Tiny, folder: Path) -> dict[str, Steps]:
    """Runs of one process, which shards nothing; the last leaves a checkpoint for two ranks."""
    stop = {"stopped": {"steps": STOP, "folder": str(folder / "from-1")}}
    plain = {"plain": {"steps": STEPS, "folder": str(folder / "1" / "plain")}}
    jobs = plain | layouts(folder / "1", 1) | stop
    return {name: run_job(job, tiny.tokenizer.parent, 1) for name, job in jobs.items()}


@pytest.fixture(scope="module")
def two(tiny: Tiny, folder: Path, one: dict[str, Steps]) -> dict[str, Steps]:
    """Runs of two ranks; one goes on from the checkpoint of one process, one leaves a checkpoint for four ranks."""
    jobs = layouts(folder / "2", 2) | with_stop(folder / "2", **DROPOUT)
    jobs["resumed"] = {"steps": STEPS, "folder": str(folder / "from-1"), "resume": True, "batch_size": 1}
    jobs["stopped"] = {"steps": STOP, "folder": str(folder / "from-2")}
    return run_jobs(jobs, tiny.tokenizer.parent, 2, folder / "2")


@pytest.fixture(scope="module")
def four(tiny: Tiny, folder: Path, two: dict[str, Steps]) -> dict[str, Steps]:
    """Runs of four ranks; one goes on from the checkpoint of two ranks, one leaves a checkpoint for one process."""
    hsdp = {"strategy": {"shard_size": 2}, "batch_size": 1}
    jobs = layouts(folder / "4", 4) | with_stop(folder / "4", **DROPOUT | hsdp)
    jobs["resumed"] = {"steps": STEPS, "folder": str(folder / "from-2"), "resume": True} | hsdp
    jobs["stopped"] = {"steps": STOP, "folder": str(folder / "from-4")}
    return run_jobs(jobs, tiny.tokenizer.parent, 4, folder / "4")


def close(steps: Steps, expected: Steps) -> None:
    """Losses within 1e-6, gradient norms within 1e-5: they are sums over all parameters."""
    assert len(steps) == len(expected)
    losses, norms = torch.tensor(steps, dtype=torch.float64).T
    expected_losses, expected_norms = torch.tensor(expected, dtype=torch.float64).T
    torch.testing.assert_close(losses, expected_losses, rtol=TOLERANCE, atol=0)
    torch.testing.assert_close(norms, expected_norms, rtol=10 * TOLERANCE, atol=0)


@pytest.mark.parametrize(("ranks", "name"), [(ranks, name) for ranks, names in LAYOUTS.items() for name in names])
def test_losses_are_those_of_one_process(
    request: pytest.FixtureRequest, one: dict[str, Steps], ranks: int, name: str
) -> None:
    runs: dict[str, Steps] = request.getfixturevalue({1: "one", 2: "two", 4: "four"}[ranks])
    assert len(runs[name]) == STEPS
    close(runs[name], one["plain"])


@pytest.mark.parametrize("ranks", ["two", "four"])
def test_a_resumed_run_is_bitwise_the_undisturbed_one(request: pytest.FixtureRequest, ranks: str) -> None:
    """With dropout, accumulation and recomputation; every rank draws masks of its own."""
    runs: dict[str, Steps] = request.getfixturevalue(ranks)
    assert runs["before"] + runs["after"] == runs["undisturbed"]


def test_a_run_goes_on_with_another_number_of_ranks_and_micro_batches(
    one: dict[str, Steps], two: dict[str, Steps], four: dict[str, Steps], tiny: Tiny, folder: Path
) -> None:
    """Same windows, same fill-in-the-middle, same optimizer: 1 → 2, 2 → 4 and 4 → 1."""
    close(one["stopped"] + two["resumed"], one["plain"])
    close(two["stopped"] + four["resumed"], one["plain"])
    job = {"steps": STEPS, "folder": str(folder / "from-4"), "resume": True, "batch_size": 2}
    close(four["stopped"] + run_job(job, tiny.tokenizer.parent, 1), one["plain"])
