"""The engine of transformers: for a folder of the kit, what the kit gives; for another, what plain `generate` gives."""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import tokenizers as backends
import torch
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from starcoder.errors import UserError
from starcoder.evaluation.engines.base import Completion, Request, Sampling
from starcoder.evaluation.engines.hf import TransformersEngine, open_transformers
from starcoder.evaluation.engines.kit import KitEngine, open_kit
from tests.evaluation.conftest import CODE
from tests.evaluation.engines.test_kit import GREEDY, REQUESTS, WARM, by_place

BOS, END = "<s>", "</s>"
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "max_position_embeddings": 48,
    "initializer_range": 0.5,
    "eos_token_id": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture(scope="module")
def kit(folder: Path) -> KitEngine:
    return open_kit(str(folder), device="cpu")


@pytest.fixture(scope="module")
def engine(folder: Path) -> TransformersEngine:
    return open_transformers(str(folder), device="cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer begins every text with a token, and drops the blank that begins a decoded text."""
    backend = backends.Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", BOS, END, "<fim-prefix>"])
    backend.train_from_iterator([CODE] * 9, trainer)
    backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 1)])
    path = tmp_path_factory.mktemp("llama")
    special = {"bos_token": BOS, "eos_token": END, "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(path)
    torch.manual_seed(4)
    LlamaForCausalLM(LlamaConfig(**SIZES)).save_pretrained(path)
    return path


ONE = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=1, seed=5)


@pytest.mark.parametrize("sampling", [GREEDY, WARM, ONE], ids=["greedy", "sampled", "one token"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_samples_are_those_of_the_kit(folder: Path, kit: KitEngine, sampling: Sampling, batch_size: int) -> None:
    engine = open_transformers(str(folder), device="cpu", batch_size=batch_size)
    assert by_place(engine.complete(REQUESTS, sampling)) == by_place(kit.complete(REQUESTS, sampling))


def test_reasons_are_those_of_the_kit(kit: KitEngine, engine: TransformersEngine) -> None:
    requests = [Request("p", "def add(", None, tuple(range(40)), ("a",)), Request("q", "x", None, tuple(range(20)))]
    found = by_place(engine.complete(requests, WARM))
    assert found == by_place(kit.complete(requests, WARM))
    assert {completion.finish for completion in found.values()} == {"stop", "length"}


def test_nats_and_settings_are_those_of_the_kit(kit: KitEngine, engine: TransformersEngine) -> None:
    pairs = [("", CODE * 4), ("<filename>a\n", "x):\n"), (CODE * 4, "return"), ("ab", CODE * 2), ("", ""), ("x", "é")]
    for ours, theirs in zip(kit.nats(pairs), engine.nats(pairs), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-4)
    kit.check(REQUESTS, 20, likelihood=False)
    engine.check(REQUESTS, 20, likelihood=False)
    same = ("weights", "tokenizer", "dtype", "device", "truncated_prompts")
    assert [engine.settings[name] for name in same] == [kit.settings[name] for name in same]
    assert engine.settings["truncated_prompts"] == 1


def passes(engine: TransformersEngine) -> list[tuple[int, int]]:
    """A list that is told the shapes (B, T) of the tokens that go through the engine's model."""
    shapes: list[tuple[int, int]] = []

    def note(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    engine.model.register_forward_pre_hook(note, with_kwargs=True)
    return shapes


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_prompt_goes_through_the_model_once(folder: Path, batch_size: int) -> None:
    engine = open_transformers(str(folder), device="cpu", batch_size=batch_size)
    shapes = passes(engine)
    requests = [Request(f"p{n}", "def add(" * n, None, tuple(range(7))) for n in (1, 2, 3, 5)]
    assert len(list(engine.complete(requests, WARM))) == 28
    widths = sorted((len(engine.prompt(request, 20)[0]) for request in requests), reverse=True)
    groups = [widths[start : start + batch_size] for start in range(0, 4, batch_size)]
    assert [shape for shape in shapes if shape[1] > 1] == [(len(group), group[0]) for group in groups]
    assert max(size for size, _ in shapes) <= batch_size


def test_samples_that_have_ended_leave_the_batch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_transformers(str(folder), device="cpu")
    made, whole, shapes = [], engine._completion, passes(engine)
    monkeypatch.setattr(engine, "_completion", lambda row: (made.append(len(row.ids) + 1), whole(row))[1])
    list(engine.complete([Request("p", "def add(", None, tuple(range(30)), ("a", "e", " "))], WARM))
    steps = [size for size, width in shapes if width == 1]
    assert sum(steps) <= 2 * sum(made) < 30 * max(made)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] < 30 == len(made)


def greedy_reference(folder: Path, prompt: str, new: int) -> str:
    """What transformers writes after a prompt."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    tokens = torch.tensor([tokenizer(prompt)["input_ids"]])
    out = model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=new)
    whole = tokenizer.decode([i for i in out[0].tolist() if i != 2])
    return whole[len(tokenizer.decode(tokens[0])) :]


def completed(engine: TransformersEngine, requests: Iterable[Request], new: int = 12) -> list[Completion]:
    return list(by_place(engine.complete(list(requests), Sampling(0.0, 1.0, new))).values())


def test_another_model_with_another_tokenizer(llama: Path) -> None:
    engine = open_transformers(str(llama), device="cpu")
    assert engine.context_length == 48
    prompts = ["def add", "class", "return a + b", "    def", ""]
    requests = [Request(prompt, prompt, None, (0,)) for prompt in prompts]
    texts = {completion.problem: completion.text for completion in completed(engine, requests)}
    assert texts == {prompt: greedy_reference(llama, prompt, 12) for prompt in prompts}
    assert any(text.startswith(" ") for text in texts.values())


RECURRENT = {"num_key_value_heads": 2, "conv_L_cache": 3, "layer_types": ["conv", "full_attention"]}


@pytest.mark.parametrize(
    ("kind", "config", "once"),
    [
        (MistralForCausalLM, MistralConfig(sliding_window=5, num_key_value_heads=2, **SIZES), True),
        (Lfm2ForCausalLM, Lfm2Config(**RECURRENT, **SIZES), False),
    ],
    ids=["sliding window", "recurrent"],
)
def test_models_with_other_caches(llama: Path, tmp_path: Path, kind: Any, config: Any, once: bool) -> None:
    shutil.copytree(llama, tmp_path / "model")
    torch.manual_seed(6)
    kind(config).save_pretrained(tmp_path / "model")
    requests = [Request("p", "return a + b", None, (0, 1, 2, 3)), Request("q", "class", None, (0, 1, 2))]
    found = {}
    for size in (1, 3, 32):
        engine = open_transformers(str(tmp_path / "model"), device="cpu", batch_size=size)
        shapes = passes(engine)
        found[size] = by_place(engine.complete(requests, Sampling(0.8, 0.95, 12, seed=5)))
        assert once == (sum(rows for rows, width in shapes if width > 1) == 2)
    assert found[1] == found[3] == found[32]
    texts = {completion.problem: completion.text for completion in completed(engine, requests)}
    assert texts == {r.problem: greedy_reference(tmp_path / "model", r.prompt, 12) for r in requests}


def test_a_cut_prompt_keeps_the_token_that_begins_it(llama: Path) -> None:
    engine = open_transformers(str(llama), device="cpu")
    long = Request("long", "return a + b " * 20, None, (0,))
    ids, cut = engine.prompt(long, 12)
    assert cut
    assert ids == [1, *engine.encode(long.prompt)[-(48 - 12 - 1) :]]
    (completion,) = completed(engine, [long])
    assert completion.text
    engine.check([long], 46, likelihood=False)
    with pytest.raises(UserError, match=r"max_new_tokens is 47, .* window of 48 tokens"):
        engine.check([long], 47, likelihood=False)


def test_nats_of_another_model_begin_with_its_first_token(llama: Path) -> None:
    engine = open_transformers(str(llama), device="cpu")
    text = engine.encode("return a + b")
    for context, before in (("", [1]), ("def add", [1, *engine.encode("def add")])):
        with torch.inference_mode():
            logits = engine.model(torch.tensor([before + text])).logits[0, len(before) - 1 : -1]
        expected = -logits.log_softmax(-1)[torch.arange(len(text)), torch.tensor(text)]
        assert next(engine.nats([(context, "return a + b")])) == pytest.approx(expected.tolist(), abs=1e-4)


def test_infilling_needs_all_three_sentinels(llama: Path) -> None:
    engine = open_transformers(str(llama), device="cpu")
    with pytest.raises(UserError, match=r"HumanEval/7 wants infilling, and .* has no tokens for it"):
        engine.check([Request("HumanEval/7", "a", "b", (0,))], 5, likelihood=False)


def test_santacoders_spelling_of_sentinels(folder: Path, kit: KitEngine, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "santa")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        path = tmp_path / "santa" / name
        text = path.read_text()
        for part in ("prefix", "suffix", "middle"):
            text = text.replace(f"<fim_{part}>", f"<fim-{part}>")
        path.write_text(text)
    engine = open_transformers(str(tmp_path / "santa"), device="cpu")
    gaps = [Request("gap", "return <fim-suffix> <fim_suffix>", " b<fim-middle>", (0, 1))]
    assert engine.prompt(gaps[0], 9)[0].count(engine.sentinels[1]) == 1
    assert engine.prompt(gaps[0], 9) == kit.prompt(gaps[0], 9)
    assert by_place(engine.complete(gaps, WARM)) == by_place(kit.complete(gaps, WARM))


def test_the_repositorys_own_generation_settings_do_not_count(
    folder: Path, engine: TransformersEngine, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    own = {"repetition_penalty": 9.0, "do_sample": True, "temperature": 3.0, "top_k": 5, "max_new_tokens": 3}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]} | own))
    other = open_transformers(str(tmp_path / "model"), device="cpu")
    assert other.eos == [0, 7]
    other.eos = [0]
    assert by_place(other.complete(REQUESTS, WARM)) == by_place(engine.complete(REQUESTS, WARM))


def test_what_transformers_cannot_load(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{")
    for source in (tmp_path, tmp_path / "model"):
        with pytest.raises(UserError, match=f"transformers cannot load {source}: .") as error:
            open_transformers(str(source), device="cpu")
        assert "\n" not in str(error.value)


def test_int8_is_the_kits_own(folder: Path) -> None:
    with pytest.raises(UserError, match="int8 is this kit's own"):
        open_transformers(str(folder), device="cpu", dtype="int8")
