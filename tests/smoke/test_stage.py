import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.smoke.stage import Stage, Workspace, digest, states


class Recorder:
    """Runs a "command" by writing its second word into the file that its first word names."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, command: list[str]) -> None:
        self.calls.append(command)
        if len(command) == 1:
            return
        path = Path(command[0])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(command[1])


def chain(root: Path, recorder: Recorder, first: str = "a", fact: str = "") -> list[str]:
    """Bring two dependent stages up to date; returns the names of those that ran."""
    workspace, before = Workspace(root, recorder), len(recorder.calls)
    workspace.run(Stage("one", (str(root / "one"), first), code=("errors.py",), facts=(fact,)))
    workspace.run(Stage("two", (str(root / "two"), "b"), code=("errors.py",), reads=("one",)))
    return [Path(call[0]).name for call in recorder.calls[before:]]


def test_a_stage_runs_once_and_again_when_what_it_depends_on_changes(tmp_path: Path) -> None:
    recorder = Recorder()
    assert chain(tmp_path, recorder) == ["one", "two"]
    assert chain(tmp_path, recorder) == []
    assert chain(tmp_path, recorder, first="c") == ["one", "two"]
    assert chain(tmp_path, recorder, first="c", fact="another interpreter") == ["one", "two"]


def test_a_folder_is_for_one_run_at_a_time(tmp_path: Path) -> None:
    with Workspace(tmp_path, Recorder()), pytest.raises(UserError, match="another run"):
        Workspace(tmp_path, Recorder()).__enter__()
    Workspace(tmp_path, Recorder()).__enter__().lock.close()


def test_a_damaged_resumable_artefact_is_not_resumed(tmp_path: Path) -> None:
    found: list[bool] = []

    def train(command: list[str]) -> None:
        folder = tmp_path / "run"
        found.append((folder / "weights").exists())
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text("trained")

    stage = Stage("run", ("x",), code=("errors.py",), resumable=True)
    Workspace(tmp_path, train).run(stage)
    (tmp_path / "run" / "weights").write_text("damaged")
    Workspace(tmp_path, train).run(stage)
    assert found == [False, False]


def test_a_damaged_artefact_is_made_again(tmp_path: Path) -> None:
    recorder = Recorder()
    chain(tmp_path, recorder)
    (tmp_path / "one").write_text("half of i")
    assert chain(tmp_path, recorder) == ["one"]
    (tmp_path / "two").unlink()
    assert chain(tmp_path, recorder) == ["two"]


def test_a_failed_stage_is_not_taken_for_done(tmp_path: Path) -> None:
    def fail(command: list[str]) -> None:
        Path(command[0]).write_text("half")
        raise RuntimeError("no power")

    stage = Stage("one", (str(tmp_path / "one"), "a"), code=("errors.py",))
    with pytest.raises(RuntimeError):
        Workspace(tmp_path, fail).run(stage)
    recorder = Recorder()
    Workspace(tmp_path, recorder).run(stage)
    assert len(recorder.calls) == 1
    assert (tmp_path / "one").read_text() == "a"


@pytest.mark.parametrize("resumable", [True, False])
def test_only_a_resumable_stage_with_its_own_key_finds_what_it_left(tmp_path: Path, resumable: bool) -> None:
    seen: list[bool] = []

    def interrupted(command: list[str]) -> None:
        folder = tmp_path / "run"
        seen.append((folder / "half").exists())
        folder.mkdir(exist_ok=True)
        (folder / "half").write_text("x")
        if len(seen) == 1:
            raise KeyboardInterrupt

    def stage(word: str) -> Stage:
        return Stage("run", (word,), code=("errors.py",), resumable=resumable)

    with pytest.raises(KeyboardInterrupt):
        Workspace(tmp_path, interrupted).run(stage("same"))
    Workspace(tmp_path, interrupted).run(stage("same"))
    Workspace(tmp_path, interrupted).run(stage("other"))
    assert seen == [False, resumable, False]


def test_an_interrupted_stage_keeps_its_time(tmp_path: Path) -> None:
    def work(command: list[str]) -> None:
        (tmp_path / "run").mkdir(exist_ok=True)
        time.sleep(0.2)
        if not (tmp_path / "run" / "half").exists():
            (tmp_path / "run" / "half").touch()
            raise KeyboardInterrupt

    stage = Stage("run", ("x",), code=("errors.py",), resumable=True)
    with pytest.raises(KeyboardInterrupt):
        Workspace(tmp_path, work).run(stage)
    assert states(tmp_path)["run"]["seconds"] >= 0.2
    Workspace(tmp_path, work).run(stage)
    assert states(tmp_path)["run"]["seconds"] >= 0.4


def test_a_stage_that_makes_nothing_is_never_up_to_date(tmp_path: Path) -> None:
    recorder = Recorder()
    for _ in range(2):
        Workspace(tmp_path, recorder).run(Stage("nothing", ("x",), code=("errors.py",)))
    assert len(recorder.calls) == 2


def test_a_missing_file_is_noticed_though_its_content_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    for name in ("results.json", "page.html"):
        (tmp_path / "made" / name).write_text("x")
    before = digest(tmp_path / "made", "results.json")
    (tmp_path / "made" / "page.html").write_text("another time of day")
    assert digest(tmp_path / "made", "results.json") == before
    (tmp_path / "made" / "page.html").unlink()
    assert digest(tmp_path / "made", "results.json") != before


def test_clearing_spares_the_lock(tmp_path: Path) -> None:
    recorder = Recorder()
    chain(tmp_path, recorder)
    with Workspace(tmp_path, recorder) as workspace:
        workspace.clear()
        assert [path.name for path in tmp_path.rglob("*")] == [".state", "lock"]
        with pytest.raises(UserError, match="another run"):
            Workspace(tmp_path, recorder).__enter__()
    assert chain(tmp_path, recorder) == ["one", "two"]


def test_digest_names_contents_and_names(tmp_path: Path) -> None:
    for name, content in (("a", "1"), ("b", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(content)
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    (tmp_path / "b" / "file").write_text("1")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    (tmp_path / "b" / "file").rename(tmp_path / "b" / "other")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")
    assert digest(tmp_path / "missing") is None


def test_a_killed_stage_leaves_a_state_that_is_not_done(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from starcoder.smoke.stage import Stage, Workspace\n"
        "Workspace(Path(sys.argv[1]), lambda command: time.sleep(60)).run(Stage('one', ('x',), code=('errors.py',)))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[2])
    while "one" not in states(tmp_path):
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "digest" not in states(tmp_path)["one"]
    recorder = Recorder()
    Workspace(tmp_path, recorder).run(Stage("one", ("x",), code=("errors.py",)))
    assert recorder.calls == [["x"]]
