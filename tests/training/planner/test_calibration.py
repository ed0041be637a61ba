"""The efficiencies are what the published runs say, and predict those that had no part in it."""

from dataclasses import asdict

import pytest

from starcoder.model import StarCoderConfig
from starcoder.training.planner.calibration import EFFICIENCIES, error, fit, leave_one_out, summary, table
from starcoder.training.planner.published import FITTED, HELD_OUT, MPT_7B, Run, Shape
from starcoder.training.planner.trace import Layout, trace


def test_the_constants_are_what_the_fit_finds() -> None:
    assert asdict(fit(FITTED)) == pytest.approx(asdict(EFFICIENCIES), rel=0.005)


def test_a_run_left_out_is_predicted_within_ten_percent() -> None:
    assert max(map(abs, leave_one_out())) < 0.10


def test_runs_that_had_no_part_in_the_fit_are_predicted_within_ten_percent() -> None:
    assert len(HELD_OUT) >= 3
    assert not set(HELD_OUT) & set(FITTED)
    assert max(abs(error(run, EFFICIENCIES)) for run in HELD_OUT) < 0.10


def test_the_table_shows_every_run() -> None:
    assert len(table().splitlines()) == len(FITTED) + len(HELD_OUT) + 3
    assert f"{len(FITTED)} published runs" in summary()


def test_shapes_have_their_models_parameters() -> None:
    assert MPT_7B.params == pytest.approx(6.65e9, rel=0.01)
    assert [round(run.shape.params / 1e9) for run in HELD_OUT if "70B" in run.label] == [69, 69, 71, 65]


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
