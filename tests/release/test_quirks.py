"""Folders as the BigCode project released them, made by hand from a model of ours: each means that model."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.activations import ACT2FN

from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.quirks import plain_config

SMALL = StarCoderConfig(vocab_size=97, context_length=40, n_layer=3, n_head=4, n_embd=32, dropout=0.0, init_std=0.1)
TOKENS = torch.arange(74).view(2, 37) % 97
State = dict[str, Tensor]


def model(**changes: Any) -> StarCoder:
    result = StarCoder(SMALL.replace(**changes), seed=1).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return result


def folder_of(ours: StarCoder, folder: Path, change: Callable[[State], State], **config: Any) -> Path:
    """The model's folder with other weights and another configuration."""
    ours.save_pretrained(folder)
    file = folder / "model.safetensors"
    save_file({name: each.contiguous() for name, each in change(load_file(file)).items()}, file)
    written = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def same(folder: Path, ours: StarCoder) -> None:
    with torch.inference_mode():
        assert torch.equal(StarCoder.from_pretrained(folder).eval()(TOKENS), ours(TOKENS))


def pickled(folder: Path, shards: int = 1) -> Path:
    """Replace safetensors by what `torch.save` writes."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    files = [f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin" for shard in range(shards)]
    files = files if shards > 1 else ["pytorch_model.bin"]
    for shard, file in enumerate(files):
        torch.save({name: state[name] for name in names[shard::shards]}, folder / file)
    if shards > 1:
        index = {"weight_map": {name: files[place % shards] for place, name in enumerate(names)}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def santacoder(state: State, c: int) -> State:
    """The first SantaCoder's layout: queries apart from key and value, matrices as GPT-2 stores them."""
    found: State = {}
    for name, tensor in state.items():
        matrix = re.search(r"\.h\.\d+\.(attn|mlp)\.\w+\.weight$", name)
        parts = {name: tensor}
        if ".attn.c_attn." in name:
            parts = {name.replace("c_attn", "q_attn"): tensor[:c], name.replace("c_attn", "kv_attn"): tensor[c:]}
        found |= {key: part.T if matrix else part for key, part in parts.items()}
    return found


@pytest.mark.parametrize("shape", [{}, {"n_inner": 32}, {"n_head": 2}, {"n_inner": 16}])
def test_the_first_santacoder(tmp_path: Path, shape: dict[str, int]) -> None:
    ours = model(activation="gelu_pytorch_tanh", **shape)
    old = {"model_type": "gpt2", "attention_head_type": "multiquery", "activation_function": "gelu_fast"}
    folder = folder_of(ours, tmp_path / "model", lambda state: santacoder(state, 32), **old)
    config = json.loads((folder / "config.json").read_text())
    del config["multi_query"]
    (folder / "config.json").write_text(json.dumps(config))
    same(folder, ours)
    state = load_file(folder / "model.safetensors")
    assert state["transformer.h.0.attn.kv_attn.weight"].shape == (32, 64 // (ours.config.n_head))


def test_transposed_matrices_alone(tmp_path: Path) -> None:
    ours = model()
    matrix = re.compile(r"\.h\.\d+\.(attn|mlp)\.\w+\.weight$")
    same(folder_of(ours, tmp_path / "m", lambda s: {n: t.T if matrix.search(n) else t for n, t in s.items()}), ours)


def test_queries_without_keys_are_refused(tmp_path: Path) -> None:
    def lossy(state: State) -> State:
        return {name: each for name, each in santacoder(state, 32).items() if "h.1.attn.kv_attn" not in name}

    folder = folder_of(model(), tmp_path / "model", lossy)
    with pytest.raises(UserError, match=r"incomplete.*h\.1\.attn\.kv_attn"):
        StarCoder.from_pretrained(folder)


def test_multi_head_santacoder_and_plain_gpt2_are_refused(tmp_path: Path) -> None:
    ours = model()
    for number, (config, part) in enumerate(
        [
            ({"model_type": "gpt2", "attention_head_type": "multihead"}, "multi_query = False"),
            ({"model_type": "gpt2"}, "model_type = 'gpt2'"),
        ]
    ):
        folder = folder_of(ours, tmp_path / str(number), lambda state: state, **config)
        with pytest.raises(UserError, match=part):
            StarCoder.from_pretrained(folder)


def test_the_head_alone_is_the_table(tmp_path: Path) -> None:
    ours = model()

    def renamed(state: State) -> State:
        return {name.replace("transformer.wte", "lm_head"): tensor for name, tensor in state.items()}

    same(folder_of(ours, tmp_path / "model", renamed), ours)


def test_a_copy_of_the_table_is_ignored_and_another_head_refused(tmp_path: Path) -> None:
    ours = model()
    copied = folder_of(ours, tmp_path / "copy", lambda s: s | {"lm_head.weight": s["transformer.wte.weight"].clone()})
    same(copied, ours)
    other = folder_of(ours, tmp_path / "other", lambda s: s | {"lm_head.weight": s["transformer.wte.weight"] + 1e-6})
    with pytest.raises(UserError, match=r"lm_head\.weight differs"):
        StarCoder.from_pretrained(other)


def test_saved_masks_are_ignored(tmp_path: Path) -> None:
    masks = {f"transformer.h.{n}.attn.bias": torch.ones(1, 1, 40, 40).tril().bool() for n in range(3)}
    masks |= {f"transformer.h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(3)}
    ours = model()
    same(folder_of(ours, tmp_path / "model", lambda state: state | masks), ours)


@pytest.mark.parametrize("missing", [False, True])
def test_no_n_inner(tmp_path: Path, missing: bool) -> None:
    ours = model()
    folder = folder_of(ours, tmp_path / "model", lambda state: state, n_inner=None)
    if missing:
        config = json.loads((folder / "config.json").read_text())
        del config["n_inner"]
        (folder / "config.json").write_text(json.dumps(config))
    same(folder, ours)
    assert StarCoderConfig.from_pretrained(folder).inner == 128


@pytest.mark.parametrize(
    "spelling", ["gelu", "gelu_python", "gelu_fast", "gelu_new", "gelu_accurate", "gelu_pytorch_tanh"]
)
def test_activations_mean_what_they_mean_in_transformers(spelling: str) -> None:
    ours = plain_config({"model_type": "gpt_bigcode", "activation_function": spelling})["activation_function"]
    x = torch.linspace(-6, 6, 999)
    expected = torch.nn.functional.gelu(x, approximate="none" if ours == "gelu" else "tanh")
    torch.testing.assert_close(ACT2FN[spelling](x), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("spelling", ["quick_gelu", "relu", "gelu_10", None])
def test_other_activations_are_refused(tmp_path: Path, spelling: str | None) -> None:
    folder = folder_of(model(), tmp_path / "model", lambda state: state, activation_function=spelling)
    with pytest.raises(UserError, match=r"activation is|activation_function"):
        StarCoder.from_pretrained(folder)


@pytest.mark.parametrize("shards", [1, 3])
def test_pytorch_model_bin(tmp_path: Path, shards: int) -> None:
    ours = model()
    ours.save_pretrained(tmp_path / "model")
    same(pickled(tmp_path / "model", shards), ours)


def test_a_pickle_of_anything_else_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    model().save_pretrained(tmp_path / "model")
    folder = pickled(tmp_path / "model")
    torch.save({"transformer.wte.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is damaged"):
        StarCoder.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


def test_the_index_says_which_files_count(tmp_path: Path) -> None:
    ours = model()
    folder = folder_of(ours, tmp_path / "model", lambda state: state)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    names = list(load_file(folder / "model-00001-of-00001.safetensors"))
    save_file({names[0]: torch.zeros(1)}, folder / "model-00002-of-00002.safetensors")  # of an older upload
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    same(folder, ours)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": []}')
    with pytest.raises(UserError, match=r"index\.json is damaged"):
        StarCoder.from_pretrained(folder)
