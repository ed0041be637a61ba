"""The efficiencies of the estimate, how they were found, and how far off they are.

`memory`, `link` and `network` are what others measured: 0.9 of HBM's bandwidth in large streaming operators
(calculon, systems/a100_80g.json); 235 of 300 GB/s in a node of A100s and 355 of 450 of H100s, 85 of 100 GB/s between
nodes (bus bandwidth of nccl-tests; its issue 119, and nccl's 527, 1048, 1221 and 1281). The others are fitted to the
published runs `FITTED` by least squares on the logarithm of the throughput; every other published run is predicted
only (`HELD_OUT`). Sequences of 1K to 32K tell attention from the other products; the longest are MPT's, whose Triton
kernel is slower than flash attention 2, so the estimate errs on the slow side there. `fused` rests on a single fitted
run, and on how well the compiled ones held out are met. What a few runs alone decide is held by a weak pull (a tenth of
a run) to a first guess: flash attention 2 reaches half of an A100's peak in training, and a third of an H100's (its
paper, and that of flash attention 3).

    .venv/bin/python -m starcoder.training.planner.calibration     fits again and prints the table of errors
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from starcoder.training.planner.estimate import Efficiencies, step_time
from starcoder.training.planner.published import FITTED, HELD_OUT, Run

GUESS = Efficiencies(
    half_width=1000,
    attention=0.5,
    attention_hopper=0.33,
    memory=0.9,
    fused=0.4,
    contention=0.5,
    link=0.78,
    network=0.85,
)
PARAMETERS = ("half_width", "attention", "attention_hopper", "fused", "contention")
EFFICIENCIES = replace(
    GUESS, half_width=659, attention=0.361, attention_hopper=0.162, fused=0.430, contention=0.750
)  # what `fit(FITTED)` finds, rounded

_PULL = 0.1


def predict(run: Run, efficiencies: Efficiencies) -> float:
    """Tokens per second and GPU."""
    tokens = run.length * run.micro_batch * run.accumulation
    return tokens / step_time(run.step, run.cluster, efficiencies).total


def error(run: Run, efficiencies: Efficiencies) -> float:
    """How much faster the estimate is than the run, as a share."""
    return predict(run, efficiencies) / run.measured - 1


def fit(runs: Sequence[Run]) -> Efficiencies:
    """The parameters that predict `runs` best: Gauss-Newton on their logarithms."""
    guess = np.log([getattr(GUESS, name) for name in PARAMETERS])
    theta = guess.copy()
    for _ in range(8):
        residuals = _residuals(runs, theta, guess)
        nudged = [_residuals(runs, theta + nudge, guess) for nudge in 1e-4 * np.eye(len(theta))]
        jacobian = (np.stack(nudged, axis=1) - residuals[:, None]) / 1e-4
        theta = theta - np.linalg.lstsq(jacobian, residuals)[0].clip(-0.5, 0.5)
    return _efficiencies(theta)


def leave_one_out() -> list[float]:
    """The error of each fitted run when the others alone are fitted."""
    return [error(run, fit([other for other in FITTED if other is not run])) for run in FITTED]


def held_out() -> NDArray[np.float64]:
    """The error of each run that had no part in the fit."""
    return np.array([error(run, EFFICIENCIES) for run in HELD_OUT])


def likely(seconds: float) -> tuple[float, float]:
    """Between what nine of ten runs would take that are estimated to take `seconds`, by the runs held out."""
    low, high = np.quantile(held_out(), (0.05, 0.95))
    return seconds * (1 + low), seconds * (1 + high)


def table() -> str:
    """Every run, measured and estimated, one a line."""
    lines = ["run            (source)  GPU         GPUs   measured  estimated    error  left out", "fitted"]
    lines += [f"{_row(run)}  {left_out:+8.1%}" for run, left_out in zip(FITTED, leave_one_out(), strict=True)]
    return "\n".join([*lines, "not fitted", *map(_row, HELD_OUT)])


def summary() -> str:
    """The errors in a few lines."""
    errors, left_out = held_out(), np.abs(leave_one_out())
    most = max(run.ranks for run in HELD_OUT)
    return (
        f"error of the throughput: {left_out.mean():.1%} on average and {left_out.max():.1%} at most for {len(FITTED)} "
        f"published runs, each left out of the fit in turn;\n"
        f"{np.abs(errors).mean():.1%} on average for {len(HELD_OUT)} more that had no part in it (with its sign "
        f"{errors.mean():+.1%}; nine of ten within {np.quantile(np.abs(errors), 0.9):.0%},\n"
        f"the worst {errors[np.abs(errors).argmax()]:+.0%}: where memory forced a micro-batch of one or two); "
        f"the largest run has {most} GPUs"
    )


def _row(run: Run) -> str:
    found = f"{run.measured:8,.0f}   {predict(run, EFFICIENCIES):8,.0f} {error(run, EFFICIENCIES):+8.1%}"
    return f"{run.label:<18} ({run.source})  {run.gpu:<9} {run.ranks:>5}   {found}"


def _efficiencies(theta: NDArray[np.float64]) -> Efficiencies:
    return replace(GUESS, **dict(zip(PARAMETERS, np.exp(theta).tolist(), strict=True)))


def _residuals(runs: Sequence[Run], theta: NDArray[np.float64], guess: NDArray[np.float64]) -> NDArray[np.float64]:
    ratios = [np.log(predict(run, _efficiencies(theta)) / run.measured) for run in runs]
    return np.concatenate([ratios, _PULL * (theta - guess)])


if __name__ == "__main__":
    print(fit(FITTED), table(), summary(), sep="\n")
