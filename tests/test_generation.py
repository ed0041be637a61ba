"""Generation against transformers' `generate`, and its own promises: stops, nuclei, independence of the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from starcoder import decoding
from starcoder import tokenizer as tokenizers
from starcoder.cli import main
from starcoder.errors import UserError
from starcoder.generation import (
    Prompt,
    Sample,
    _placed,
    ends_with,
    frame,
    generate,
    generate_tokens,
    infill,
    sample_tokens,
)
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.folder import save, to_transformers
from starcoder.sampling import Logprob, Sampling, choose
from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX

SHARP = StarCoderConfig(
    vocab_size=50, context_length=96, n_layer=2, n_head=4, n_embd=32, n_inner=56, dropout=0.0, init_std=0.4
)
CODE = "def add(a, b):\n    return a + b\n\n\nclass Adder:\n    def __call__(self, a, b): return add(a, b)\n"
TOKENIZER = tokenizers.train([CODE] * 9, vocab_size=300)


@pytest.fixture(scope="module")
def sharp() -> StarCoder:
    """A model with random weights, large enough that its likeliest token is no close call."""
    return StarCoder(SHARP, seed=2)


def random_prompts(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(sum(lengths))
    return [torch.randint(1, SHARP.vocab_size, (length,), generator=generator).tolist() for length in lengths]


def reciter(script: list[int], vocab_size: int = TOKENIZER.vocab_size, context_length: int = 200) -> StarCoder:
    """A model that goes on with script[p] after the token at position p, whatever the tokens are."""
    config = StarCoderConfig(vocab_size, context_length, n_layer=1, n_head=1, n_embd=vocab_size, n_inner=1, dropout=0.0)
    model = StarCoder(config)
    with torch.no_grad():
        for parameter in model.transformer.h.parameters():
            parameter.zero_()
        model.transformer.wte.weight.copy_(torch.eye(vocab_size))
        model.transformer.wpe.weight.zero_()
        model.transformer.wpe.weight[torch.arange(len(script)), torch.tensor(script, dtype=torch.long)] = 9.0
    return model


def recite(text: str, **sampling: Any) -> str:
    """What a model that would write `text` and `<|endoftext|>` after a one-token prompt is heard to say."""
    return generate(reciter([*TOKENIZER.encode(text), EOD]), TOKENIZER, [""], **{"max_new_tokens": 200, **sampling})[0]


@pytest.mark.parametrize("lengths", [(1,), (7,), (40,), (5, 1, 30, 12, 5)])
def test_greedy_output_equals_transformers(sharp: StarCoder, lengths: tuple[int, ...]) -> None:
    theirs = GPTBigCodeForCausalLM(GPTBigCodeConfig(**to_transformers(SHARP))).eval()
    theirs.load_state_dict(sharp.state_dict(), strict=False)
    prompts = random_prompts(*lengths)
    width = max(lengths)
    padded = torch.tensor([[EOD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    out = theirs.generate(padded, attention_mask=mask, max_new_tokens=50, do_sample=False, pad_token_id=EOD)
    expected = [row[: row.index(EOD)] if EOD in row else row for row in out[:, width:].tolist()]
    assert generate_tokens(sharp, prompts, Sampling(max_new_tokens=50)) == expected
    assert [generate_tokens(sharp, [prompt], Sampling(max_new_tokens=50))[0] for prompt in prompts] == expected


def test_greedy_output_equals_recomputing_everything_at_every_step(sharp: StarCoder) -> None:
    prompts = random_prompts(*range(1, 24))
    expected = []
    with torch.inference_mode():
        for prompt in prompts:
            sequence = list(prompt)
            while len(sequence) < len(prompt) + 30:
                token = int(sharp(torch.tensor([sequence]))[0, -1].argmax())
                if token == EOD:
                    break
                sequence.append(token)
            expected.append(sequence[len(prompt) :])
    assert {len(completion) for completion in expected} > {30}  # some end early, some do not
    assert generate_tokens(sharp, prompts, Sampling(max_new_tokens=30)) == expected


def test_what_has_ended_costs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reciter([3, 4, 5, EOD, 6, EOD])  # a prompt of n tokens is followed by script[n - 1:]
    sizes: list[tuple[int, ...]] = []
    hidden = model.hidden

    def spy(tokens: Tensor, cache: Any = None) -> Tensor:
        sizes.append(tuple(tokens.shape))
        return hidden(tokens, cache)

    monkeypatch.setattr(model, "hidden", spy)
    prompts = [[9], [9, 9], [9, 9, 9, 9], [9, 9, 9, 9, 9]]
    assert generate_tokens(model, prompts, Sampling()) == [[3, 4, 5], [4, 5], [], [6]]
    assert sizes == [(4, 5), (3, 1), (2, 1), (1, 1)]


def cut(text: str, stop: list[str]) -> str:
    """Read `text` character by character until it ends in a stop string, the longest if there are several."""
    for end in range(len(text) + 1):
        marks = [mark for mark in stop if text[:end].endswith(mark)]
        if marks:
            return text[: end - max(map(len, marks))]
    return text


@settings(max_examples=60)
@given(st.data())
def test_text_is_cut_before_the_first_stop_string(data: st.DataObject) -> None:
    text = data.draw(st.one_of(st.just(CODE), st.text("ab\n é🙂", max_size=30)))
    stop = data.draw(st.lists(st.text("ab\n é🙂", min_size=1, max_size=4), max_size=3))
    if text and data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(text) - 1))
        stop.append(text[start : start + data.draw(st.integers(1, 12))])
    assert recite(text, stop=stop) == cut(text, stop)


@pytest.mark.parametrize(("text", "stop"), [(CODE, "urn a + b\n\n\ncl"), ("b = 'a🙂b'" * 5, "🙂")])
def test_a_stop_string_ends_the_work(monkeypatch: pytest.MonkeyPatch, text: str, stop: str) -> None:
    """One that is spread over several tokens, and of which a token may be only a part."""
    ids = TOKENIZER.encode(text)
    assert all(stop not in TOKENIZER.decode([i]) for i in ids)
    model = reciter(ids)
    calls: list[int] = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda *args: calls.append(1) or hidden(*args))
    assert generate(model, TOKENIZER, [""], max_new_tokens=100, stop=[stop]) == [text[: text.index(stop)]]
    assert len(calls) == next(n for n in range(len(ids)) if stop in TOKENIZER.decode(ids[:n]))


def test_a_stop_string_is_no_part_of_a_character() -> None:
    """Half a character looks like U+FFFD: as a stop string it would end at every one that takes two tokens."""
    with pytest.raises(UserError, match="a stop text holds U\\+FFFD"):
        recite("a🙂b", stop=["a", "b\ufffd"])
    with pytest.raises(UserError, match="a stop text holds U\\+FFFD"):
        ends_with(TOKENIZER.decode, ["\ufffd"])


def test_logits_that_are_not_finite_are_told() -> None:
    model = reciter([7] * 20, context_length=20)
    with torch.no_grad():
        model.transformer.wpe.weight[5] = torch.inf
    assert generate_tokens(model, [[3]], Sampling(5)) == [[7] * 5]
    for temperature in (0.0, 1.0):
        with pytest.raises(UserError, match="the model's logits are not finite"):
            generate_tokens(model, [[3]], Sampling(6, temperature))


@given(st.integers(0, 9), st.integers(0, 9), st.none() | st.integers(0, 20))
def test_a_frame_keeps_what_is_nearest_to_the_gap(before: int, after: int, room: int | None) -> None:
    prefix, suffix = list(range(before)), list(range(100, 100 + after))
    left, right = frame(prefix, suffix, room)
    assert left == prefix[len(prefix) - len(left) :]
    assert right == suffix[: len(right)]
    assert len(left) + len(right) == min(before + after, before + after if room is None else room)
    if room is not None and before + after > room:  # a short one is whole, else both have about half
        assert abs(len(left) - len(right)) <= 1 or left == prefix or right == suffix
        assert len(left) >= min(before, room // 2)
        assert len(right) >= min(after, room // 2)


def test_only_new_tokens_count() -> None:
    ids = TOKENIZER.encode(CODE)
    assert recite(CODE, max_new_tokens=5) == TOKENIZER.decode(ids[:5])
    assert recite(CODE, max_new_tokens=0) == ""
    prompts = random_prompts(3, 11)
    assert generate_tokens(reciter(ids), prompts, Sampling(max_new_tokens=4)) == [ids[2:6], ids[10:14]]


def test_generation_stops_where_the_context_is_full() -> None:
    model = reciter([7] * 20, context_length=20)
    assert generate_tokens(model, random_prompts(1, 17, 20), Sampling(max_new_tokens=50)) == [[7] * 19, [7] * 3, []]


def test_nothing_to_do(sharp: StarCoder) -> None:
    assert generate(reciter([5]), TOKENIZER, [], max_new_tokens=5) == []
    assert generate_tokens(sharp, random_prompts(3, 5), Sampling(max_new_tokens=0)) == [[], []]


def test_an_empty_prompt_begins_a_document(sharp: StarCoder) -> None:
    empty, after_end = generate_tokens(sharp, [[], [EOD]], Sampling(max_new_tokens=20))
    assert empty == after_end != []


def nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """The distribution that nucleus sampling draws from, token by token."""
    left = (logits / temperature).softmax(-1).tolist()
    kept = [0.0] * len(left)
    while sum(kept) < top_p and sum(kept) < 1 - 1e-6:
        best = max(range(len(left)), key=left.__getitem__)
        kept[best], left[best] = left[best], 0.0
    return torch.tensor(kept) / sum(kept)


@pytest.mark.parametrize(("temperature", "top_p"), [(3.0, 1.0), (3.0, 0.7), (8.0, 0.9), (1.5, 0.95), (3.0, 1e-6)])
def test_samples_follow_the_nucleus(sharp: StarCoder, temperature: float, top_p: float) -> None:
    prompt, n = random_prompts(8)[0], 4000
    with torch.inference_mode():
        expected = nucleus(sharp(torch.tensor([prompt]))[0, -1], temperature, top_p)
    sampling = Sampling(1, temperature, top_p, batch_size=1000)
    drawn = [ids[0] if ids else EOD for ids in generate_tokens(sharp, [prompt] * n, sampling)]
    frequency = torch.bincount(torch.tensor(drawn), minlength=len(expected)) / n
    assert not frequency[expected == 0].any()
    deviation = (expected * (1 - expected) / n).sqrt()
    assert ((frequency - expected).abs() <= 4.5 * deviation + 1e-6).all()


class Fixed:
    """A generator of one number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.mark.parametrize(("number", "chosen"), [(0.0, 2), (0.49, 2), (0.51, 0), (0.99, 0), (1 - 2**-53, 0)])
def test_extreme_random_numbers_stay_in_the_nucleus(number: float, chosen: int) -> None:
    logits = torch.tensor([[0.4, 0.1, 0.4001, 0.1, 0.0]]).log()
    assert choose(logits, Sampling(temperature=1.0, top_p=0.8), [Fixed(number)]).tolist() == [chosen]


def test_samples_depend_on_the_seed_and_not_on_the_batch(sharp: StarCoder) -> None:
    prompts = random_prompts(5, 1, 30, 12, 5, 7, 7)
    prompts.append(prompts[0])

    def sample(**options: Any) -> list[list[int]]:
        return generate_tokens(sharp, prompts, Sampling(20, temperature=3.0, top_p=0.9, **options))

    together = sample(seed=1)
    assert together == sample(seed=1)
    assert together == sample(seed=1, batch_size=3)
    assert together == sample(seed=1, batch_size=1)
    assert together[0] != together[-1]  # the same prompt at another place in the list
    assert all(a != b for a, b in zip(together, sample(seed=2), strict=True) if len(a) > 3)


def sampled(model: StarCoder, counts: list[int], **options: Any) -> list[Sample]:
    """Seven prompts of different lengths with `counts` samples, in the order of prompts and samples."""
    prompts = random_prompts(5, 1, 30, 12, 0, 7, 90)[: len(counts)]
    wanted = [
        Prompt(ids, [[7, place, key] for key in range(n)])
        for place, (ids, n) in enumerate(zip(prompts, counts, strict=True))
    ]
    samples = sample_tokens(model, wanted, Sampling(20, temperature=0.8, top_p=0.95, **options))
    return sorted(samples, key=lambda sample: (sample.prompt, sample.sample))


@pytest.mark.parametrize("n", range(1, 8))
def test_samples_depend_on_their_keys_and_not_on_the_batch(sharp: StarCoder, n: int) -> None:
    counts = [n, 1, n, 0, 2, n, 3]
    alone = sampled(sharp, counts, batch_size=1)
    assert [(sample.prompt, sample.sample) for sample in alone] == [
        (prompt, sample) for prompt, count in enumerate(counts) for sample in range(count)
    ]
    assert sampled(sharp, counts, batch_size=3) == sampled(sharp, counts, batch_size=32) == alone
    most = [sample for sample in sampled(sharp, [7] * 7) if sample.sample < counts[sample.prompt]]
    assert most == alone  # the first samples do not depend on how many there are
    if n > 1:
        assert alone[0].ids != alone[1].ids


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_prompt_goes_through_the_model_once(
    monkeypatch: pytest.MonkeyPatch, sharp: StarCoder, batch_size: int
) -> None:
    prefilled: list[int] = []
    widths: list[int] = []
    hidden = sharp.hidden

    def spy(tokens: Tensor, cache: Any) -> Tensor:
        if not any(cache.lengths):
            prefilled.extend((tokens != 0).sum(dim=1).tolist())
        widths.append(len(tokens))
        return hidden(tokens, cache)

    monkeypatch.setattr(sharp, "hidden", spy)
    assert len(sampled(sharp, [7, 5, 7, 6, 7, 7, 7], batch_size=batch_size)) == 46
    assert sorted(prefilled) == [0, 1, 5, 7, 12, 30, 90]  # the empty prompt is one EOD, whose id is 0
    assert max(widths) <= batch_size


def test_samples_come_as_they_end_and_say_why() -> None:
    model = reciter([3, 4, 5, EOD, 6, 7, 8, 9, EOD], context_length=9)
    prompts = [Prompt([9] * n, [[0]]) for n in (1, 5, 9)] + [Prompt([9, 9], [[0], [1]], lambda ids: 5 in ids)]
    samples = sample_tokens(model, prompts, Sampling(4))
    assert next(samples) == Sample(2, 0, [], "length")  # its prompt fills the context
    assert not torch.is_inference_mode_enabled()
    assert [(sample.prompt, sample.sample, sample.ids, sample.finish) for sample in samples] == [
        (3, 0, [4, 5], "stop"),
        (3, 1, [4, 5], "stop"),
        (1, 0, [6, 7, 8, 9], "length"),
        (0, 0, [3, 4, 5], "stop"),
    ]


def test_the_probabilities_of_what_was_written_are_the_models_own(sharp: StarCoder) -> None:
    """Before temperature and nucleus, as a pass over the whole text tells them, and only where they are asked for."""
    wanted = [Prompt(ids, [[0], [1]], logprobs=place != 1) for place, ids in enumerate(random_prompts(5, 7, 30))]
    for sample in sample_tokens(sharp, wanted, Sampling(20, temperature=0.7, top_p=0.9)):
        whole = torch.tensor([[*wanted[sample.prompt].ids, *sample.ids]])
        with torch.inference_mode():
            every = sharp(whole)[0, :-1].log_softmax(-1).gather(1, whole[0, 1:, None])[:, 0]
        expected = every[len(whole[0]) - len(sample.ids) - 1 :].tolist() if sample.prompt != 1 else []
        assert [told.token for told in sample.logprobs] == (sample.ids if expected else [])
        assert [told.logprob for told in sample.logprobs] == pytest.approx(expected, abs=1e-4)


def test_each_token_has_its_place_in_the_text() -> None:
    text = "a é\U0001f600b"
    ids = TOKENIZER.encode(text)[:-1]
    spelled = [TOKENIZER.decode([token], errors="surrogateescape").encode(errors="surrogateescape") for token in ids]
    assert [len(each) for each in spelled] == [1] * 8  # of é two tokens, of the emoji four
    told = [Logprob(token, -float(place), []) for place, token in enumerate(ids)]
    placed = _placed(TOKENIZER, Sample(0, 0, ids, "stop", told))
    assert placed == list(zip([0, 1, 2, 2, 3, 3, 3, 3], [-place for place in range(8)], strict=True))
    assert _placed(TOKENIZER, Sample(0, 0, [], "stop")) == []


def test_giving_up_leaves_the_model_as_it_was() -> None:
    model = StarCoder(SHARP, seed=2).train()
    samples = sample_tokens(model, [Prompt([3], [[0], [1]])], Sampling(5, batch_size=1))
    next(samples)
    samples.close()  # type: ignore[attr-defined]
    assert model.training


def test_the_model_is_left_as_it_was(sharp: StarCoder) -> None:
    model = StarCoder(SHARP.replace(dropout=0.5), seed=2).train()
    sampling = Sampling(max_new_tokens=10)
    assert generate_tokens(model, random_prompts(9), sampling) == generate_tokens(sharp, random_prompts(9), sampling)
    assert model.training
    model.loss(torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long)).backward()


def spied_prompts(monkeypatch: pytest.MonkeyPatch, model: StarCoder) -> list[list[int]]:
    """The rows of the first tensor that `model` sees."""
    rows: list[list[int]] = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda tokens, cache: rows.extend(tokens.tolist()) or hidden(tokens, cache))
    return rows


def test_infilling_frames_plain_text_by_sentinels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reciter([5] * 150)
    rows = spied_prompts(monkeypatch, model)
    prefix, suffix = "return <fim_suffix>", "<|endoftext|> + b\n"
    assert len(infill(model, TOKENIZER, [(prefix, suffix), ("", "")], max_new_tokens=1)) == 2
    first, second = (
        [FIM_PREFIX, *TOKENIZER.encode(before), FIM_SUFFIX, *TOKENIZER.encode(after), FIM_MIDDLE]
        for before, after in ((prefix, suffix), ("", ""))
    )
    assert rows == [first, second + [EOD] * (len(first) - 3)]
    assert first.count(FIM_SUFFIX) == 1
    assert EOD not in first


def test_a_prompt_may_spell_sentinels(monkeypatch: pytest.MonkeyPatch) -> None:
    model = reciter([5] * 150)
    rows = spied_prompts(monkeypatch, model)
    generate(model, TOKENIZER, ["<filename>a.py\ndef"], max_new_tokens=1)
    assert rows == [TOKENIZER.encode_prompt("<filename>a.py\ndef")]
    assert rows[0][0] == tokenizers.Sentinel.FILENAME


def test_infilling_ends_at_the_end_of_document_and_at_stop_strings() -> None:
    gaps = [("a = ", "\n"), ("xyz = ", "\n" * 9)]
    script = [EOD] * 150
    lengths = [len(TOKENIZER.encode(a)) + len(TOKENIZER.encode(b)) + 3 for a, b in gaps]
    for length in lengths:
        script[length - 1 : length + 3] = [*TOKENIZER.encode("b\n;"), EOD][:4]
    assert infill(reciter(script), TOKENIZER, gaps) == ["b\n;", "b\n;"]
    assert infill(reciter(script), TOKENIZER, gaps, stop=["\n"]) == ["b", "b"]


def test_ids_that_the_tokenizer_does_not_know_are_never_chosen() -> None:
    wide = reciter([TOKENIZER.vocab_size + 3] * 9, vocab_size=TOKENIZER.vocab_size + 10)
    assert generate_tokens(wide, [[5]], Sampling(2)) == [[TOKENIZER.vocab_size + 3] * 2]
    for temperature in (0.0, 1.0):
        generate(wide, TOKENIZER, ["def"], max_new_tokens=8, temperature=temperature)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"stop": ["a", ""]}, "stop is"),
        ({"stop": "ab"}, "stop is"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"temperature": -1.0, "top_p": 2.0}, "temperature is -1.0, outside [0, ∞); top_p is 2.0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as error:
        recite("a", **options)
    assert part in str(error.value)


def test_prompts_that_do_not_fit(sharp: StarCoder) -> None:
    with pytest.raises(UserError, match="prompt 1 has 97 tokens, the model's context only 96"):
        generate_tokens(sharp, random_prompts(3, 97), Sampling())
    with pytest.raises(UserError, match="prompt 0 holds a token id outside"):
        generate_tokens(sharp, [[1, 50]], Sampling())
    with pytest.raises(UserError, match="the tokenizer has 300 tokens, the model only 50"):
        generate(sharp, TOKENIZER, ["a"])


def test_the_subcommand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    model = StarCoder(SHARP.replace(vocab_size=TOKENIZER.vocab_size))
    save(model, tmp_path / "model", TOKENIZER)
    arguments = ["generate", "--model", str(tmp_path / "model"), "--prompt", "def add(", "--max_new_tokens", "9"]
    main([*arguments, "--temperature", "0"])
    assert capsys.readouterr().out == generate(model, TOKENIZER, ["def add("], max_new_tokens=9)[0] + "\n"
    ways: list[str] = []
    static = decoding.Static
    monkeypatch.setattr(
        "starcoder.batch.Static", lambda model, compiled: ways.append("graph") or static(model, compiled)
    )
    main([*arguments, "--temperature", "0"])
    assert ways == []
    main([*arguments, "--temperature", "0", "--decoding", "graph"])
    assert ways == ["graph"]
    assert len({*capsys.readouterr().out.splitlines()}) == 1
    main([*arguments, "--suffix", "):\n", "--seed", "3"])
    middle = infill(model, TOKENIZER, [("def add(", "):\n")], max_new_tokens=9, temperature=0.2, top_p=0.95, seed=3)
    assert capsys.readouterr().out == middle[0] + "\n"
    for bad in (["--top_p", "2"], ["--model", str(tmp_path)], ["--prompt", "x" * 300]):
        with pytest.raises(SystemExit) as exit_:
            main([*arguments, *bad])
        assert exit_.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
