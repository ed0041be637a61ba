import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from starcoder.errors import UserError
from starcoder.model import StarCoder
from starcoder.release.callback import PushCheckpoints
from starcoder.release.push import push
from starcoder.tokenizer import Tokenizer
from starcoder.training.checkpoint import Checkpoint, complete
from starcoder.training.data import TokenDataModule
from starcoder.training.module import StarCoderModule, load_trained
from starcoder.training.parallel import ShardedStrategy
from starcoder.training.preemption import Preemption
from tests.conftest import ROOT, VOCAB_SIZE, Tiny
from tests.release.conftest import TOKEN
from tests.release.hub import ALWAYS, Hub

REPO = "ada/run"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": VOCAB_SIZE, "context_length": 32}


class Wait(Callback):
    """Holds a step until the push of an earlier one has ended, well or not."""

    def __init__(self, pusher: PushCheckpoints, step: int) -> None:
        self.pusher, self.step = pusher, step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        process = self.pusher._process
        if trainer.global_step == self.step and process is not None:
            process.wait(60)


@pytest.fixture(autouse=True)
def importable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def train(tiny: Tiny, folder: Path, *callbacks: Callback, steps: int = 6, save_every: int = 2) -> int:
    """The steps that a small run in `folder` has taken."""
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        log_every_n_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks, Checkpoint(str(folder), every_n_steps=save_every, keep=1)],
        strategy=ShardedStrategy(),
    )
    module = StarCoderModule("smoke", SHAPE, warmup_steps=2, decay_steps=30)
    trainer.fit(module, TokenDataModule(tiny.train, tiny.tokenizer, context_length=32, batch_size=4))
    return trainer.global_step


def branches(hub: Hub) -> list[str]:
    return sorted(ref.split("/")[-1] for ref in hub.repos[REPO].refs if "step-" in ref)


def test_checkpoints_are_pushed_while_a_model_trains(
    hub: Hub, tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    pusher = PushCheckpoints(REPO, gated="manual")
    assert train(tiny, folder, pusher, Wait(pusher, 6)) == 6
    assert len(branches(hub)) == 2  # one while it trained, although that checkpoint is gone, and the last one
    assert branches(hub)[-1] == "step-00000006"
    assert [path.name for path in complete(folder)] == ["step-00000006"]
    assert hub.repos[REPO].private
    assert hub.repos[REPO].gated == "manual"
    pushed = StarCoder.from_pretrained(_folder(hub, tmp_path / "copy", "step-00000006")).state_dict()
    trained = load_trained(folder).state_dict()
    assert all(torch.equal(pushed[name], tensor) for name, tensor in trained.items())
    shown = capfd.readouterr()
    assert "step-00000006 is on the Hub, a branch of ada/run" in shown.out
    assert TOKEN not in shown.out + shown.err
    assert not list(folder.parent.glob(".*"))


def _folder(hub: Hub, folder: Path, revision: str) -> Path:
    folder.mkdir()
    for name, content in hub.content(REPO, revision).items():
        (folder / name).write_bytes(content)
    return folder


def test_a_dead_server_stops_nothing_and_the_next_push_catches_up(
    hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert train(tiny, folder, PushCheckpoints(REPO), steps=2) == 2
    lines = [line for line in capfd.readouterr().err.split("\n") if "is not on the Hub" in line]
    assert lines == [
        "starcoder: step-00000002 is not on the Hub: the connection to the Hub was lost: run again, and it goes on with"
        " what is missing"
    ]
    assert hub.log == []
    for _ in range(2):
        push(run=folder, tokenizer=tiny.tokenizer, repo=REPO)
        assert branches(hub) == ["step-00000002"]
        assert len(hub.repos[REPO].commits) == 2
    assert {path.name for path in folder.iterdir()} == {"step-00000002"}


def test_a_branch_of_a_checkpoint_has_the_terms_of_main_and_nothing_else(
    hub: Hub, tiny: Tiny, tmp_path: Path, model: Path
) -> None:
    run = tmp_path / "run"
    train(tiny, run / "checkpoints", steps=2)
    shutil.copytree(tiny.tokenizer, run / "tokenizer")
    (run / "checkpoints" / ".push").mkdir()
    (run / "checkpoints" / ".push" / "mine").write_text("not to be removed")
    (model / "remarks.md").write_text("on the release alone\n")
    (model / "LICENSE").write_text("the terms\n")
    (model / "README.md").write_text("---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\nThe best.\n")
    push(model, repo=REPO, run=run, dtype="bfloat16")
    assert "remarks.md" in hub.content(REPO)
    there = hub.content(REPO, "step-00000002")
    assert there["LICENSE"] == b"the terms\n"
    card = there["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1]) == {
        "license": "other",
        "license_name": "mine",
        "license_link": "LICENSE",
    }
    assert f"{hub.endpoint}/{REPO}" in card
    assert "The best." not in card
    exported = {"model.safetensors", "config.json", "generation_config.json", "golden.json", ".gitattributes"}
    vocabulary = {path.name for path in tiny.tokenizer.iterdir()}
    assert there.keys() == {"LICENSE", "README.md"} | exported | vocabulary
    assert b'"bfloat16"' in there["config.json"]
    assert (run / "checkpoints" / ".push" / "mine").exists()
    assert len(list((run / "checkpoints").iterdir())) == 2
    push(run=run, repo=REPO, dry_run=True)


def test_what_somebody_has_put_on_a_branch_of_a_checkpoint_stays(
    hub: Hub, tiny: Tiny, tmp_path: Path, model: Path
) -> None:
    folder, branch = tmp_path / "checkpoints", "step-00000002"
    train(tiny, folder, steps=2)
    push(run=folder, tokenizer=tiny.tokenizer, repo=REPO)
    assert "README.md" not in hub.content(REPO, branch)
    by_hand = {"README.md": b"about this step\n", "notes.md": b"seen\n", "model-Q4_K_M.gguf": b"smaller\n"}
    for name, content in by_hand.items():
        hub.somebody_commits(REPO, name, content, branch)
    (model / "LICENSE").write_text("the terms\n")
    push(model, repo=REPO)
    for dtype in ("float32", "float16"):  # the weights that are there, and others
        push(run=folder, tokenizer=tiny.tokenizer, repo=REPO, dtype=dtype)
        there = hub.content(REPO, branch)
        assert by_hand.items() < there.items()
        assert there["LICENSE"] == b"the terms\n"


def test_a_tokenizer_that_is_not_there_is_told_before_anything_else(
    hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("starcoder.training.checkpoint.complete", lambda folder: [folder / "step-00000002"])
    with pytest.raises(UserError, match="nowhere"):
        push(run=tmp_path, tokenizer=tmp_path / "nowhere", repo=REPO, dry_run=True)
    assert hub.log == []


def test_whatever_fails_on_this_machine_stops_no_training(
    hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError("nicer than that already")

    def full(*_: object) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(os, "setpriority", forbidden)
    with monkeypatch.context() as patch:
        patch.setattr(PushCheckpoints, "_start", lambda self: subprocess.Popen(["true"]))
        assert train(tiny, tmp_path / "checkpoints", PushCheckpoints(REPO), steps=2) == 2
    shown = capfd.readouterr()
    assert "step-00000002 is on the Hub" in shown.out
    assert "is not on the Hub" not in shown.err
    monkeypatch.setattr(Tokenizer, "save", full)
    assert train(tiny, tmp_path / "more", PushCheckpoints(REPO), steps=2) == 2
    assert "step-00000002 is not on the Hub: cannot make" in capfd.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_the_end_does_not_wait_for_a_server_that_hangs(
    hub: Hub, tiny: Tiny, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.fail("GET", "whoami", times=ALWAYS, do=lambda: hub.resumed.wait(60) and None)
    pusher = PushCheckpoints(REPO, time_limit=0.5)
    began = time.monotonic()
    assert train(tiny, tmp_path / "checkpoints", pusher, steps=2) == 2
    assert time.monotonic() - began < 60
    assert "step-00000002 is not on the Hub: there was no time left" in capfd.readouterr().err
    assert not list(tmp_path.glob(".checkpoints*"))


def test_a_preempted_run_does_not_wait(hub: Hub, tiny: Tiny, tmp_path: Path) -> None:
    class Preempted(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    folder, handlers = tmp_path / "checkpoints", {number: signal.getsignal(number) for number in SIGNALS}
    try:
        assert train(tiny, folder, PushCheckpoints(REPO), Preemption(), Preempted(), steps=50) < 50
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert len(complete(folder)) == 1
    assert REPO not in hub.repos


def test_what_can_be_mended_is_told_before_the_first_step(
    hub: Hub, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options in ({"repo": "run"}, {"repo": REPO, "time_limit": -1}):
        with pytest.raises(UserError):
            PushCheckpoints(**options)  # type: ignore[arg-type]
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match="no token"):
        train(tiny, tmp_path / "checkpoints", PushCheckpoints(REPO))
    assert complete(tmp_path / "checkpoints") == []
