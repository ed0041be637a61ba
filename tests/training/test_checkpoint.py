"""Checkpoints are whole or absent, and say what is wrong with them in one line."""

import random
import shutil
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch import Trainer
from torch.distributed.checkpoint.filesystem import _FileSystemWriter

from starcoder.errors import UserError
from starcoder.storage import sha256
from starcoder.training.checkpoint import Checkpoint, Saver, complete, damages, newest, read_meta, read_weights
from starcoder.training.data import TokenDataModule
from starcoder.training.module import StarCoderModule, load_trained
from starcoder.training.parallel import ShardedStrategy
from tests.conftest import VOCAB_SIZE, Tiny

SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": VOCAB_SIZE, "context_length": 32}


def fit(
    tiny: Tiny,
    folder: Path,
    steps: int,
    ckpt_path: Path | None = None,
    shape: dict[str, int] = SHAPE,
    keep: int = 2,
    **changes: Any,
) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        strategy=ShardedStrategy(),
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Checkpoint(str(folder), every_n_steps=2, keep=keep)],
    )
    data = TokenDataModule(tiny.train, tiny.tokenizer, context_length=32)
    trainer.fit(StarCoderModule("smoke", shape, **changes), data, ckpt_path=ckpt_path)
    return trainer


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints after 7 steps."""
    folder = tmp_path_factory.mktemp("trained")
    fit(tiny, folder, 7)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_the_newest_stay_and_the_last_step_is_saved(trained: Path) -> None:
    assert [path.name for path in sorted(trained.iterdir())] == ["step-00000006", "step-00000007"]
    assert read_meta(trained / "step-00000007")["global_step"] == 7
    assert newest(trained) == trained / "step-00000007"


def test_what_was_not_written_to_its_end_does_not_count_and_goes(tiny: Tiny, folder: Path) -> None:
    shutil.copytree(folder / "step-00000007", folder / "step-00000009")
    (folder / "step-00000009" / "complete").unlink()
    assert newest(folder) == folder / "step-00000007"
    with pytest.raises(UserError, match="no checkpoint that was written to its end"):
        read_meta(folder / "step-00000009")
    fit(tiny, folder, 8, newest(folder))
    assert [path.name for path in complete(folder)] == ["step-00000007", "step-00000008"]
    assert not (folder / "step-00000009").exists()


def test_a_new_run_does_not_mix_with_an_old_one(tiny: Tiny, folder: Path) -> None:
    with pytest.raises(UserError, match="of an earlier run: go on with --ckpt_path last"):
        fit(tiny, folder, 8)


def test_going_back_does_not_remove_what_came_later(tiny: Tiny, folder: Path) -> None:
    with pytest.raises(UserError, match="holds later checkpoints than step 6: remove step-00000007"):
        fit(tiny, folder, 8, folder / "step-00000006")
    assert len(complete(folder)) == 2


def test_what_the_recipe_says_now_wins(tiny: Tiny, folder: Path) -> None:
    trainer = fit(tiny, folder, 8, newest(folder), learning_rate=7e-5, weight_decay=0.5, beta2=0.99)
    groups = trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert all(group["betas"] == (0.9, 0.99) and group["initial_lr"] == 7e-5 for group in groups)
    assert 0 < groups[0]["lr"] <= 7e-5


def test_single_bits_anywhere_in_a_file_are_told(folder: Path) -> None:
    """In tensors, in the directories of their archives, and between them."""
    path = folder / "step-00000007" / "__0_0.distcp"
    content, moments = path.read_bytes(), random.Random(0)
    expected = read_weights(path.parent)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
        path.write_bytes(damaged)
        if damages(path.parent):
            with pytest.raises(UserError, match="damaged"):
                load_trained(path.parent)
        else:  # a bit that says nothing, such as a date
            assert all(torch.equal(tensor, expected[name]) for name, tensor in read_weights(path.parent).items())


def test_single_bits_anywhere_in_the_index_are_told(folder: Path) -> None:
    path = folder / "step-00000007" / ".metadata"
    content, moments = path.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
        path.write_bytes(damaged)
        assert "damaged" in damages(path.parent)[0]


@pytest.mark.parametrize("name", ["meta.pt", ".metadata", "complete", "__0_0.distcp"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_damage_is_one_line(tiny: Tiny, folder: Path, name: str, damage: str) -> None:
    path = folder / "step-00000007" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    for read in (lambda: fit(tiny, folder, 9, path.parent), lambda: load_trained(path.parent)):
        with pytest.raises(UserError, match=r"damaged|no checkpoint") as error:
            read()
        assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_model_or_tokenizer_is_refused(tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of another model: n_layer 1 instead of 2, n_embd 16 instead of 32"):
        fit(tiny, folder, 9, newest(folder), shape=SHAPE | {"n_layer": 2, "n_embd": 32})
    meta = folder / "step-00000007" / "meta.pt"
    torch.save(torch.load(meta) | {"tokenizer": "another"}, meta)
    with pytest.raises(UserError, match="another tokenizer"):
        fit(tiny, folder, 9, newest(folder))


def test_a_foreign_checkpoint_has_no_model_for_us(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000001"
    dcp.save({"state_dict": {"weight": torch.zeros(1)}}, checkpoint_id=folder, no_dist=True)
    torch.save({}, folder / "meta.pt")
    (folder / "complete").write_text(sha256(folder / ".metadata"))
    with pytest.raises(UserError, match="no checkpoint of this kit"):
        load_trained(folder)
    with pytest.raises(UserError, match="there is no checkpoint in"):
        load_trained(tmp_path / "missing")


def test_a_disk_too_small_for_the_checkpoints_is_told_before_training(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.raises(UserError, match=r"the disk is full: .* has 0.0001 GB, but needs 3 x"):
        fit(tiny, tmp_path / "run", 4)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_told_before_training(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*file/run: "):
        fit(tiny, tmp_path / "file" / "run", 4)


def test_a_torn_checkpoint_makes_room_before_it_is_measured(
    tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder / "step-00000007", folder / "step-00000009")
    (folder / "step-00000009" / "complete").unlink()
    free = {True: 0, False: 10**9}
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: SimpleNamespace(free=free[(folder / "step-00000009").exists()])
    )
    fit(tiny, folder, 8, newest(folder))
    assert newest(folder) == folder / "step-00000008"


@pytest.mark.parametrize(("steps", "saved"), [(8, [4, 6, 8]), (2, [2])])
def test_a_save_that_fails_is_tried_again_with_the_next_weights(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, saved: list[int]
) -> None:
    """The disk stumbles once, in the background; what fails at the end of training is tried again too."""
    write, stumbles = _FileSystemWriter.write_data, iter([True])

    def stumble(*args: Any) -> Any:
        if next(stumbles, False):
            raise OSError("the disk stumbled")
        return write(*args)

    monkeypatch.setattr(_FileSystemWriter, "write_data", stumble)
    fit(tiny, tmp_path, steps, keep=9)
    assert [path.name for path in complete(tmp_path)] == [f"step-{step:08d}" for step in saved]
    assert len(list(tmp_path.iterdir())) == len(saved)
    assert not damages(tmp_path / f"step-{steps:08d}")


def test_a_save_that_failed_is_noticed_when_a_step_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer: Any = SimpleNamespace(
        global_step=1, log_every_n_steps=5, strategy=SimpleNamespace(saver=Saver(), root_device=torch.device("cpu"))
    )
    saves: list[int] = []
    failing = Checkpoint(str(tmp_path), every_n_steps=100)
    monkeypatch.setattr(failing, "save", lambda trainer: saves.append(trainer.global_step))
    trainer.strategy.saver._pending = Future()
    trainer.strategy.saver._pending.set_exception(OSError())
    for step in (1, 4, 5, 5, 6):
        trainer.global_step = step
        failing.on_train_batch_end(trainer, cast(Any, None), None, None, 0)
    assert saves == [5]


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(
    tiny: Tiny, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk of 64 KB: the first checkpoint would take 100."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    with pytest.raises(UserError, match=r"cannot write .*step-0000000\d, with .* GB free on its disk") as error:
        fit(tiny, small_disk / "run", 4)
    assert "\n" not in str(error.value)
    assert newest(small_disk / "run") is None
    assert not list((small_disk / "run").glob("step-*"))


def test_numbers_that_cannot_be() -> None:
    with pytest.raises(UserError, match="every_n_steps is 0, below 1; keep is -1, below 1"):
        Checkpoint("folder", every_n_steps=0, keep=-1)
