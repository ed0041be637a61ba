"""Folders go both ways between this kit and transformers; a damaged one is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, GPTBigCodeConfig, GPTBigCodeForCausalLM

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import folder as folders
from starcoder.release.folder import from_transformers, read_config, save, to_transformers

SMALL = StarCoderConfig(
    vocab_size=97, context_length=40, n_layer=3, n_head=4, n_embd=32, n_inner=56, dropout=0.0, init_std=0.1
)
TOKENS = torch.arange(74).view(2, 37) % 97
RELEASED = Path(__file__).parents[2] / "../shared/data/starcoder-tokenizer"


def model(**changes: Any) -> StarCoder:
    """A model whose biases and layer norms matter too."""
    result = StarCoder(SMALL.replace(**changes), seed=1).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return result


def their_logits(theirs: Any) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = theirs.eval()(TOKENS).logits
        return logits


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("n_inner", [None, 56])
def test_transformers_loads_our_folder(tmp_path: Path, activation: str, n_inner: int | None) -> None:
    ours = model(activation=activation, n_inner=n_inner)
    ours.save_pretrained(tmp_path / "model")
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert isinstance(theirs, GPTBigCodeForCausalLM)
    assert not any(report.values()), report
    assert theirs.config.activation_function == activation
    assert theirs.generation_config.eos_token_id == 0
    torch.testing.assert_close(their_logits(theirs), ours(TOKENS), atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("n_inner", [None, 56])
def test_we_load_the_folder_of_transformers(tmp_path: Path, activation: str, n_inner: int | None) -> None:
    config = to_transformers(SMALL.replace(activation=activation)) | {"n_inner": n_inner}
    theirs = GPTBigCodeForCausalLM(GPTBigCodeConfig(**config))
    theirs.save_pretrained(tmp_path)
    ours = StarCoder.from_pretrained(tmp_path).eval()
    assert ours.config.inner == (n_inner or 128)
    torch.testing.assert_close(ours(TOKENS), their_logits(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_round_trip_changes_nothing(tmp_path: Path, dtype: torch.dtype) -> None:
    ours = model().to(dtype)
    ours.save_pretrained(tmp_path / "model")
    again = StarCoder.from_pretrained(tmp_path / "model")
    assert again.config == ours.config
    assert all(parameter.requires_grad for parameter in again.parameters())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
        assert again.state_dict()[name].dtype == dtype
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto").dtype == dtype


def test_another_dtype_and_dropout_on_request(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "model")
    again = StarCoder.from_pretrained(tmp_path / "model", dtype=torch.bfloat16, dropout=0.2)
    assert {parameter.dtype for parameter in again.parameters()} == {torch.bfloat16}
    assert again.config == SMALL.replace(dropout=0.2)
    with pytest.raises(UserError, match="no drop_out"):
        StarCoder.from_pretrained(tmp_path / "model", drop_out=0.2)


def test_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_SHARD_SIZE", "30KB")
    ours = model()
    ours.save_pretrained(tmp_path / "model")
    assert len(list((tmp_path / "model").glob("model-0*-of-0*.safetensors"))) > 2
    again, theirs = (kind.from_pretrained(tmp_path / "model") for kind in (StarCoder, AutoModelForCausalLM))
    torch.testing.assert_close(again.eval()(TOKENS), ours(TOKENS), atol=0, rtol=0)
    torch.testing.assert_close(their_logits(theirs), ours(TOKENS), atol=1e-5, rtol=0)


def test_a_copy_of_the_tied_head_in_the_weights_is_ignored(tmp_path: Path) -> None:
    ours = model()
    ours.save_pretrained(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    state = load_file(weights)
    save_file(state | {"lm_head.weight": state["transformer.wte.weight"].clone()}, weights)
    torch.testing.assert_close(StarCoder.from_pretrained(tmp_path / "model").eval()(TOKENS), ours(TOKENS))


def test_the_tokenizer_goes_along(tmp_path: Path) -> None:
    tokenizer = tokenizers.train(["def f(x):\n    return x + 1\n"] * 9, vocab_size=280)
    save(model(vocab_size=280), tmp_path / "model", tokenizer)
    text = "def g(y): return 2 * y"
    assert tokenizers.load(tmp_path / "model").encode(text) == tokenizer.encode(text)
    assert AutoTokenizer.from_pretrained(tmp_path / "model")(text)["input_ids"] == tokenizer.encode(text)


def test_saving_replaces_a_model_but_nothing_else(tmp_path: Path) -> None:
    model().save_pretrained(tmp_path / "model")
    model(n_layer=1).save_pretrained(tmp_path / "model")
    assert StarCoder.from_pretrained(tmp_path / "model").config.n_layer == 1
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("words")
    for taken in (tmp_path / "thesis", tmp_path / "thesis" / "chapter1.tex"):
        with pytest.raises(UserError, match="holds something else"):
            model().save_pretrained(taken)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "words"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "thesis"]


def test_the_released_configuration() -> None:
    if not RELEASED.is_dir():
        pytest.skip("the released StarCoder's config.json is not on this machine")
    config = read_config(RELEASED)
    assert config == StarCoderConfig.preset("starcoderbase", n_inner=24_576, init_std=0.02)
    assert config.n_params == 15_517_456_384


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path | str, *parts: str) -> None:
    with pytest.raises(UserError) as error:
        StarCoder.from_pretrained(folder)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_missing_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere", "neither a folder nor a repository")


def test_a_folder_without_configuration_or_weights(tmp_path: Path, saved: Path) -> None:
    refused(tmp_path, "config.json is missing")
    (saved / "model.safetensors").unlink()
    refused(saved, "holds no *.safetensors weights")


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}", b"[1]", b"{}"])
def test_a_damaged_configuration(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    refused(saved, "config.json")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"model_type": "gpt2"}, "model_type = 'gpt2'"),
        ({"multi_query": False}, "multi_query = False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ({"attn_pdrop": 0.3}, "one dropout"),
        ({"activation_function": "relu"}, "'relu'"),
        ({"n_embd": "32"}, "n_embd is '32'"),
        ({"n_layer": None}, "n_layer is None"),
    ],
)
def test_a_model_of_another_kind(saved: Path, changes: dict[str, Any], part: str) -> None:
    edit_config(saved, **changes)
    refused(saved, "config.json", part)


def test_a_missing_key() -> None:
    raw = to_transformers(SMALL)
    del raw["n_positions"]
    with pytest.raises(UserError, match="n_positions"):
        from_transformers(raw)


@pytest.mark.parametrize("changes", [{"n_layer": 4}, {"n_layer": 2}, {"vocab_size": 98}, {"n_inner": 60}])
def test_weights_that_do_not_fit_the_configuration(saved: Path, changes: dict[str, Any]) -> None:
    edit_config(saved, **changes)
    refused(saved, "do not fit its config.json", "transformer.")


@pytest.mark.parametrize("size", [0, 5, 500, -1])
def test_truncated_weights(saved: Path, size: int) -> None:
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    refused(saved, "model.safetensors", "damaged")


def test_a_missing_shard(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_SHARD_SIZE", "30KB")
    model().save_pretrained(saved)
    next(iter(sorted(saved.glob("*.safetensors")))).unlink()
    refused(saved, "lacks model-00001-of-0000")
