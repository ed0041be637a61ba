"""Continuous batching against one completion at a time, and the memory that it holds."""

import gc
import resource
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from starcoder import sampling
from starcoder.batch import Batch, Growth
from starcoder.decoding import Decoding, power_of_two, resolved
from starcoder.errors import UserError
from starcoder.generation import Prompt, sample_tokens
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.sampling import Sampling

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


def test_prompts_join_a_few_at_a_time_while_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("starcoder.batch._PREFILLED_TOGETHER", 64)
    monkeypatch.setattr("starcoder.batch._PREFILLED_BESIDE", 32)
    passes: list[tuple[int, ...]] = []
    hidden = MODEL.hidden

    def spy(tokens: Tensor, cache: Any = None) -> Tensor:
        passes.extend([] if any(cache.lengths) else [tuple(tokens.shape)])
        return hidden(tokens, cache)

    monkeypatch.setattr(MODEL, "hidden", spy)
    batch, log = Batch(MODEL, rows=16), Log()
    lengths = [20, 21, 22, 23, 9, 10, 11, 70, 5, 6, 6, 6, 6]
    handles = [batch.add(prompt(length), Sampling(12), [number]) for number, length in enumerate(lengths)]
    joined: list[int] = []
    while batch:
        grown = batch.step()
        log.take(grown)
        assert {growth.handle for growth in grown} >= {handle for handle in joined if handle not in log.finish}
        joined = list(log.ids)
    assert passes == [(2, 21), (1, 22), (1, 23), (2, 10), (1, 11), (1, 70), (2, 6)]
    monkeypatch.undo()
    for number, (handle, length) in enumerate(zip(handles, lengths, strict=True)):
        assert (log.ids[handle], log.finish[handle]) == alone(prompt(length), Sampling(12), [number])


@pytest.mark.parametrize("decoding", ["eager", "graph"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_sequence_whose_logits_are_not_finite_fails_alone(temperature: float, decoding: Decoding) -> None:
    broken = StarCoder(CONFIG, seed=2)
    with torch.no_grad():
        broken.transformer.wpe.weight[40] = torch.nan
    batch, log = Batch(broken, rows=3, decoding=decoding), Log()
    wanted = {}
    for length, n in ((30, 40), (29, 40), (3, 30), (5, 30)):  # the third moves to the first's row, the last follows
        sampling = Sampling(n, temperature)
        wanted[batch.add(prompt(length), sampling, [length], logprobs=1)] = alone(prompt(length), sampling, [length])
    log.run(batch)
    ends = [(log.ids[handle], log.finish[handle]) for handle in wanted]
    healthy = [*wanted.values()]
    assert ends[2:] == healthy[2:]
    assert ends[:2] == [(healthy[0][0][:11], "failed"), (healthy[1][0][:12], "failed")]
    unfit = batch.add(prompt(45), Sampling(0), prompt_logprobs=1)
    assert [(growth.handle, growth.finish) for growth in batch.step()] == [(unfit, "failed")]
    with pytest.raises(UserError, match="the model's logits are not finite"):
        list(sample_tokens(broken, [Prompt(prompt(45), [[0]])], Sampling(5, temperature)))


ASKED = [(9, 8, 3, None), (7, 8, 0, 2), (5, 8, None, None), (150, 4, 1, 1), (12, 0, 2, 0)]
"""Tokens of a prompt, of its completion, and the likeliest that are asked for at each of the two, the prompt's last."""


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.06)])
def test_logprobs_are_told_to_those_that_ask(dtype: torch.dtype, tolerance: float) -> None:
    model = StarCoder(CONFIG, seed=2).to(dtype)
    batch = Batch(model, rows=3, vocab_size=590)
    handles = [batch.add(prompt(n), Sampling(m, 0.8), [n], logprobs=k, prompt_logprobs=p) for n, m, k, p in ASKED]
    again = batch.add(prompt(7), Sampling(8, 0.8), [7], logprobs=5)
    growths: dict[int, list[Growth]] = {handle: [] for handle in [*handles, again]}
    while batch:
        for growth in batch.step():
            growths[growth.handle].append(growth)
    for handle, (length, _, k, prompt_k) in zip(handles, ASKED, strict=True):
        written = [growth for growth in growths[handle] if growth.token is not None]
        assert bool(written) == (length not in (12, 150))
        ids = [*prompt(length), *(growth.token for growth in written)]
        with torch.inference_mode():
            logits = model.hidden(torch.tensor([ids])).float() @ model.transformer.wte.weight.float().T
        expected = logits[0].log_softmax(-1)
        first, *rest = (growth.prompt for growth in growths[handle])
        assert rest == [None] * len(rest)
        for start, told, n in ((1, first, prompt_k), (length, [growth.logprob for growth in written], k)):
            if n is None:
                assert not any(told or ())
                continue
            assert told is not None
            assert len(told) == (length - 1 if start == 1 else len(written))
            for place, one in enumerate(told, start):
                assert one is not None
                assert one.token == ids[place]
                assert all(token < 590 for token, _ in one.likeliest)
                numbers = torch.tensor([one.logprob, *(number for _, number in one.likeliest)])
                best = expected[place - 1, :590].topk(n).values
                right = torch.cat([expected[place - 1, one.token].unsqueeze(0), best])
                torch.testing.assert_close(numbers, right, atol=tolerance, rtol=tolerance)
    if dtype == torch.float32:
        assert [growth.token for growth in growths[again]] == [growth.token for growth in growths[handles[1]]]
    assert all(growth.prompt is None for growth in growths[again])


def test_logprobs_cost_nothing_for_those_that_do_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    told = sampling.logprobs

    def spy(logits: Tensor, *rest: Any) -> Any:
        rows.append(len(logits))
        return told(logits, *rest)

    monkeypatch.setattr("starcoder.batch.logprobs", spy)
    monkeypatch.setattr("starcoder.prefill.logprobs", spy)
    batch = Batch(MODEL, rows=4)
    for length in (3, 4, 5):
        batch.add(prompt(length), Sampling(6))
    Log().run(batch)
    assert rows == []
    batch.add(prompt(3), Sampling(6))
    batch.add(prompt(4), Sampling(3), logprobs=2)
    Log().run(batch)
    assert rows == [1, 1, 1]
    with pytest.raises(UserError, match="logprobs are -1, of the prompt None: below 0"):
        batch.add([1], Sampling(), logprobs=-1)


def test_samples_in_bf16_are_drawn_from_the_models_distribution() -> None:
    """Rounding depends on the neighbours, and so may a token; but each is where its random number fell, nearly."""
    model = StarCoder(CONFIG, seed=2).to(torch.bfloat16)
    lengths = range(1, 60, 4)
    wanted = [Prompt(prompt(length), [[length]]) for length in lengths]
    for sample in sample_tokens(model, wanted, Sampling(40, 1.5)):
        ids, rng = list(wanted[sample.prompt].ids), np.random.default_rng([lengths[sample.prompt]])
        with torch.inference_mode():
            logits = model(torch.tensor([ids + sample.ids]))[0, len(ids) - 1 : -1].float()
        for token, row in zip(sample.ids, logits, strict=True):
            probabilities, order = (row / 1.5).softmax(-1).sort(descending=True)
            rank = (order == token).nonzero().item()
            above = probabilities[:rank].sum().item()
            assert above - 0.05 <= rng.random() <= above + probabilities[rank].item() + 0.05


def test_the_cache_holds_no_more_than_four_times_what_is_needed() -> None:
    batch = Batch(MODEL, rows=32)
    handle = batch.add(prompt(3), Sampling(100), [3])
    for number in range(31):
        batch.add(prompt(60 + number % 30), Sampling(2 + number), [number])
    log, a_slot = Log(), CONFIG.n_layer * 2 * CONFIG.head_size * 4
    most = 0
    while batch:
        log.take(batch.step())
        most = max(most, batch.cache_bytes)
        rows, slots = len(batch._growing), max(batch._cache.lengths, default=0) + 1
        needed = min(32, power_of_two(rows)) * min(150, max(64, power_of_two(slots))) if rows else 0
        assert batch.cache_bytes <= 4 * needed * a_slot
    assert most >= 32 * 128 * a_slot
    assert (log.ids[handle], log.finish[handle]) == alone(prompt(3), Sampling(100), [3])


@pytest.mark.parametrize("decoding", ["eager", "graph"])
def test_a_cache_grows_layer_by_layer(monkeypatch: pytest.MonkeyPatch, decoding: Decoding) -> None:
    """Of all layers, one at a time is held twice; and no graph keeps an old one."""
    batch, log = Batch(MODEL, rows=2, decoding=decoding), Log()
    handle = batch.add(prompt(60), Sampling(30), [60])
    for _ in range(5):
        log.take(batch.step())
    layers = [ref(layer) for layer in batch._cache.kv]
    new_zeros, most = Tensor.new_zeros, 0

    def spy(like: Tensor, *shape: Any) -> Tensor:
        nonlocal most
        new = new_zeros(like, *shape)
        layers.append(ref(new))
        most = max(most, sum(layer() is not None for layer in layers))
        return new

    monkeypatch.setattr(Tensor, "new_zeros", spy)
    log.take(batch.step())
    assert batch._cache.shape[2] == 128
    assert (len(layers), most) == (2 * CONFIG.n_layer, CONFIG.n_layer + 1)
    log.run(batch)
    assert (log.ids[handle], log.finish[handle]) == alone(prompt(60), Sampling(30), [60])


def test_auto_is_graphs_where_a_gpu_holds_the_model_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu: Any = SimpleNamespace(
        transformer=SimpleNamespace(wte=SimpleNamespace(weight=SimpleNamespace(is_cuda=True)))
    )
    assert resolved("auto", MODEL) == "eager"
    assert resolved("auto", on_a_gpu) == "graph"
    assert [resolved(way, on_a_gpu) for way in ("eager", "graph", "compiled")] == ["eager", "graph", "compiled"]
    assert Batch(MODEL)._static is None
    assert Batch(MODEL, decoding="graph")._static is not None
    monkeypatch.setattr("starcoder.decoding.FSDPModule", SimpleNamespace)  # which a sharded model is
    assert resolved("auto", on_a_gpu) == "eager"


def live_tensors() -> tuple[int, int]:
    """Number and bytes of the tensors that exist."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    return len(tensors), sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("decoding", ["eager", "graph"])
def test_ten_thousand_tokens_leak_nothing(decoding: Decoding) -> None:
    batch, tokens, added, peak = Batch(MODEL, rows=32, decoding=decoding), 0, 0, 0
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
    assert batch.cache_bytes == 0 or decoding == "graph"
    del batch
    assert live_tensors() == before


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0


@pytest.mark.parametrize("decoding", ["eager", "graph"])
def test_the_same_work_again_takes_no_more_memory(decoding: Decoding) -> None:
    """10,000 tokens at 32 rows; libraries keep what they made for each shape, hence the same shapes again and again."""
    batch, tokens, readings = Batch(MODEL, rows=32, decoding=decoding), 0, []
    while tokens < 12_000:
        for number in range(80):
            batch.add(prompt(1 + number), Sampling(20 + number % 37, 0.9), [number])
        while batch:
            tokens += sum(growth.token is not None for growth in batch.step())
        readings.append(resident())
    assert len(readings) >= 4
    assert readings[-1] - readings[1] < 2**21


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


def test_a_compiled_step_writes_the_same() -> None:
    prompts = [Prompt(prompt(length), [[length]]) for length in (5, 30)]
    eager, compiled = (
        sorted(sample_tokens(MODEL, prompts, Sampling(30, 0.8), decoding=decoding), key=lambda sample: sample.prompt)
        for decoding in ("eager", "compiled")
    )
    assert compiled == eager
