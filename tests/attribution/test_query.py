import json
import subprocess
import sys
from pathlib import Path

import pytest

from starcoder.attribution.index import index
from tests.attribution.corpora import file, files, function, write_corpus
from tests.conftest import Command
from tests.test_cli import assert_one_line

TRAIN = [*files("ann", 2, 4), file("bob/tool", "main.py", license="Apache-2.0"), *files("cat", 2, 4)]
COPIED = function("bob/tool/main.py/1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    index(write_corpus(folder / "corpus", TRAIN, files("held", 7, 3)), folder / "build" / "trace")
    (folder / "copied.py").write_text(f"import os\n\n\n{COPIED}")
    (folder / "part.py").write_text("\n".join(COPIED.splitlines()[3:6]))
    (folder / "mine.py").write_text(function("mine"))
    return folder


def test_the_report_names_the_source(in_process: Command, folder: Path) -> None:
    result = in_process(folder, "trace", "query", "copied.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("VERBATIM AND RARE: lines 4-")
    assert "Apache-2.0  bob/tool/main.py:" in result.stdout
    assert (
        "To ship this text you owe attribution to\n  bob/tool at c0ffee (Apache-2.0): main.py, lines" in result.stdout
    )
    assert "NOTICE file" in result.stdout


def test_programs_read_json_from_standard_input(folder: Path) -> None:
    program = "from starcoder.cli import main; main()"
    command = [sys.executable, "-c", program, "trace", "query", "-", "--format", "json"]
    result = subprocess.run(command, cwd=folder, input=COPIED, capture_output=True, text=True, check=True)
    told = json.loads(result.stdout)
    assert told["verdict"]["level"] == "verbatim"
    assert told["verdict"]["share"] > 0.95
    match = told["matches"][0]
    assert match["sources"][0]["repository"] == "bob/tool"
    assert COPIED[match["start"] : match["end"]].count("\n") == match["lines"][1] - match["lines"][0]
    (owed,) = told["verdict"]["owed"]
    assert list(owed["asks"]) == ["Apache-2.0"]


@pytest.mark.parametrize(
    ("text", "fail_on", "code"),
    [
        ("copied.py", "verbatim", 1),
        ("copied.py", "partial", 1),
        ("part.py", "verbatim", 0),
        ("part.py", "partial", 1),
        ("mine.py", "partial", 0),
    ],
)
def test_the_exit_code_tells_ci(in_process: Command, folder: Path, text: str, fail_on: str, code: int) -> None:
    result = in_process(folder, "trace", "query", text, "--fail-on", fail_on)
    assert result.returncode == code, result.stdout + result.stderr
    assert result.stderr.count("\n") == code
    assert result.stdout


def test_a_report_in_a_file(in_process: Command, folder: Path, tmp_path: Path) -> None:
    result = in_process(folder, "trace", "query", "mine.py", "--output", str(tmp_path / "report.txt"))
    assert result.stdout == f"wrote {tmp_path / 'report.txt'}\n"
    assert (tmp_path / "report.txt").read_text().startswith("NOTHING FOUND")


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", [], ["asked is empty", "name a text in UTF-8"]),
        (b" \n \n", [], ["asked is empty"]),
        (b"\x7fELF\0\0", [], ["asked is binary"]),
        (b"caf\xe9", [], ["asked is not UTF-8 (byte 3)"]),
        (b"x = 1\n" * 1_700_000, [], ["asked has more than 800,000 bytes", "at most 200,000 characters"]),
        (b"\0" * 10_000_000, [], ["asked has more than 800,000 bytes"]),
        (b"x = 1\n" * 50_000, [], ["the text has 300,000 characters", "at most 200,000"]),
        (None, [], ["asked cannot be read: No such file"]),
        (b"x = 1\n", ["--index", "corpus"], ["no index in corpus", "starcoder trace index"]),
        (b"x = 1\n", ["--k", "0"], ["k is 0"]),
        (b"x = 1\n", ["--language", "klingon"], ["no language 'klingon'"]),
        (b"x = 1\n", ["--license", "MITT"], ["no such SPDX licence id: MITT"]),
        (b"x = 1\n", ["--repository", "nobody/here"], ["nothing of 'nobody/here' is in corpus: "]),
        (b"x = 1\n", ["--repository", "held/lib0"], ["nothing of 'held/lib0' is in corpus: "]),
        (b"x = 1\n", ["--opt_out", "missing.txt"], ["the opt-out list missing.txt cannot be read"]),
        (b"x = 1\n", ["--fail-on", "similar"], ["fail_on"]),
        (b"x = 1\n", ["--output", "."], [". is a folder: name a file"]),
        (b"x = 1\n", ["--html", "corpus"], ["corpus is a folder: name a file"]),
        (b"x = 1\n", ["--html", "/dev/null/page.html"], ["/dev/null"]),
    ],
)
def test_bad_input_is_one_line(
    in_process: Command, folder: Path, content: bytes | None, options: list[str], words: list[str]
) -> None:
    path = folder / "asked"
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    assert_one_line(in_process(folder, "trace", "query", "asked", *options), *words)


def test_a_corpus_of_another_version_is_told_without_whose_machine_it_is(in_process: Command, tmp_path: Path) -> None:
    summary = write_corpus(tmp_path / "corpus", TRAIN) / "corpus.json"
    assert in_process(tmp_path, "trace", "index", "corpus").returncode == 0
    (tmp_path / "copied.py").write_text(COPIED)
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"format": 1}))
    result = in_process(tmp_path, "trace", "query", "copied.py")
    assert_one_line(result, "corpus holds a corpus of another version: build it again")
    assert str(tmp_path) not in result.stderr
    summary.unlink()
    result = in_process(tmp_path, "trace", "query", "copied.py")
    assert_one_line(result, "no corpus in corpus: make one with `starcoder corpus build --output corpus`")


def test_a_calibration_is_told_with_every_verdict(in_process: Command, folder: Path) -> None:
    before = in_process(folder, "trace", "query", "copied.py").stdout
    assert "run `starcoder trace calibrate build/trace`" in before
    result = in_process(folder, "trace", "calibrate")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1].split() == ["all", "300", "9", "0.0%", "0.0%", "0.0%"]
    again = (folder / "build" / "trace" / "calibration.json").stat()
    assert in_process(folder, "trace", "calibrate").stdout == result.stdout
    assert (folder / "build" / "trace" / "calibration.json").stat() == again  # nothing was measured
    told = in_process(folder, "trace", "query", "copied.py").stdout.splitlines()[1]
    assert (
        told
        == "  no human code snippets of about 1,000 characters came to this level (0 of 9 from 3 repositories held out)"
    )
    told = in_process(folder, "trace", "query", "mine.py").stdout.splitlines()[1]
    assert told.startswith("  in 9 of 9 from 3 repositories held out")
    (folder / "build" / "trace" / "calibration.json").unlink()


def test_from_the_index_to_the_opt_out(in_process: Command, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", TRAIN)
    (tmp_path / "copied.py").write_text(COPIED)
    (tmp_path / "list.txt").write_text("bob\n")
    assert in_process(tmp_path, "trace", "index", "corpus").returncode == 0
    assert "bob/tool" in in_process(tmp_path, "trace", "query", "copied.py").stdout
    assert in_process(tmp_path, "corpus", "opt-out", "list.txt", "--corpus", "corpus").returncode == 0
    assert_one_line(in_process(tmp_path, "trace", "query", "copied.py"), "changed since it was indexed")
    assert in_process(tmp_path, "trace", "index", "corpus").returncode == 0
    for options in ([], ["--format", "json"]):
        result = in_process(tmp_path, "trace", "query", "copied.py", *options)
        assert result.returncode == 0
        assert "bob" not in result.stdout
