"""Checkpoints on the Hub while a model trains; whatever the network does, the training goes on.

trainer:
  callbacks:
    - class_path: starcoder.release.callback.PushCheckpoints
      init_args: {repo: owner/name, gated: manual}

A process of its own exports the newest checkpoint and pushes it as the branch `step-…`, one at a time: those that are
written meanwhile are left out, but for the last one. It reads hard links, so that the run may remove the checkpoint.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import get_token
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from starcoder.distributed import raise_together
from starcoder.errors import UserError, one_line
from starcoder.release.push import check_name
from starcoder.tokenizer import Tokenizer
from starcoder.training.checkpoint import Checkpoint, newest
from starcoder.training.preemption import Preemption

_OF_RANKS = ("RANK", "LOCAL_RANK", "GROUP_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR",
             "MASTER_PORT")  # fmt: skip


class PushCheckpoints(Callback):
    """Pushes what `starcoder.training.checkpoint.Checkpoint` saves.

    Args:
        repo: `owner/name` on the Hub.
        visibility: private when a new repository is to be, and nothing is said; an existing one stays as it is.
        gated: whether people have to ask for the files, and whether that is granted automatically or by you.
        time_limit: seconds that the end of the training waits for the last checkpoint; none when it was preempted.

    Raises:
        UserError: when `repo` is no name, or `time_limit` below 0.
    """

    def __init__(
        self,
        repo: str,
        visibility: Literal["private", "public"] | None = None,
        gated: Literal["auto", "manual"] | None = None,
        time_limit: float = 600,
    ) -> None:
        check_name(repo)
        if time_limit < 0:
            raise UserError(f"time_limit is {time_limit}, below 0")
        self.repo, self.time_limit = repo, time_limit
        self._options = ["--repo", repo]
        self._options += ["--visibility", visibility] if visibility else []
        self._options += ["--gated", gated] if gated else []
        self._process: subprocess.Popen[bytes] | None = None
        self._name = self._pushed = ""
        self._asked_step = -1

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what can be mended now and not in a week.

        Raises:
            UserError: when nothing saves checkpoints, or there is no token.
        """
        saving = [callback for callback in _callbacks(trainer) if isinstance(callback, Checkpoint)]
        tokenizer = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if not saving or not isinstance(tokenizer, Tokenizer):
            raise UserError("PushCheckpoints needs a Checkpoint that saves, and a TokenDataModule with its tokenizer")
        self.folder, self.tokenizer = saving[0].folder, tokenizer
        self.outbox = self.folder.with_name(f".{self.folder.name}.push")
        no_token = "there is no token for the Hub: log in with `hf auth login`, or set HF_TOKEN"
        raise_together([no_token] if trainer.is_global_zero and get_token() is None else [])

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Begin with the newest checkpoint unless one is on its way; looked at the steps that are logged."""
        if trainer.is_global_zero and self._due(trainer):
            self._settle(0)
            self._begin()

    def _due(self, trainer: Any) -> bool:
        step, asked = trainer.global_step, self._asked_step
        self._asked_step = step
        return bool(step != asked and step % trainer.log_every_n_steps == 0)

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Push the last checkpoint, within the time limit."""
        if not trainer.is_global_zero:
            return
        preempted = any(isinstance(callback, Preemption) and callback.stopped for callback in _callbacks(trainer))
        deadline = time.monotonic() + (0 if preempted else self.time_limit)
        self._settle(deadline - time.monotonic())
        if self._process is None and time.monotonic() < deadline:
            self._name = self._pushed  # what failed is tried once more
            self._begin()
            self._settle(deadline - time.monotonic())
        self._give_up()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no process behind."""
        self._give_up()

    def _begin(self) -> None:
        """Start to push the newest checkpoint, unless one is on its way or it was tried already."""
        try:
            checkpoint = newest(self.folder)
            if self._process or checkpoint is None or checkpoint.name == self._name:
                return
            self._name = checkpoint.name
            shutil.rmtree(self.outbox, ignore_errors=True)
            shutil.copytree(checkpoint, self.outbox / self._name, copy_function=os.link)
            self.tokenizer.save(self.outbox / "tokenizer")
            self._process = self._start()
        except Exception as error:  # whatever it is, the training goes on
            shutil.rmtree(self.outbox, ignore_errors=True)
            self._tell(f"cannot make {self.outbox}: {one_line(error)}")
            return
        with suppress(OSError):  # a job that is nicer already may not take that back
            os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)  # training goes first

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "starcoder.cli", "push", "--run", str(self.outbox)]
        command += ["--tokenizer", str(self.outbox / "tokenizer"), *self._options]
        environment = {name: value for name, value in os.environ.items() if name not in _OF_RANKS}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        with (self.outbox / "log").open("wb") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _settle(self, seconds: float) -> None:
        """Wait for the push on its way for so long; say how it went."""
        if self._process is None:
            return
        try:
            failed = self._process.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            return
        self._process = None
        if failed:
            self._tell(_last_line(self.outbox / "log") or f"the process that pushes ended with {failed}")
        else:
            self._pushed = self._name
            print(f"{self._name} is on the Hub, a branch of {self.repo}", flush=True)
        shutil.rmtree(self.outbox, ignore_errors=True)

    def _give_up(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None
            shutil.rmtree(self.outbox, ignore_errors=True)
            self._tell("there was no time left")

    def _tell(self, reason: str) -> None:
        print(f"starcoder: {self._name} is not on the Hub: {reason}", file=sys.stderr, flush=True)


def _callbacks(trainer: Any) -> Sequence[object]:
    found: Sequence[object] = trainer.callbacks
    return found


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.removeprefix("starcoder: ") for line in reversed(lines) if line.strip()), "")
