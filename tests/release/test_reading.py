"""What is read from the Hub: any revision, and one line when it fails."""

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import close_session

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.generation import complete
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.folder import local_folder
from starcoder.release.push import push
from starcoder.release.verify import verify
from tests.conftest import Tiny
from tests.release.conftest import CARD, save_release
from tests.release.hub import ALWAYS, Hub


def pushed(hub: Hub, folder: Path, branch: str = "main") -> None:
    push(folder, repo="ada/model", branch=branch)
    close_session()


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        ({"drop_answer": 60_000}, ["connection to the Hub was lost at ada/model", "run again"]),
        ({"drop_answer": 0}, ["connection to the Hub was lost at ada/model", "run again"]),
        ({"status": 500}, ["the Hub fails with 500 at ada/model"]),
        ({"status": 403}, ["ada/model is neither a folder nor a repository that the Hub gives"]),
    ],
)
def test_a_download_that_fails_is_one_line_without_secrets(
    hub: Hub,
    model: Path,
    fault: dict[str, Any],
    parts: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    pushed(hub, model)
    caplog.set_level(logging.INFO)
    hub.fail("GET", "/cdn/", times=ALWAYS, **fault)
    for read in (StarCoder.from_pretrained, verify):
        with pytest.raises(UserError) as error:
            read("ada/model")
        told = "".join(traceback.format_exception(error.value))
        assert "\n" not in str(error.value)
        assert all(part in str(error.value) for part in parts), error.value
        assert "never-show-this" not in told + caplog.text
    assert not any(logging.getLogger(name).filters for name in ("huggingface_hub.file_download", "httpx2"))


def test_a_revision_is_read_everywhere(hub: Hub, model: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    pushed(hub, model)
    other = model.with_name("other")
    network = save_release(other, tiny.tokenizer, "150KB", seed=2, n_layer=1, n_head=2, n_embd=64)
    pushed(hub, other, "next")
    assert (local_folder("ada/model") / "README.md").read_text() == CARD  # names the licence
    found = StarCoder.from_pretrained("ada/model", revision="next")
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in network.state_dict().items())
    assert StarCoderConfig.from_pretrained("ada/model", revision="next").n_layer == 1
    assert StarCoderConfig.from_pretrained("ada/model").n_layer == 2
    assert tokenizers.load("ada/model", revision="next").digest == tokenizers.load(tiny.tokenizer).digest
    capsys.readouterr()
    verify("ada/model", readers="transformers", revision="next")
    commit = hub.repos["ada/model"].find("next").oid
    assert f"snapshots/{commit}" in capsys.readouterr().out
    complete("ada/model", "def", max_new_tokens=4, temperature=0, revision="next")
    there = capsys.readouterr().out
    complete(str(other), "def", max_new_tokens=4, temperature=0)
    assert there == capsys.readouterr().out
    for read in (StarCoder.from_pretrained, StarCoderConfig.from_pretrained, tokenizers.load, verify):
        with pytest.raises(UserError, match=r"ada/model is neither .*: it has no such revision"):
            read("ada/model", revision="nowhere")
        with pytest.raises(UserError, match="other is no repository on the Hub: it has no revision next"):
            read(other, revision="next")
