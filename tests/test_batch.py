"""Continuous batching against one completion at a time, and the memory that it holds."""

import gc
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from starcoder.batch import Batch, Growth
from starcoder.errors import UserError
from starcoder.generation import Prompt, sample_tokens
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.sampling import Sampling, choose, choose_each

CONFIG = StarCoderConfig(
    vocab_size=600, context_length=150, n_layer=2, n_head=4, n_embd=32, n_inner=56, dropout=0.0, init_std=0.4
)
MODEL = StarCoder(CONFIG, seed=2)
WAYS = [Sampling(12), Sampling(30, 0.8, 0.95), Sampling(20, 1.5), Sampling(0), Sampling(1, 0.5, 0.3)]


def prompt(length: int) -> list[int]:
    return torch.randint(1, 600, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def alone(ids: list[int], sampling: Sampling, key: list[int]) -> tuple[list[int], str]:
    """What a sequence of its own is."""
    sample = next(sample_tokens(MODEL, [Prompt(ids, [key])], sampling))
    return sample.ids, sample.finish


class Log:
    """What became of the sequences of a batch."""

    def __init__(self) -> None:
        self.ids: dict[int, list[int]] = {}
        self.finish: dict[int, str] = {}

    def take(self, grown: list[Growth]) -> None:
        assert len({growth.handle for growth in grown}) == len(grown)
        for handle, token, finish, *_ in grown:
            assert handle not in self.finish
            self.ids.setdefault(handle, []).extend([] if token is None else [token])
            if finish:
                self.finish[handle] = finish

    def run(self, batch: Batch) -> None:
        while batch:
            self.take(batch.step())


@settings(max_examples=25)
@given(st.data())
def test_samples_do_not_depend_on_what_joins_and_leaves(data: st.DataObject) -> None:
    batch, log = (
        Batch(MODEL, data.draw(st.integers(1, 5)), decoding=data.draw(st.sampled_from(["eager", "graph"]))),
        Log(),
    )
    wanted: dict[int, tuple[list[int], Sampling, list[int]]] = {}
    removed: dict[int, int] = {}
    for number in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["add", "add", "step", "step", "remove"])):
            case "add":
                ids, sampling = (
                    prompt(data.draw(st.sampled_from([0, 1, 5, 70, 149, 150]))),
                    data.draw(st.sampled_from(WAYS)),
                )
                wanted[batch.add(ids, sampling, [3, number])] = ids, sampling, [3, number]
            case "step":
                log.take(batch.step())
            case "remove" if wanted:
                handle = data.draw(st.sampled_from(sorted(wanted)))
                batch.remove(handle)
                removed.setdefault(handle, len(log.ids.get(handle, [])))
    log.run(batch)
    for handle, (ids, sampling, key) in wanted.items():
        expected, finish = alone(ids, sampling, key)
        if handle in removed and handle not in log.finish:
            assert log.ids.get(handle, []) == expected[: removed[handle]]
        else:
            assert (log.ids[handle], log.finish[handle]) == (expected, finish)


def test_no_more_rows_than_allowed_and_first_come_first_served(monkeypatch: pytest.MonkeyPatch) -> None:
    widths, hidden = [], MODEL.hidden

    def spy(tokens: Tensor, cache: Any = None) -> Tensor:
        widths.append(tuple(tokens.shape))
        return hidden(tokens, cache)

    monkeypatch.setattr(MODEL, "hidden", spy)
    batch = Batch(MODEL, rows=2)
    a, b, c = (batch.add(prompt(length), Sampling(n)) for length, n in ((4, 2), (9, 3), (5, 2)))
    steps = []
    while batch:
        steps.append([(growth.handle, growth.finish) for growth in batch.step()])
    assert steps == [
        [(a, None), (b, None)],
        [(a, "length"), (b, None)],
        [(b, "length"), (c, None)],
        [(c, "length")],
    ]
    assert widths == [(2, 9), (2, 1), (1, 1), (1, 5), (1, 1)]


def test_a_prompt_goes_through_the_model_once_while_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    prefilled, hidden = Counter[int](), MODEL.hidden

    def spy(tokens: Tensor, cache: Any = None) -> Tensor:
        if not any(cache.lengths):
            prefilled.update((tokens != 0).sum(dim=1).tolist())
        return hidden(tokens, cache)

    monkeypatch.setattr(MODEL, "hidden", spy)
    batch, log = Batch(MODEL, rows=3), Log()
    handles = [batch.add(prompt(5 + number % 2), Sampling(4, 1.0), [number]) for number in range(10)]
    log.run(batch)
    assert prefilled == {5: 1, 6: 1}
    assert len({tuple(log.ids[handle]) for handle in handles}) == 10
    assert not batch._prompts


def live_tensors() -> tuple[int, int]:
    """Number and bytes of the tensors that exist."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    return len(tensors), sum(tensor.nbytes for tensor in tensors)


def test_ten_thousand_tokens_leak_nothing() -> None:
    batch, tokens, added, peak = Batch(MODEL, rows=32), 0, 0, 0
    before = live_tensors()
    readings = []
    while tokens < 10_000:
        while len(batch) < 40:
            batch.add(prompt(1 + added % 90), Sampling(20 + added % 37, 0.9), [added])
            added += 1
        if added % 50 == 0 and batch._growing:
            batch.remove(batch._growing[-1].handle)
        tokens += sum(growth.token is not None for growth in batch.step())
        peak = max(peak, batch.cache_bytes)
        if tokens > 5_000 and not readings:
            readings.append(live_tensors())
    readings.append(live_tensors())
    assert peak <= 32 * CONFIG.context_length * CONFIG.n_layer * 2 * CONFIG.head_size * 4
    assert abs(readings[1][0] - readings[0][0]) <= 32  # the prompts that wait
    while batch:
        batch.step()
    assert batch.cache_bytes == 0
    assert live_tensors() == before


def test_a_prompt_that_cannot_be_joins_no_batch() -> None:
    batch = Batch(MODEL)
    with pytest.raises(UserError, match="the prompt has 151 tokens, the model's context only 150"):
        batch.add([1] * 151, Sampling())
    with pytest.raises(UserError, match="a token id outside"):
        batch.add([600], Sampling())
    with pytest.raises(UserError, match="a batch has 0 rows"):
        Batch(MODEL, rows=0)
    assert len(batch) == 0
    assert batch.step() == []
    batch.remove(17)


def sorted_choice(logits: Tensor, sampling: Sampling, number: float) -> int:
    """Nucleus sampling with the whole vocabulary in order."""
    probabilities, ids = F.softmax(logits / sampling.temperature, dim=-1).sort(descending=True)
    mass = probabilities.cumsum(0)
    last = min(int((mass < sampling.top_p).sum()), len(mass) - 1)
    return int(ids[int((mass < number * mass[last]).sum())])


@pytest.mark.parametrize("sharpness", [0.01, 1.0, 4.0])
def test_the_likeliest_few_give_what_the_whole_vocabulary_gives(sharpness: float) -> None:
    logits = sharpness * torch.randn(60, 3000, generator=torch.Generator().manual_seed(0))
    ways = [Sampling(1, (0.0, 0.5, 1.0, 2.0)[row % 4], (0.2, 0.9, 1.0)[row % 3]) for row in range(60)]
    tokens = choose_each(logits, ways, [np.random.default_rng(row) for row in range(60)]).tolist()
    for row, (token, way) in enumerate(zip(tokens, ways, strict=True)):
        rng = np.random.default_rng(row)
        expected = sorted_choice(logits[row], way, rng.random()) if way.temperature else int(logits[row].argmax())
        assert token == expected
        alone = choose(logits[row : row + 1], way, [np.random.default_rng(row)])
        assert alone.tolist() == [token]


def test_a_compiled_step_writes_the_same() -> None:
    prompts = [Prompt(prompt(length), [[length]]) for length in (5, 30)]
    eager, compiled = (
        sorted(sample_tokens(MODEL, prompts, Sampling(30, 0.8), decoding=decoding), key=lambda sample: sample.prompt)
        for decoding in ("eager", "compiled")
    )
    assert compiled == eager
