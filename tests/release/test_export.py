from pathlib import Path

import pytest
import torch

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder
from starcoder.release.export import export
from starcoder.release.verify import verify
from starcoder.training.module import load_trained


def test_an_exported_folder_is_the_trained_model_with_its_tokenizer(small_run: Path, tmp_path: Path) -> None:
    checkpoint, tokenizer = (
        small_run / "build/smoke" / part for part in ("finetune/checkpoints/last.ckpt", "tokenizer")
    )
    export(checkpoint, tokenizer, tmp_path / "model")
    exported, trained = StarCoder.from_pretrained(tmp_path / "model"), load_trained(checkpoint)
    assert exported.config == trained.config
    for name, tensor in trained.state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor)
    assert tokenizers.load(tmp_path / "model").digest == tokenizers.load(tokenizer).digest
    verify(tmp_path / "model")
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(small_run: Path, tmp_path: Path) -> None:
    tokenizer = tokenizers.load(small_run / "build/smoke/tokenizer")
    checkpoint = torch.load(small_run / "build/smoke/pretrain/checkpoints/last.ckpt")
    checkpoint["model_config"]["vocab_size"] = tokenizer.vocab_size - 1
    table = checkpoint["state_dict"]["model.transformer.wte.weight"]
    checkpoint["state_dict"]["model.transformer.wte.weight"] = table[:-1].clone()
    torch.save(checkpoint, tmp_path / "smaller.ckpt")
    with pytest.raises(UserError, match="4096 tokens, the model only 4095"):
        export(tmp_path / "smaller.ckpt", small_run / "build/smoke/tokenizer", tmp_path / "model")
    assert not (tmp_path / "model").exists()
