"""The efficiencies are what the published runs say, and predict those that had no part in it."""

from dataclasses import asdict

import numpy as np
import pytest

from starcoder.model import StarCoderConfig
from starcoder.training.planner.calibration import (
    EFFICIENCIES,
    error,
    fit,
    held_out,
    leave_one_out,
    likely,
    predict,
    summary,
    table,
)
from starcoder.training.planner.published import (
    FITTED,
    HELD_OUT,
    LLAMA2_70B,
    LLAMA3_70B,
    MPT_7B,
    MPT_70B,
    Run,
    Shape,
)
from starcoder.training.planner.trace import Layout, trace
from tests.conftest import ROOT


def test_the_constants_are_what_the_fit_finds() -> None:
    assert asdict(fit(FITTED)) == pytest.approx(asdict(EFFICIENCIES), rel=0.005)


def test_every_run_that_was_not_fitted_is_held_out_and_told() -> None:
    """The bounds are wide: a run that is met badly stays in the list, and the printed errors are the computed ones."""
    assert not set(HELD_OUT) & set(FITTED)
    errors = np.array([error(run, EFFICIENCIES) for run in HELD_OUT])
    assert f"{np.abs(errors).mean():.1%} on average for {len(HELD_OUT)} more" in summary()
    assert f"the worst {errors[np.abs(errors).argmax()]:+.0%}" in summary()
    assert np.abs(leave_one_out()).max() < 0.25
    assert np.abs(errors).mean() < 0.15


def test_the_readme_tells_these_errors() -> None:
    errors, left_out = np.abs(held_out()), np.abs(leave_one_out())
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert (
        f"fitted to {len(FITTED)} published runs: the error of the throughput is {left_out.mean():.1%}".replace(
            "%", " %"
        )
        in readme
    )
    assert f"on average and {left_out.max():.1%} at most when each".replace("%", " %") in readme
    assert f"All {len(HELD_OUT)} other published runs" in readme
    within = f"within {errors.mean():.1%} on average, nine of ten within {np.quantile(errors, 0.9):.0%};"
    assert within.replace("%", " %") in readme


def test_nine_of_ten_runs_take_as_long_as_likely() -> None:
    found = [low <= run_time(run) <= high for run in HELD_OUT for low, high in [likely(estimated_time(run))]]
    assert 0.85 <= np.mean(found) <= 0.95


def run_time(run: Run) -> float:
    return 1 / run.measured


def estimated_time(run: Run) -> float:
    return 1 / predict(run, EFFICIENCIES)


def test_the_table_shows_every_run() -> None:
    assert len(table().splitlines()) == len(FITTED) + len(HELD_OUT) + 3
    assert f"{len(FITTED)} published runs" in summary()


def test_shapes_have_their_models_parameters() -> None:
    assert MPT_7B.params == pytest.approx(6.65e9, rel=0.01)
    assert [round(shape.params / 1e9) for shape in (MPT_70B, LLAMA2_70B, LLAMA3_70B)] == [65, 69, 71]


def test_the_closed_form_of_a_published_block_is_that_of_the_trace() -> None:
    """For a shape of our own, without dropout and with one K/V head; a block is what sixteen have more than fifteen."""
    config = StarCoderConfig(vocab_size=512, context_length=1024, n_head=8, n_embd=1024, dropout=0.0)
    layout = Layout(8, 8, micro_batch=4)
    traces = [trace(config.replace(n_layer=depth), 1024, layout) for depth in (15, 16)]
    shapes = [Shape("gpt", depth, 1024, 4096, 512, 1 / 8) for depth in (15, 16)]
    steps = [Run(1, "ours", shape, 1024, 4, 1, "a100-80gb", 8, 0, 1).step.phases for shape in shapes]
    for phase in ("forward", "backward", "optimizer"):
        traced, closed = (
            {kind: more[phase].work[kind] - few[phase].work[kind] for kind in traces[1][phase].work}
            for few, more in (traces, steps)
        )
        assert closed == pytest.approx(traced, rel=0.1)
