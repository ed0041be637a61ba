from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import close_session, constants

from starcoder import tokenizer as tokenizers
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import folder as folders
from tests.conftest import VOCAB_SIZE, Tiny
from tests.release.hub import Hub, User

TOKEN = "hf_" + "secret" * 6
CARD = "---\nlicense: apache-2.0\n---\nA small model.\n"


def connect(hub: Hub, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let the Hub's client, here and in processes that are started from here, talk to `hub` as its user ada."""
    hub.users[TOKEN] = User("ada")
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HOME": str(home)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    read_at_import = {
        "ENDPOINT": hub.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
    }
    for name, value in read_at_import.items():
        monkeypatch.setattr(constants, name, value)
    close_session()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as running:
        connect(running, monkeypatch, tmp_path / "home")
        yield running
    close_session()


def save_release(folder: Path, tokenizer: Path, shard_size: str, seed: int = 1, **shape: int) -> StarCoder:
    """A random model in several files, with its tokenizer and a card."""
    torch.manual_seed(seed)
    model = StarCoder(StarCoderConfig.preset("smoke", vocab_size=VOCAB_SIZE, context_length=64, **shape)).eval()
    model.init_weights(seed)
    (folder / "README.md").unlink(missing_ok=True)  # with a card of somebody's, nothing is written there
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "MAX_SHARD_SIZE", shard_size)
        folders.save(model, folder, tokenizers.load(tokenizer))
    (folder / "README.md").write_text(CARD)
    return model


@pytest.fixture
def model(tmp_path: Path, tiny: Tiny) -> Path:
    """A release of some hundred kB in several weight files."""
    save_release(tmp_path / "model", tiny.tokenizer, "150KB", n_layer=2, n_head=2, n_embd=64)
    return tmp_path / "model"


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def large_bytes(folder: Path) -> int:
    """What the Hub keeps in its large storage."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
