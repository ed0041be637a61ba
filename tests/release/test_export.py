import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from gguf import GGUFReader, size_label
from huggingface_hub import close_session
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import gguf as ggufs
from starcoder.release import golden
from starcoder.release.card import sealed
from starcoder.release.export import export
from starcoder.release.push import push
from starcoder.release.verify import verify
from starcoder.storage import sha256
from starcoder.training.module import load_trained
from tests.conftest import ROOT, VOCAB_SIZE, Tiny, starcoder
from tests.release.conftest import save_release
from tests.release.hub import Hub

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": VOCAB_SIZE, "context_length": 128}


def model_of(**changes: Any) -> StarCoder:
    return StarCoder(StarCoderConfig.preset("smoke", **SHAPE | changes), seed=5)


def checkpoint(model: StarCoder, path: Path, **meta: Any) -> Path:
    """What one process of a training run writes."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    moments = {f"state.{name}.exp_avg": tensor.clone() for name, tensor in state.items()}
    dcp.save({"state_dict": state, "optimizer_0": moments}, checkpoint_id=path, no_dist=True)
    torch.save({"model_config": asdict(model.config)} | meta, path / "meta.pt")
    (path / "complete").write_text(sha256(path / ".metadata"))
    return path


def one_file(model: StarCoder, path: Path, **meta: Any) -> Path:
    """What Lightning writes without sharding."""
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "model_config": asdict(model.config), "epoch": 0} | meta, path)
    return path


def same(folder: Path, model: StarCoder, dtype: torch.dtype = torch.float32) -> None:
    found = StarCoder.from_pretrained(folder)
    assert found.config == model.config.replace(n_inner=model.config.inner, init_std=model.config.std)
    for name, tensor in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor.to(dtype)), name


def test_an_exported_folder_is_the_trained_model_with_its_tokenizer(small_run: Path, tmp_path: Path) -> None:
    checkpoints, tokenizer = (small_run / "build/smoke" / part for part in ("finetune/checkpoints", "tokenizer"))
    export(checkpoints, tokenizer, tmp_path / "model")
    same(tmp_path / "model", load_trained(checkpoints))
    assert tokenizers.load(tmp_path / "model").digest == tokenizers.load(tokenizer).digest
    verify(tmp_path / "model")
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1
    export(checkpoints, out=tmp_path / "again", golden=False)  # the run's tokenizer is found
    assert sha256(tmp_path / "again" / "tokenizer.json") == sha256(tmp_path / "model" / "tokenizer.json")


@pytest.mark.parametrize("form", [checkpoint, one_file])
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_every_form_of_checkpoint_in_every_dtype(tiny: Tiny, tmp_path: Path, form: Any, dtype: str | None) -> None:
    model = model_of()
    source = form(model, tmp_path / "step-00000001", tokenizer=tokenizers.load(tiny.tokenizer).digest)
    export(source, tiny.tokenizer, tmp_path / "model", dtype=dtype, max_shard_size="50KB")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    same(tmp_path / "model", model, getattr(torch, dtype or "float32"))
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "model", output_loading_info=True, dtype="auto")
    assert not any(report.values()), report
    assert theirs.dtype == getattr(torch, dtype or "float32")
    assert len(golden.read(tmp_path / "model")) == len(golden.PROMPTS)


def test_a_folder_is_exported_again_in_another_form(tiny: Tiny, tmp_path: Path) -> None:
    model = model_of(activation="gelu_pytorch_tanh")
    export(one_file(model, tmp_path / "a.ckpt"), tiny.tokenizer, tmp_path / "first", golden=False)
    assert not (tmp_path / "first" / golden.FILE).exists()
    export(tmp_path / "first", out=tmp_path / "second", dtype="bfloat16", gguf=True)
    same(tmp_path / "second", model, torch.bfloat16)
    assert (tmp_path / "second" / "model.gguf").stat().st_size > 2 * model.config.n_params
    verify(tmp_path / "second")


def test_older_loaders_find_their_files(tiny: Tiny, tmp_path: Path) -> None:
    export(one_file(model_of(), tmp_path / "a.ckpt"), tiny.tokenizer, tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names >= {"vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"}
    assert names >= {"config.json", "generation_config.json", "golden.json", "model.safetensors"}


def refused(match: str, *args: Any, **options: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        export(*args, **options)
    assert "\n" not in str(error.value)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    source = checkpoint(model_of(vocab_size=VOCAB_SIZE - 1), tmp_path / "step-00000001")
    refused(f"{VOCAB_SIZE} tokens, the model only {VOCAB_SIZE - 1}", source, tiny.tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_another_tokenizer_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    source = checkpoint(model_of(), tmp_path / "runs" / "a" / "step-00000001", tokenizer="0123")
    refused("was trained with another tokenizer than", source, tiny.tokenizer, tmp_path / "model")
    refused("name the tokenizer that .* was trained with: --tokenizer", source, out=tmp_path / "model")
    tokenizers.load(tiny.tokenizer).save(tmp_path / "runs" / "tokenizer")
    refused("name the tokenizer that .* was trained with: --tokenizer", source, out=tmp_path / "model")


def test_bad_input_is_refused_in_one_line(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, thesis = one_file(model_of(), tmp_path / "a.ckpt"), tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("words")
    good = (source, tiny.tokenizer, tmp_path / "model")
    refused("no checkpoint in .*nowhere", tmp_path / "nowhere", *good[1:])
    refused("no checkpoint that was written to its end in", thesis, *good[1:])
    refused("chapter1.tex is damaged, or no checkpoint", thesis / "chapter1.tex", *good[1:])
    refused("nowhere", source, tmp_path / "nowhere", tmp_path / "model")
    refused("name the folder to write: --output DIR", source, tiny.tokenizer)
    refused("holds something else", source, tiny.tokenizer, thesis)
    refused("dtype is 'int3', none of float32, bfloat16, float16", *good, dtype="int3")
    refused("gguf_dtype is 'q4_0', none of float32, bfloat16, float16", *good, gguf=True, gguf_dtype="q4_0")
    refused("max_shard_size is 'much'", *good, max_shard_size="much")
    for size in ("0GB", "-5GB", "1e400GB", "nanGB", "5", ""):
        refused("max_shard_size is", *good, max_shard_size=size)
    refused("--gguf_dtype float16 without --gguf", *good, gguf_dtype="float16")
    refused("are the same option: say one of them", source, tiny.tokenizer, tmp_path / "model", tmp_path / "other")
    refused("is no repository on the Hub: it has no revision next", *good, revision="next")
    torch.save({"state_dict": {"weight": torch.zeros(3)}}, tmp_path / "other.ckpt")
    refused("no checkpoint of this kit's training", tmp_path / "other.ckpt", *good[1:])
    one_file(model_of(), tmp_path / "odd.ckpt", model_config=asdict(model_of(n_layer=3).config))
    refused("does not fit this version of the kit in 12 places", tmp_path / "odd.ckpt", *good[1:])
    wide = one_file(model_of(n_inner=100), tmp_path / "wide.ckpt")
    refused("n_inner", wide, *good[1:], gguf=True)
    monkeypatch.setattr(ggufs, "find_spec", lambda _: None)
    refused("package gguf, which is not installed", *good, gguf=True)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["thesis"]
    assert [path.name for path in thesis.iterdir()] == ["chapter1.tex"]


@pytest.mark.parametrize("state", [[1, 2], {"model.a": "text"}, {3: torch.zeros(3)}, None])
def test_what_is_no_state_dict_is_refused(tiny: Tiny, tmp_path: Path, state: object) -> None:
    torch.save({"state_dict": state, "model_config": asdict(model_of().config)}, tmp_path / "a.ckpt")
    refused(r"a\.ckpt is damaged, or no checkpoint", tmp_path / "a.ckpt", tiny.tokenizer, tmp_path / "model")


def test_an_export_replaces_all_that_an_earlier_one_wrote(tiny: Tiny, tmp_path: Path) -> None:
    export(one_file(model_of(), tmp_path / "a"), tiny.tokenizer, tmp_path / "model", gguf=True, max_shard_size="50KB")
    assert len(list((tmp_path / "model").iterdir())) > 12
    other = model_of(activation="gelu_pytorch_tanh")
    export(one_file(other, tmp_path / "b"), tiny.tokenizer, tmp_path / "model", golden=False)
    same(tmp_path / "model", other)
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert not names & {"golden.json", "model.gguf", "model.safetensors.index.json"}
    (tmp_path / "model" / "LICENSE").write_text("terms")
    refused(", LICENSE: name another folder", tmp_path / "b", tiny.tokenizer, tmp_path / "model")
    same(tmp_path / "model", other)


def test_an_export_says_what_it_wrote_and_who_would_misread_it(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = one_file(model_of(), tmp_path / "a")
    export(source, tiny.tokenizer, tmp_path / "usual")
    (line,) = capsys.readouterr().out.splitlines()
    size = sum(path.stat().st_size for path in (tmp_path / "usual").iterdir())
    assert line == (
        f"wrote {tmp_path / 'usual'}: {model_of().config.n_params:,} parameters, {size / 1000:.1f} kB in 9 files"
    )
    (tmp_path / "usual" / "README.md").write_text(sealed("# Model\n", "<!-- {} -->"))
    export(source, tiny.tokenizer, tmp_path / "usual")
    told = capsys.readouterr().out.splitlines()
    assert told[1:] == [
        f"the card was of the model before, and went with it: starcoder card {tmp_path / 'usual'} writes another"
    ]
    assert not (tmp_path / "usual" / "README.md").exists()
    odd = one_file(model_of(layer_norm_epsilon=1e-6, n_inner=100), tmp_path / "b")
    export(odd, tiny.tokenizer, tmp_path / "odd")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "CTranslate2 would misread it: layer_norm_epsilon is 1e-06, there always 1e-05",
        "llama.cpp would misread it: n_inner is 100, there always 4 · n_embd = 128",
    ]


def test_somebody_elses_tokenizer_above_a_checkpoint_is_passed_over(tiny: Tiny, tmp_path: Path) -> None:
    tokenizer = tokenizers.load(tiny.tokenizer)
    source = checkpoint(model_of(), tmp_path / "runs" / "a" / "step-00000001", tokenizer=tokenizer.digest)
    (tmp_path / "runs" / "tokenizer").mkdir()
    (tmp_path / "runs" / "tokenizer" / "tokenizer.json").write_text('{"model": "of another kind"}')
    tokenizer.save(tmp_path / "tokenizer")
    export(source, out=tmp_path / "model")
    assert tokenizers.load(tmp_path / "model").digest == tokenizer.digest


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("end", [17, [0, 17]])
def test_a_model_whose_documents_end_with_another_token_is_not_exported(
    tiny: Tiny, tmp_path: Path, file: str, end: object
) -> None:
    export(one_file(model_of(), tmp_path / "a"), tiny.tokenizer, tmp_path / "first", golden=False)
    path = tmp_path / "first" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": end}))
    refused(rf"{file}: eos_token_id is {re.escape(str(end))}, but", tmp_path / "first", out=tmp_path / "second")
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantised_weights_are_refused(tiny: Tiny, tmp_path: Path, dtype: torch.dtype) -> None:
    export(one_file(model_of(), tmp_path / "a"), tiny.tokenizer, tmp_path / "first", golden=False)
    weights = tmp_path / "first" / "model.safetensors"
    name = "transformer.h.0.attn.c_attn.weight"
    state = load_file(weights)
    save_file(state | {name: state[name].mul(100).to(dtype)}, weights)
    refused(rf"{name} holds no floating-point numbers of 16", tmp_path / "first", out=tmp_path / "second")


def test_a_folder_in_double_precision(tiny: Tiny, tmp_path: Path) -> None:
    model = model_of().double()
    export(one_file(model, tmp_path / "a"), tiny.tokenizer, tmp_path / "model", gguf=True)
    same(tmp_path / "model", model, torch.float64)
    kinds = {tensor.tensor_type.name for tensor in GGUFReader(tmp_path / "model" / "model.gguf").tensors}
    assert kinds == {"F32"}


def test_a_gguf_file_says_whose_weights_it_holds(tiny: Tiny, tmp_path: Path) -> None:
    export(one_file(model_of(), tmp_path / "a"), tiny.tokenizer, tmp_path / "first", gguf=True)
    first = GGUFReader(tmp_path / "first" / "model.gguf").fields
    assert first["general.name"].contents() == "first"
    assert first["general.size_label"].contents() == size_label(model_of().config.n_params, 0, 0, 0)
    assert "general.license" not in first
    for card, licence in (("license: mit", "mit"), ("license: other\nlicense_name: ours", "ours")):
        (tmp_path / "first" / "README.md").write_text(f"---\n{card}\n---\nA model.\n")
        export(tmp_path / "first", out=tmp_path / "second", gguf=True)
        assert GGUFReader(tmp_path / "second" / "model.gguf").fields["general.license"].contents() == licence


def test_a_model_on_the_hub_is_exported_by_its_name(tiny: Tiny, tmp_path: Path, hub: Hub) -> None:
    for seed, branch in ((1, "main"), (2, "next")):
        folder = tmp_path / branch
        network = save_release(folder, tiny.tokenizer, "150KB", seed=seed, n_layer=1, n_head=2, n_embd=64)
        push(folder, repo="ada/model", branch=branch)
        close_session()
        export(Path("ada/model"), out=tmp_path / f"from {branch}", dtype="bfloat16", revision=branch, golden=False)
        same(tmp_path / f"from {branch}", network, torch.bfloat16)
    refused("ada/other is neither a folder nor a repository", Path("ada/other"), out=tmp_path / "other")


def test_weights_that_are_no_numbers_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    model = model_of()
    with torch.no_grad():
        model.transformer.h[1].ln_1.weight[3] = torch.nan
    refused(r"h\.1\.ln_1\.weight holds values", one_file(model, tmp_path / "a"), tiny.tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_damaged_slice_is_noticed(tiny: Tiny, tmp_path: Path) -> None:
    source = checkpoint(model_of(), tmp_path / "step-00000001")
    file = next(source.glob("*.distcp"))
    content = bytearray(file.read_bytes())
    place = content.find(model_of().transformer.wpe.weight.detach().numpy().tobytes()[:64])
    content[place] ^= 1
    file.write_bytes(content)
    refused("is damaged", source, tiny.tokenizer, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_command_line(tiny: Tiny, tmp_path: Path) -> None:
    one_file(model_of(), tmp_path / "a.ckpt")
    made = starcoder(tmp_path, "export", "a.ckpt", "--tokenizer", str(tiny.tokenizer), "--out", "model", "--gguf")
    assert made.returncode == 0, made.stderr
    assert "GELU by tanh" in made.stdout
    answers = json.loads((tmp_path / "model" / "golden.json").read_text())
    answers["prompts"][1]["top_logits"][0][0] += 0.1
    (tmp_path / "model" / "golden.json").write_text(json.dumps(answers))
    differs = starcoder(tmp_path, "verify", "model")
    assert differs.returncode == 1
    assert differs.stderr.startswith("starcoder: model: logits differ from golden.json's by")
    assert len(differs.stderr.splitlines()) == 1


MEASURED = """
import sys, torch
from pathlib import Path
from starcoder.model import StarCoder
from starcoder.release.export import export

def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key + ":"))

def grown(action):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak is now what is used now
    kept = action()
    print(status("VmHWM") - before)

small, tokenizer, out, *large = map(Path, sys.argv[1:])
torch.set_num_threads(1)
export(small, tokenizer, out, gguf=True)  # imports everything, and fills caches
StarCoder.from_pretrained(out)
for each in large:
    grown(lambda: export(each, tokenizer, out, max_shard_size="50MB", gguf=True))
grown(lambda: StarCoder.from_pretrained(out))
grown(lambda: StarCoder.from_pretrained(out, dtype=torch.bfloat16))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak")
def test_memory_is_that_of_a_few_tensors_to_export_and_of_the_model_to_load(tiny: Tiny, tmp_path: Path) -> None:
    large = model_of(n_layer=14, n_embd=512, n_head=8)
    size, shard = 4 * large.config.n_params, 50e6
    assert size > 3 * shard
    places = [one_file(model_of(), tmp_path / "small"), tiny.tokenizer, tmp_path / "out"]
    places += [checkpoint(large, tmp_path / "sharded"), one_file(large, tmp_path / "large")]
    # glibc gives back at once what is larger than this; by default it learns to keep up to 32 MB, a tensor here.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURED, *places]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    sharded, from_one_file, loaded, halved = (int(line) for line in result.stdout.splitlines() if line.isdecimal())
    assert max(sharded, from_one_file) < 1.2 * shard
    assert loaded < 1.2 * size
    assert halved < 1.2 * size / 2
