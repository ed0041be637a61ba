"""What is forked from the nursery is a process like any other."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.nursery import begin, end, run, start

TOLD = "import json, os, sys; print(json.dumps([sys.argv, os.getcwd(), dict(os.environ), os.getsid(0), os.getpid()]))"


def test_it_has_its_own_folder_arguments_environment_and_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in ("one", "another"):
        monkeypatch.setenv("WORD", word)
        (tmp_path / "home").mkdir(exist_ok=True)
        process = begin(TOLD, 1, word, folder=tmp_path)
        arguments, folder, environment, session, pid = json.loads(end(process, 60).stdout)
        assert (arguments, folder) == (["-c", "1", word], str(tmp_path))
        assert (environment["WORD"], environment["HOME"]) == (word, str(tmp_path / "home"))
        assert session == pid == process.pid != os.getsid(0)


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("", 0, ""),
        ("import sys; sys.exit('no power')", 1, "no power\n"),
        ("import sys; sys.exit(75)", 75, ""),
        ("import sys; sys.exit(-1)", 255, ""),
        (
            "import threading as t, time, os; t.Thread(target=lambda: (time.sleep(0.1), os.write(2, b'late'))).start()",
            0,
            "late",
        ),
        ("raise ValueError('no number')", 1, "ValueError: no number\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("import atexit, os; atexit.register(os.write, 2, b'the end')", 0, "the end"),
    ],
)
def test_it_ends_as_an_interpreter_does(program: str, code: int, words: str) -> None:
    result = end(begin(program), 60)
    assert result.returncode == code
    assert result.stderr.endswith(words)
    assert bool(result.stderr) == bool(words)


def test_it_hears_signals_and_ends_with_what_it_started() -> None:
    with begin("import os, time\nos.fork()\nprint(os.getpid(), flush=True)\ntime.sleep(60)") as process:
        assert process.stdout.readline()
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        with pytest.raises(subprocess.TimeoutExpired):
            end(process, 0.01)
        assert process.wait(60) == -signal.SIGKILL
    with begin("print(1, flush=True); import time; time.sleep(60)") as process:
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(60)[1]
    assert process.returncode == -signal.SIGINT


def test_nobody_gets_its_id_before_its_end_is_known() -> None:
    process = begin("pass")
    assert process.stdout.read() == ""
    assert process.stderr.read() == ""
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0


def test_much_output_is_read() -> None:
    assert run("print('x' * 1_000_000)") == "x" * 1_000_000 + "\n"


def test_what_fails_is_told() -> None:
    with pytest.raises(AssertionError, match="no such thing"):
        run("import sys; sys.exit('no such thing')")


def test_the_command_line(tmp_path: Path) -> None:
    result = end(start(tmp_path, "bake"), 60)
    assert result.returncode == 2
    assert result.stderr.startswith("starcoder: no subcommand 'bake'")
