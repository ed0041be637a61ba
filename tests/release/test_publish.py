from pathlib import Path

import pytest
import torch

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.push import push
from tests.conftest import VOCAB_SIZE, Tiny
from tests.release.conftest import CARD
from tests.release.hub import Hub

REPO = "ada/model"
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": VOCAB_SIZE, "context_length": 32}
WEIGHTS = ["config.json", "generation_config.json", "model.safetensors"]


def model_of(seed: int = 0, **shape: int) -> StarCoder:
    return StarCoder(StarCoderConfig.preset("smoke", **SHAPE | shape), seed=seed)


def names(hub: Hub, revision: str = "main") -> list[str]:
    return sorted(hub.content(REPO, revision).keys() - {".gitattributes"})


def test_a_model_goes_to_the_hub_and_comes_back(hub: Hub, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = model_of(), tokenizers.load(tiny.tokenizer)
    model.push_to_hub(REPO)
    assert names(hub) == WEIGHTS
    assert hub.repos[REPO].private
    model.push_to_hub(REPO, tokenizer=tokenizer)
    assert "5 of 8 files are new" in capsys.readouterr().out
    assert tokenizers.load(REPO).digest == tokenizer.digest
    found = StarCoder.from_pretrained(REPO)
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_what_others_put_there_stays(hub: Hub, model: Path, tiny: Tiny) -> None:
    push(model, repo=REPO)
    model_of(seed=1).push_to_hub(REPO)
    assert hub.content(REPO)["README.md"] == CARD.encode()
    assert [name for name in names(hub) if name.startswith("model")] == ["model.safetensors"]
    assert tokenizers.load(REPO).digest == tokenizers.load(tiny.tokenizer).digest
    model_of(seed=2).push_to_hub(REPO, branch="next", visibility="public", message="Other weights")
    assert hub.repos[REPO].find("next").title == "Other weights"
    assert not hub.repos[REPO].private
    assert hub.content(REPO, "next")["model.safetensors"] != hub.content(REPO)["model.safetensors"]


def test_what_cannot_be_is_refused_before_anything_is_sent(hub: Hub, tiny: Tiny) -> None:
    small = model_of(vocab_size=VOCAB_SIZE - 1)
    with pytest.raises(UserError, match=f"{VOCAB_SIZE} tokens, the model only"):
        small.push_to_hub(REPO, tokenizer=tokenizers.load(tiny.tokenizer))
    with pytest.raises(UserError, match="model is no repository"):
        small.push_to_hub("model")
    assert REPO not in hub.repos
    hub.fail("GET", "whoami", 401)
    with pytest.raises(UserError, match="does not know this token"):
        small.push_to_hub(REPO)
