from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.export import export
from starcoder.release.verify import verify
from starcoder.storage import sha256
from starcoder.training.module import load_trained


def test_an_exported_folder_is_the_trained_model_with_its_tokenizer(small_run: Path, tmp_path: Path) -> None:
    checkpoint, tokenizer = (small_run / "build/smoke" / part for part in ("finetune/checkpoints", "tokenizer"))
    export(checkpoint, tokenizer, tmp_path / "model")
    exported, trained = StarCoder.from_pretrained(tmp_path / "model"), load_trained(checkpoint)
    assert exported.config == trained.config
    for name, tensor in trained.state_dict().items():
        assert torch.equal(exported.state_dict()[name], tensor)
    assert tokenizers.load(tmp_path / "model").digest == tokenizers.load(tokenizer).digest
    verify(tmp_path / "model")
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    tokenizer = tokenizers.train(["def function(argument): return argument"] * 9, 290)
    tokenizer.save(tmp_path / "tokenizer")
    smaller = tmp_path / "step-00000001"
    model = StarCoder(StarCoderConfig.preset("smoke", vocab_size=289))
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    dcp.save({"state_dict": state}, checkpoint_id=smaller, no_dist=True)
    torch.save({"model_config": asdict(model.config)}, smaller / "meta.pt")
    (smaller / "complete").write_text(sha256(smaller / ".metadata"))
    with pytest.raises(UserError, match=f"{tokenizer.vocab_size} tokens, the model only 289"):
        export(smaller, tmp_path / "tokenizer", tmp_path / "model")
    assert not (tmp_path / "model").exists()
