"""What is skipped, without asking the device: the guard alone, and AdamW's obedience."""

import math

import pytest
import torch

from starcoder.training.guard import StepGuard


def judge(guard: StepGuard, loss: float, norm: float) -> bool:
    return bool(guard(torch.tensor(loss), torch.tensor(norm)))


def trained(deviations: float = 6.0, window: int = 16) -> StepGuard:
    """A guard that has seen a full window of losses around 2 and norms around 1."""
    guard, generator = StepGuard(deviations, window), torch.Generator().manual_seed(0)
    for noise in torch.randn(window, 2, generator=generator).tolist():
        assert not judge(guard, 2 + 0.01 * noise[0], 1 + 0.1 * noise[1])
    return guard


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (2.0, math.nan), (math.inf, 1.0), (2.0, -math.inf)])
def test_what_is_not_finite_is_skipped_from_the_first_step(loss: float, norm: float) -> None:
    for guard in (StepGuard(), trained(deviations=0)):
        before = guard.history.clone()
        assert judge(guard, loss, norm)
        assert torch.equal(guard.history, before)
        assert guard.skipped == 1


@pytest.mark.parametrize(
    ("loss", "norm", "skipped"), [(2.0, 1.0, False), (2.2, 1.0, True), (2.0, 3.0, True), (0.1, 0.01, False)]
)
def test_a_spike_is_skipped_a_drop_is_not(loss: float, norm: float, skipped: bool) -> None:
    assert judge(trained(), loss, norm) == skipped
    assert not judge(trained(deviations=0), loss, norm)


def test_the_limit_is_mean_plus_deviations_over_the_window() -> None:
    guard = trained()
    norms = guard.history[:, 1]
    limit = float(norms.mean() + 6 * norms.std())
    assert not judge(guard, 2.0, limit - 1e-4)
    guard = trained()
    assert judge(guard, 2.0, limit + 1e-4)


def test_a_steady_history_leaves_room_for_six_hundredths() -> None:
    guard = StepGuard(window=16)
    assert not any(judge(guard, 2.0, 1.0) for _ in range(16))
    assert not judge(guard, 2.0, 1.05)
    assert judge(guard, 2.0, 1.2)


@pytest.mark.parametrize("level", [2.0, 10.0, 1e3])
def test_a_lasting_change_is_accepted_in_the_end(level: float) -> None:
    guard = trained(window=128)
    verdicts = [judge(guard, 2.0, level) for _ in range(256)]
    assert verdicts[0]
    assert not any(verdicts[80:])


@pytest.mark.parametrize("spike", [10.0, 1e3, 1e20])
def test_one_spike_does_not_hide_the_next(spike: float) -> None:
    guard = trained()
    assert judge(guard, 2.0, spike)
    assert not judge(guard, 2.0, 1.0)
    assert judge(guard, 2.0, 5.0)


def test_nothing_is_an_outlier_before_there_is_a_history() -> None:
    guard = StepGuard(window=16)
    assert not any(judge(guard, loss, 1.0) for loss in [2.0] * 8 + [200.0] * 8)


def test_the_memory_is_part_of_the_state() -> None:
    guard, again = trained(), StepGuard(window=16)
    judge(guard, math.nan, 1.0)
    again.load_state_dict(guard.state_dict())
    assert torch.equal(again.history, guard.history)
    assert (again.seen, again.skipped) == (16, 1)
    assert judge(again, 2.2, 1.0)


def test_the_device_is_never_asked() -> None:
    """Tensors on `meta` have no values: whoever reads one fails."""
    guard = StepGuard().to("meta")
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(torch.zeros((), device="meta"))
    assert guard(torch.zeros((), device="meta"), torch.zeros((), device="meta")).shape == ()


def test_adamw_obeys_on_the_device() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, fused=True)
    for gradient, skip in ((1.0, 0.0), (math.nan, 1.0), (1.0, 0.0)):
        before, state = parameter.detach().clone(), {k: v.clone() for k, v in optimizer.state[parameter].items()}
        parameter.grad = torch.full((3,), gradient)
        optimizer.found_inf = torch.tensor(skip)
        optimizer.step()
        assert torch.equal(parameter, before) == bool(skip)
        if skip:
            assert all(torch.equal(optimizer.state[parameter][name], value) for name, value in state.items())
    assert optimizer.state[parameter]["step"] == 2
