from pathlib import Path

import pytest
import torch

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.folder import save
from starcoder.release.verify import verify
from tests.conftest import VOCAB_SIZE, Tiny

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": VOCAB_SIZE, "context_length": 128}


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    save(StarCoder(StarCoderConfig.preset("smoke", **SHAPE)), tmp_path / "model", tokenizers.load(tiny.tokenizer))
    return tmp_path / "model"


def test_a_saved_folder_means_the_same_to_transformers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(folder)
    assert "same token ids" in capsys.readouterr().out


def test_a_half_precision_folder_is_as_good(tiny: Tiny, tmp_path: Path) -> None:
    model = StarCoder(StarCoderConfig.preset("smoke", **SHAPE)).to(torch.bfloat16)
    save(model, tmp_path / "model", tokenizers.load(tiny.tokenizer))
    verify(tmp_path / "model")


def test_other_logits_are_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = StarCoder.forward
    monkeypatch.setattr(StarCoder, "forward", lambda self, tokens: forward(self, tokens) * 1.001)
    with pytest.raises(UserError, match="logits differ"):
        verify(folder)


def test_another_tokenizer_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tokenizers.train(["other text than the first " * 50], tokenizers.SMALLEST_VOCABULARY + 5)
    monkeypatch.setattr(tokenizers, "load", lambda _: other)
    with pytest.raises(UserError, match="tokenizes differently"):
        verify(folder)
