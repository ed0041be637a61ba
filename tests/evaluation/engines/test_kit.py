"""The kit's engine: independence of samples, prompts that do not fit, likelihoods against one token at a time."""

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.evaluation.engines import open_engine
from starcoder.evaluation.engines.base import Completion, Request, Sampling
from starcoder.evaluation.engines.kit import KitEngine, open_kit
from starcoder.evaluation.engines.local import weights_digest
from starcoder.generation import generate, infill
from starcoder.model import StarCoder
from starcoder.quantization import impossible
from starcoder.storage import sha256
from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from tests.evaluation.conftest import CODE, CONFIG

REQUESTS = [
    Request("plain", "def add(", None, (0, 1, 2, 3), ("\n\n",)),
    Request("sentinel", "<filename>a.py\nclass é", None, (0,)),
    Request("gap", "return a <fim_suffix>", "\n<|endoftext|>", (2, 5), ("e", "é")),
    Request("empty", "", None, (0, 1)),
    Request("long", "return a + b\n" * 30, None, (1,)),
]
WARM = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=20, seed=5)
GREEDY = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=20)


@pytest.fixture(scope="module")
def engine(folder: Path) -> KitEngine:
    return open_kit(str(folder), device="cpu")


def by_place(completions: Any) -> dict[tuple[str, int], Completion]:
    found = {(completion.problem, completion.sample): completion for completion in completions}
    assert len(found) > 0
    return found


def test_greedy_completions_are_those_of_generate(engine: KitEngine) -> None:
    options = {"max_new_tokens": 20}
    found = by_place(engine.complete(REQUESTS, GREEDY))
    plain = generate(engine.model, engine.tokenizer, ["def add("], stop=["\n\n"], **options)
    sentinel = generate(engine.model, engine.tokenizer, ["<filename>a.py\nclass é"], **options)
    gap = infill(
        engine.model, engine.tokenizer, [("return a <fim_suffix>", "\n<|endoftext|>")], stop=["e", "é"], **options
    )
    assert [found["plain", n].text for n in range(4)] == plain * 4
    assert found["sentinel", 0].text == sentinel[0]
    assert found["gap", 5].text == gap[0]


def test_a_sample_depends_on_seed_problem_and_number_alone(folder: Path, engine: KitEngine) -> None:
    together = by_place(engine.complete(REQUESTS, WARM))
    wanted = {(request.problem, sample) for request in REQUESTS for sample in request.samples}
    assert together.keys() == wanted
    for batch_size in (1, 3):
        assert by_place(open_kit(str(folder), device="cpu", batch_size=batch_size).complete(REQUESTS, WARM)) == together
    late = [Request("plain", "def add(", None, (3,), ("\n\n",))]
    assert by_place(engine.complete(late, WARM)) == {("plain", 3): together["plain", 3]}
    other = by_place(engine.complete([Request("another", "def add(", None, (3,), ("\n\n",))], WARM))
    texts = {together["plain", n].text for n in range(4)} | {other["another", 3].text}
    assert len(texts) == 5


def test_stop_strings_are_cut_and_named_as_the_reason(engine: KitEngine) -> None:
    request = Request("p", "def add(", None, tuple(range(40)))
    whole = by_place(engine.complete([request], WARM))
    assert {completion.finish for completion in whole.values()} == {"stop", "length"}
    stopped = by_place(engine.complete([Request("p", "def add(", None, request.samples, ("a",))], WARM))
    for key, completion in whole.items():
        text, mark, _ = completion.text.partition("a")
        assert stopped[key].text == text
        assert stopped[key].finish == ("stop" if mark else completion.finish)


def seen(engine: KitEngine, requests: list[Request], max_new_tokens: int) -> list[list[int]]:
    return [engine.prompt(request, max_new_tokens)[0] for request in requests]


def test_prompts_that_do_not_fit_lose_what_is_farthest_from_the_gap(engine: KitEngine) -> None:
    encode, new = engine.tokenizer.encode, 20
    room = CONFIG.context_length - new
    long, short = encode("return a + b\n" * 30), encode("class ")
    requests = [
        Request("0", "return a + b\n" * 30, None, (0,)),
        Request("1", "class ", None, (0,)),
        Request("2", "return a + b\n" * 30, "class ", (0,)),
        Request("3", "class ", "return a + b\n" * 30, (0,)),
        Request("4", "return a + b\n" * 30, "return a + b\n" * 30, (0,)),
        Request("5", "class ", "class ", (0,)),
    ]
    engine.check(requests, new, likelihood=False)
    assert engine.settings["truncated_prompts"] == 4
    half = (room - 3) // 2
    rest = room - 3 - len(short)
    assert seen(engine, requests, new) == [
        long[-room:],
        short,
        [FIM_PREFIX, *long[-rest:], FIM_SUFFIX, *short, FIM_MIDDLE],
        [FIM_PREFIX, *short, FIM_SUFFIX, *long[:rest], FIM_MIDDLE],
        [FIM_PREFIX, *long[-(room - 3 - half) :], FIM_SUFFIX, *long[:half], FIM_MIDDLE],
        [FIM_PREFIX, *short, FIM_SUFFIX, *short, FIM_MIDDLE],
    ]


def test_contexts_that_do_not_fit_are_counted(engine: KitEngine) -> None:
    """As for prompts: with a context of the window's size and one token more to predict, all of it is read."""
    encode, context = engine.tokenizer.encode, "return a + b\n" * 30
    text = "".join(engine.tokenizer.decode(encode(context)[-CONFIG.context_length :]))
    fits = len(encode(text)) == CONFIG.context_length
    assert fits
    pairs = [(context, "x"), (text, "x"), (text, "xx x"), ("", context), ("ab", context), ("ab", "x")]
    requests = [Request(str(n), before, None, (0,), reference=after) for n, (before, after) in enumerate(pairs)]
    cut = []
    for request in requests:
        engine.check([request], 0, likelihood=True)
        cut.append(engine.settings["truncated_prompts"])
    assert cut == [1, 0, 1, 0, 1, 0]
    engine.check(requests, 0, likelihood=True)
    assert engine.settings["truncated_prompts"] == 3


@pytest.mark.parametrize(("suffix", "largest"), [(None, 63), ("", 61)])
def test_completions_must_leave_room_for_a_prompt(engine: KitEngine, suffix: str | None, largest: int) -> None:
    requests = [Request("HumanEval/7", "def f(" * 99, suffix, (0,))]
    engine.check(requests, largest, likelihood=False)
    (completion,) = engine.complete(requests, Sampling(0.0, 1.0, largest))
    assert completion.text
    with pytest.raises(UserError, match=f"max_new_tokens is {largest + 1}, .* HumanEval/7 .* window of 64 tokens"):
        engine.check(requests, largest + 1, likelihood=False)


def test_a_prompt_that_cannot_be_encoded_is_named(engine: KitEngine) -> None:
    with pytest.raises(UserError, match=r"HumanEval/7: .*U\+D800"):
        engine.check([Request("HumanEval/7", "a\ud800", None, (0,))], 9, likelihood=False)


def nats_one_by_one(model: StarCoder, context: list[int], text: list[int]) -> list[float]:
    """The definition: number i comes from the first window, and past it from the half window that reaches it first."""
    width = model.config.context_length
    ids = context[-max(1, width + 1 - len(text)) :] + text
    nats = []
    for place in range(len(ids) - len(text), len(ids)):
        window = max(0, -(-(place - width) // (width // 2)))  # the first whose inputs reach to place - 1
        before = ids[window * (width // 2) : place]
        with torch.inference_mode():
            logits = model.double()(torch.tensor([before]))[0, -1]
        nats.append(-logits.log_softmax(-1)[ids[place]].item())
    return nats


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_nats_are_those_of_one_token_at_a_time(folder: Path, engine: KitEngine, batch_size: int) -> None:
    encode = engine.tokenizer.encode
    pairs = [("", CODE * 4), ("def f(", "x):\n"), (CODE * 4, "return"), ("ab", CODE * 2), ("", ""), ("x", "é")]
    definition = StarCoder.from_pretrained(folder)
    expected = [nats_one_by_one(definition, encode(context) or [EOD], encode(text)) for context, text in pairs]
    assert len(expected[0]) > 2.5 * CONFIG.context_length
    found = list(open_kit(str(folder), device="cpu", batch_size=batch_size).nats(pairs))
    assert [len(nats) for nats in found] == [len(nats) for nats in expected]
    assert list(chain(*found)) == pytest.approx(list(chain(*expected)), abs=1e-4)


@settings(max_examples=100)
@given(st.integers(0, 30), st.integers(0, 60), st.integers(1, 12))
def test_windows_predict_every_token_once(n_context: int, n_text: int, width: int) -> None:
    class Numbers(KitEngine):
        """The tokens of a text are its characters, those of a context the numbers below 0."""

        def __init__(self) -> None:
            pass

        def encode(self, text: str) -> list[int]:
            return list(range(1, len(text) + 1))

        def encode_prompt(self, text: str) -> list[int]:
            return list(range(-len(text), 0))

    windows = Numbers()._windows("c" * n_context, "t" * n_text, width)
    predicted = [ids[len(ids) - n :] for ids, n in windows]
    assert list(chain(*predicted)) == list(range(1, n_text + 1))
    assert all(1 <= n < len(ids) <= width + 1 for ids, n in windows)
    if windows:
        first, n = windows[0]
        assert len(first) == min(max(1, n_context) + n_text, width + 1)
        assert n == min(n_text, width)
    assert all(len(ids) - n > (width - 1) // 2 for ids, n in windows[1:])


def test_the_logits_behind_nats_are_fp32_products(folder: Path) -> None:
    engine = open_kit(str(folder), device="cpu", dtype="bfloat16")
    tokens = torch.arange(30, 60).unsqueeze(0)  # (1, T+1)
    with torch.inference_mode():
        hidden = engine.model.hidden(tokens[:, :-1])[0].double()
        logits = hidden @ engine.model.transformer.wte.weight.double().t()
        expected = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
        with torch.autocast("cpu", torch.bfloat16):
            found: Tensor = engine.token_nats(tokens)[0]
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.skipif(impossible() is not None, reason=str(impossible()))
def test_int8_is_nearly_the_same(folder: Path, engine: KitEngine) -> None:
    quick = open_kit(str(folder), device="cpu", dtype="int8")
    assert quick.settings["dtype"] == "int8"
    assert quick.settings["weights"] == engine.settings["weights"]
    (exact,), (nearly,) = (list(each.nats([("", CODE)])) for each in (engine, quick))
    assert 0 < abs(sum(nearly) - sum(exact)) / sum(exact) < 0.01


def test_a_model_in_training_stays_so(engine: KitEngine) -> None:
    model = StarCoder(CONFIG.replace(dropout=0.5), seed=3).train()
    training = KitEngine(model, engine.tokenizer, "callback")
    pairs = [("", CODE)]
    assert list(training.nats(pairs)) == list(engine.nats(pairs))
    assert list(training.complete(REQUESTS, WARM)) == list(engine.complete(REQUESTS, WARM))
    assert model.training


def test_settings_tell_weights_apart_and_not_their_precision(folder: Path, engine: KitEngine) -> None:
    assert open_kit(str(folder), device="cpu", dtype="bfloat16").settings["weights"] == engine.settings["weights"]
    assert engine.settings["dtype"] == "float32"
    assert engine.settings["device"] == "cpu"
    changed = StarCoder.from_pretrained(folder)
    with torch.no_grad():
        changed.transformer.h[1].mlp.c_fc.bias += 0.01
    assert weights_digest(changed) != engine.settings["weights"]


def test_a_training_checkpoint_is_a_model_too(folder: Path, engine: KitEngine, tmp_path: Path) -> None:
    step = tmp_path / "checkpoints" / "step-00000001"
    model = StarCoder.from_pretrained(folder)
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    dcp.save({"state_dict": state}, checkpoint_id=step, no_dist=True)
    torch.save({"model_config": asdict(model.config)}, step / "meta.pt")
    (step / "complete").write_text(sha256(step / ".metadata"))
    with pytest.raises(UserError, match="training checkpoint, which has no tokenizer: name its folder"):
        open_kit(str(step), device="cpu")
    for source in (step, step.parent):
        trained = open_kit(str(source), folder, device="cpu")
        assert list(trained.complete(REQUESTS, WARM)) == list(engine.complete(REQUESTS, WARM))
        assert trained.settings["weights"] == engine.settings["weights"]


@pytest.mark.parametrize(
    ("kind", "options", "part"),
    [
        ("vllm", {}, "no engine 'vllm'; there are kit, transformers, endpoint"),
        ("kit", {"base_url": "http://x", "concurrency": 3}, "kit takes no base_url, concurrency, only tokenizer,"),
        ("kit", {"batch_size": 0}, "batch_size is 0"),
        ("transformers", {"batch_size": 0}, "batch_size is 0"),
        ("kit", {"device": "abacus"}, "no device abacus here"),
        ("kit", {"device": "cuda:99"}, "no device cuda:99 here"),
        ("endpoint", {"device": None}, "endpoint needs base_url"),
    ],
)
def test_engines_that_cannot_be_opened(folder: Path, kind: str, options: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as error:
        open_engine(str(folder), kind, **options)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_model_of_this_kit(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        open_kit(str(tmp_path), device="cpu")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match=r"gpt2.*; the engine transformers takes other causal models"):
        open_kit(str(tmp_path), device="cpu")
    tokenizers.train([CODE] * 9, vocab_size=311).save(tmp_path / "large")
    with pytest.raises(UserError, match="the tokenizer has 311 tokens, the model only 310"):
        open_kit(str(folder), tmp_path / "large", device="cpu")
