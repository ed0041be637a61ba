"""Stages that run once: a stage is a command line, done when its artefact carries the key of everything it depends on.

    key     = hash(command, code it runs, keys of the stages it reads)      decides whether the artefact is up to date
    digest  = hash(names of its files, contents that matter)                decides whether it is still intact

The state file of a stage is written before it starts and after it ends. Killed in between, a resumable stage finds its
own key and goes on, any other starts over; a folder left by another key is removed first.
"""

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from starcoder.errors import UserError
from starcoder.storage import atomic_file, check_replaceable

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    Args:
        name: the artefact's path under the workspace, a folder or a file.
        command: arguments of `starcoder` that make the artefact; shown to the user and part of the key.
        code: files and folders of the package that the result depends on, relative to `starcoder/`.
        reads: names of the stages whose artefacts go in.
        facts: other text that the result depends on, such as recipes or the fingerprint of a source.
        digest_of: glob of the artefact's files whose contents are the same in every undisturbed run.
        resumable: whether an interrupted action goes on from what it left.
    """

    name: str
    command: tuple[str, ...]
    code: tuple[str, ...]
    reads: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    digest_of: str = "**/*"
    resumable: bool = False


class Workspace:
    """A folder of artefacts and the state of the stages that make them.

    Args:
        root: the folder; nothing outside it is written.
        run_command: runs a stage's command.
    """

    def __init__(self, root: Path, run_command: Callable[[list[str]], None]) -> None:
        self.root = root
        self.run_command = run_command
        self.keys: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Take the folder for this process alone; the lock ends with the process, however it ends.

        Raises:
            UserError: when another run has it, or it holds anything but what a run makes.
        """
        path = self.root / ".state" / "lock"
        if not path.parent.is_dir():
            check_replaceable(self.root, ".state/lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = path.open("w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is at work in {self.root}: wait for it, or name another folder") from None
        return self

    def __exit__(self, *_: object) -> None:
        """Give the folder back."""
        self.lock.close()

    def clear(self) -> None:
        """Remove everything but the lock, what was done first: killed in between, nothing counts as up to date."""
        for state in (self.root / ".state").glob("*.json"):
            state.unlink()
        for artefact in self.root.iterdir():
            if artefact.name != ".state":
                _remove(artefact)

    def run(self, stage: Stage) -> None:
        """Bring `stage` up to date, saying what is done and how long it took."""
        key = self.keys[stage.name] = self._key(stage)
        artefact, state = self.root / stage.name, self._read_state(stage)
        finished = state.get("key") == key and state.get("digest") is not None
        if finished and state["digest"] == digest(artefact, stage.digest_of):
            print(f"== {stage.name}: up to date", flush=True)
            return
        print(f"== {stage.name}\n$ starcoder {' '.join(stage.command)}", flush=True)
        interrupted = state.get("key") == key and not finished
        if not (stage.resumable and interrupted):
            _remove(artefact)
            state = {"key": key, "seconds": 0.0}
        self._write_state(stage, {"key": key, "seconds": state["seconds"]})
        start = time.monotonic()
        try:
            self.run_command(list(stage.command))
        finally:  # an interrupted stage keeps its time, a killed one loses it
            seconds = state["seconds"] + time.monotonic() - start
            self._write_state(stage, {"key": key, "seconds": seconds})
        self._write_state(stage, {"key": key, "seconds": seconds, "digest": digest(artefact, stage.digest_of)})
        print(f"== {stage.name}: {seconds:.1f} s", flush=True)

    def _key(self, stage: Stage) -> str:
        parts = [*stage.command, source_digest(stage.code), *(self.keys[name] for name in stage.reads), *stage.facts]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def _state_path(self, stage: Stage) -> Path:
        return self.root / ".state" / f"{stage.name.replace('/', '-')}.json"

    def _read_state(self, stage: Stage) -> dict[str, Any]:
        path = self._state_path(stage)
        state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return state

    def _write_state(self, stage: Stage, state: dict[str, Any]) -> None:
        with atomic_file(self._state_path(stage)) as partial:
            partial.write_text(json.dumps(state))


def states(root: Path) -> dict[str, dict[str, Any]]:
    """State of every stage that has begun in the workspace `root`: key, seconds and, once it is done, digest."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((root / ".state").glob("*.json"))}


def digest(artefact: Path, pattern: str = "**/*") -> str | None:
    """Hash of the names of a folder's files and the contents of those that match `pattern`; None when it is missing.

    An artefact that is one file is hashed as it is.
    """
    if artefact.is_file():
        return hashlib.sha256(artefact.read_bytes()).hexdigest()
    if not artefact.is_dir():
        return None
    names = "\0".join(str(path.relative_to(artefact)) for path in sorted(artefact.rglob("*")))
    contents = _digest_files((str(path.relative_to(artefact)), path) for path in sorted(artefact.glob(pattern)))
    return hashlib.sha256(f"{names}\0{contents}".encode()).hexdigest()


def source_digest(code: Iterable[str]) -> str:
    """Hash of the package's source files named by `code`."""
    files = sorted(file for name in code for file in _source_files(PACKAGE / name))
    return _digest_files((str(file.relative_to(PACKAGE)), file) for file in files)


def _digest_files(files: Iterable[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    for name, path in files:
        if path.is_file():
            total.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _source_files(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.suffix in (".py", ".html")] if path.is_dir() else [path]


def _remove(artefact: Path) -> None:
    if artefact.is_dir():
        shutil.rmtree(artefact)
    else:
        artefact.unlink(missing_ok=True)
