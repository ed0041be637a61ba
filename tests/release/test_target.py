"""A model is written over a model of ours, and over nothing that somebody else put there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import folder as folders
from starcoder.release.card import sealed
from starcoder.release.target import model_folder
from tests.release.conftest import bytes_of

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 300, "context_length": 32}


def save(folder: Path, seed: int = 0) -> None:
    StarCoder(StarCoderConfig.preset("smoke", **SHAPE), seed=seed).save_pretrained(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model")
    return tmp_path / "model"


def git(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref: refs/heads/main\n")


def foreign_shard(folder: Path) -> None:
    (folder / "model-00001-of-00030.safetensors").write_bytes(b"weights of others")


def edited_card(folder: Path) -> None:
    (folder / "README.md").write_text(sealed("# Model\n", "<!-- {} -->").replace("Model", "My model"))


def edited_results(folder: Path) -> None:
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "humaneval.yaml").write_text("- value: 99\n")


def text(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text("words")


@pytest.mark.parametrize(
    ("put", "name"),
    [
        (text("README.md"), "README.md"),
        (text("LICENSE"), "LICENSE"),
        (text("notes.md"), "notes.md"),
        (text("pytorch_model.bin"), "pytorch_model.bin"),
        (git, ".git"),
        (foreign_shard, "model-00001-of-00030.safetensors"),
        (edited_card, "README.md"),
        (edited_results, ".eval_results"),
        (lambda folder: (folder / "model.gguf").mkdir(), "model.gguf"),
    ],
)
def test_what_others_put_beside_a_model_stays(folder: Path, put: Callable[[Path], object], name: str) -> None:
    put(folder)
    before = bytes_of(folder)
    with pytest.raises(UserError, match="holds something else") as error:
        save(folder, seed=1)
    assert f", {name}: name another folder, or take that out" in str(error.value)
    assert "\n" not in str(error.value)
    assert bytes_of(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_many_files_are_told_in_one_short_line(folder: Path) -> None:
    for number in range(9):
        (folder / f"{number}.txt").write_text("words")
    with pytest.raises(UserError, match=r"0\.txt, 1\.txt, 2\.txt and 6 more: name"):
        save(folder)


def test_an_untouched_card_goes_with_its_weights(folder: Path) -> None:
    (folder / "README.md").write_text(sealed("# Model\n", "<!-- {} -->"))
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "humaneval.yaml").write_text(sealed("- value: 1\n", "# {}"))
    save(folder, seed=1)
    assert sorted(bytes_of(folder)) == ["config.json", "generation_config.json", "model.safetensors"]


def test_shards_of_the_folders_own_index_are_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MAX_SHARD_SIZE", "30KB")
    save(folder)
    assert len(list(folder.glob("model-0*.safetensors"))) > 1
    monkeypatch.setattr(folders, "MAX_SHARD_SIZE", "5GB")
    save(folder)
    assert sorted(bytes_of(folder)) == ["config.json", "generation_config.json", "model.safetensors"]


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": {"a": 3}}', '{"weight_map": 3}'])
def test_a_damaged_index_names_nothing(folder: Path, index: str) -> None:
    (folder / "model.safetensors.index.json").write_text(index)
    save(folder)
    foreign_shard(folder)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match="model-00001-of-00030"):
        save(folder)


def test_what_appears_while_a_model_is_written_stays_too(folder: Path) -> None:
    def write() -> None:
        with model_folder(folder) as partial:
            (partial / "config.json").write_text("{}")
            (folder / "notes.md").write_text("words")

    with pytest.raises(UserError, match=r"notes\.md"):
        write()
    assert (folder / "notes.md").read_text() == "words"
    assert list(folder.parent.iterdir()) == [folder]
