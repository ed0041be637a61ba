import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import golden, readers
from starcoder.release.folder import save
from starcoder.release.readers import Difference
from starcoder.release.verify import verify
from tests.conftest import VOCAB_SIZE, Tiny

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": VOCAB_SIZE, "context_length": 128}


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    save(StarCoder(StarCoderConfig.preset("smoke", **SHAPE)), tmp_path / "model", tokenizers.load(tiny.tokenizer))
    return tmp_path / "model"


def test_a_saved_folder_means_the_same_to_every_reader(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"this kit loads {folder}: there is no golden.json to compare with"
    assert "same token ids, logits equal within" in lines[1]
    assert [line.split()[0] for line in lines[1:]] == ["transformers", "CTranslate2", "llama.cpp"]


def test_a_half_precision_folder_is_as_good(tiny: Tiny, tmp_path: Path) -> None:
    model = StarCoder(StarCoderConfig.preset("smoke", **SHAPE)).to(torch.bfloat16)
    save(model, tmp_path / "model", tokenizers.load(tiny.tokenizer))
    verify(tmp_path / "model")


def test_other_logits_are_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = StarCoder.forward
    monkeypatch.setattr(StarCoder, "forward", lambda self, tokens: forward(self, tokens) * 1.001)
    with pytest.raises(Difference, match=r"logits differ from transformers's by 1\.0e-03 of the largest"):
        verify(folder)


def test_another_tokenizer_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tokenizers.train(["other text than the first " * 50], tokenizers.SMALLEST_VOCABULARY + 5)
    monkeypatch.setattr(tokenizers, "load", lambda _: other)
    with pytest.raises(Difference, match="transformers tokenizes differently"):
        verify(folder)


def test_a_release_is_compared_with_its_golden_answers(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    golden.write(folder, tokenizers.load(folder))
    verify(folder, readers="transformers")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"this kit loads {folder}: same token ids as golden.json, logits equal within")
    assert lines[1].startswith(f"transformers loads {folder}: same token ids, logits equal within")
    assert len(lines) == 2
    for change, complaint in (
        (lambda prompt: prompt["ids"].append(20), "we tokenize prompt 1 otherwise than golden.json says"),
        (lambda prompt: prompt["top_logits"][2].__setitem__(3, 1.0), "position 2, column 3 of prompt 1"),
    ):
        other = shutil.copytree(folder, tmp_path / "other", dirs_exist_ok=True)
        content = json.loads((other / golden.FILE).read_text())
        change(content["prompts"][1])
        (other / golden.FILE).write_text(json.dumps(content))
        with pytest.raises(Difference, match=complaint):
            verify(other)


def test_other_weights_under_the_same_golden_answers(folder: Path, tiny: Tiny) -> None:
    golden.write(folder, tokenizers.load(folder))
    answers = (folder / golden.FILE).read_bytes()
    save(StarCoder(StarCoderConfig.preset("smoke", **SHAPE), seed=1), folder, tokenizers.load(tiny.tokenizer))
    (folder / golden.FILE).write_bytes(answers)
    with pytest.raises(Difference, match=r"model\.safetensors is not as it was when golden\.json was written"):
        verify(folder)
    forget_digests(folder)
    with pytest.raises(Difference, match=r"logits differ from golden\.json's"):
        verify(folder)


def forget_digests(folder: Path) -> None:
    content = json.loads((folder / golden.FILE).read_text())
    assert list(content.pop("sha256")) == ["model.safetensors"]
    (folder / golden.FILE).write_text(json.dumps(content))


def test_a_token_that_was_not_among_the_likeliest_is_seen_when_it_is(folder: Path) -> None:
    golden.write(folder, tokenizers.load(folder))
    answers = (folder / golden.FILE).read_bytes()
    model = StarCoder.from_pretrained(folder)
    known = {token for prompt in golden.read(folder) for token in chain(prompt.ids, *prompt.top_ids)}
    with torch.no_grad():
        model.transformer.wte.weight[max(set(range(VOCAB_SIZE)) - known)] *= 1e30
    save(model, folder, tokenizers.load(folder))
    (folder / golden.FILE).write_bytes(answers)
    forget_digests(folder)
    with pytest.raises(Difference, match=r"logits differ from golden\.json's"):
        verify(folder)


def test_readers_that_are_not_there_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_spec(name: str) -> Any:
        return None if name == "ctranslate2" else 1

    monkeypatch.setattr(readers, "find_spec", find_spec)
    verify(folder, readers="transformers, ctranslate2")
    assert "ctranslate2 is skipped: not installed: pip install ctranslate2\n" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"nothing to compare .* with: it has no golden\.json"):
        verify(folder, readers="ctranslate2")
    golden.write(folder, tokenizers.load(folder))
    verify(folder, readers="ctranslate2")


def test_unknown_readers_and_folders(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no reader vllm; there are transformers, ctranslate2, llama\.cpp"):
        verify(folder, readers="transformers,vllm")
    with pytest.raises(UserError, match="nowhere"):
        verify("nowhere")
