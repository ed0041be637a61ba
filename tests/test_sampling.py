"""How the next token is chosen, against the whole vocabulary in order, and what cannot be chosen from."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from starcoder.errors import UserError
from starcoder.sampling import Sampling, choose, choose_each, logprobs


def sorted_choice(logits: Tensor, sampling: Sampling, number: float) -> int:
    """Nucleus sampling with the whole vocabulary in order."""
    probabilities, ids = F.softmax(logits.float() / sampling.temperature, dim=-1).sort(descending=True, stable=True)
    mass = probabilities.cumsum(0)
    last = min(int((mass < sampling.top_p).sum()), len(mass) - 1)
    return int(ids[int((mass < number * mass[last]).sum())])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sharpness", [0.01, 1.0, 4.0])
def test_the_likeliest_few_give_what_the_whole_vocabulary_gives(sharpness: float, dtype: torch.dtype) -> None:
    """Of logits in half precision, too, the probabilities and their sums are fp32."""
    logits = (sharpness * torch.randn(60, 3000, generator=torch.Generator().manual_seed(0))).to(dtype)
    ways = [Sampling(1, (0.0, 0.5, 1.0, 2.0)[row % 4], (0.2, 0.9, 1.0)[row % 3]) for row in range(60)]
    tokens = choose_each(logits, ways, [np.random.default_rng(row) for row in range(60)]).tolist()
    for row, (token, way) in enumerate(zip(tokens, ways, strict=True)):
        rng = np.random.default_rng(row)
        expected = sorted_choice(logits[row], way, rng.random()) if way.temperature else int(logits[row].argmax())
        assert logits[row, token] == logits[row, expected]  # in bf16 there are ties
        assert dtype == torch.bfloat16 or token == expected
        alone = choose(logits[row : row + 1], way, [np.random.default_rng(row)])
        assert alone.tolist() == [token]


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-30, 1e-6, 1e-5, 1e-3, 1e30, 1e300])
def test_any_temperature_has_a_token_and_leaves_the_others_theirs(temperature: float) -> None:
    logits = 30 * torch.randn(3, 900, generator=torch.Generator().manual_seed(1))
    ways = [Sampling(1, 0.8), Sampling(1, temperature), Sampling(1, 1.2, 0.9)]
    tokens = choose_each(logits, ways, [np.random.default_rng(row) for row in range(3)]).tolist()
    for row in (0, 2):
        assert tokens[row] == choose(logits[row : row + 1], ways[row], [np.random.default_rng(row)]).item()
    if temperature < 1:
        assert tokens[1] == logits[1].argmax().item()
    else:  # as good as uniform
        assert tokens[1] != logits[1].argmax().item()


def test_no_finite_logits_overflow() -> None:
    logits = torch.tensor([[3e38, -3e38, 2e38]])
    assert choose(logits, Sampling(1, 1e-3), [np.random.default_rng(0)]).tolist() == [0]
    assert choose(-logits, Sampling(1, 1e-3), [np.random.default_rng(0)]).tolist() == [1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_fails_alone(value: float, temperature: float) -> None:
    logits = torch.randn(4, 900, generator=torch.Generator().manual_seed(1))
    ways = [Sampling(1, temperature)] * 4
    good = choose_each(logits, ways, [np.random.default_rng(row) for row in range(4)]).tolist()
    bad = logits.clone()
    bad[1, 17], bad[3] = value, -math.inf
    tokens = choose_each(bad, ways, [np.random.default_rng(row) for row in range(4)]).tolist()
    assert tokens == [good[0], -1, good[2], -1]
    with pytest.raises(UserError, match="the model's logits are not finite"):
        choose(bad, ways[0], [np.random.default_rng(row) for row in range(4)])


def test_logprobs_are_those_of_the_whole_vocabulary() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    expected = F.log_softmax(logits.float(), dim=-1)
    for row, told in enumerate(logprobs(logits, torch.tensor([4, 45, 7]), 2, vocab_size=40)):
        assert (told.token, told.logprob) == ((4, 45, 7)[row], expected[row, told.token].item())
        order = expected[row, :40].argsort(descending=True)[:2].tolist()
        assert told.likeliest == [(token, expected[row, token].item()) for token in order]
    assert [told.likeliest for told in logprobs(logits, torch.tensor([1, 2, 3]), 0)] == [[], [], []]
    assert len(logprobs(logits, torch.tensor([1, 2, 3]), 99)[0].likeliest) == 50
