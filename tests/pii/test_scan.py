import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from starcoder.cli import run
from starcoder.errors import UserError
from starcoder.pii import scan as scanning
from starcoder.pii.entity import LABELS
from starcoder.pii.files import Found
from starcoder.pii.scan import Leaks, Options, Scan
from tests.pages import Page

EMAIL = "ada.lovelace@analytical-engine.org"
KEY = "ghp_Zq3vT9xLm2Rk8Wd5Yb7Nc1Pf4Hs6Jg0uXa"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.py").write_text(f'# By {EMAIL}\nTOKEN = "{KEY}"\nlocal = "127.0.0.1"\n')
    (folder / "sub" / "b.py").write_text("def add(a, b):\n    return a + b\n")
    (folder / "image").write_bytes(b"\x89PNG\0")
    (folder / "latin.txt").write_bytes("Müller".encode("latin-1"))
    return folder


def scan(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[str, str]:
    """What a scan prints, and the message with which it ends."""
    with pytest.raises(Leaks) as leaks:
        run(["pii", "scan", *map(str, arguments)])
    assert leaks.value.code == 1
    return capsys.readouterr().out, str(leaks.value)


def test_findings_are_told_by_place_and_masked(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, message = scan(capsys, code)
    assert told.splitlines()[:2] == [
        f"{code}/a.py:1:6: EMAIL # By [***]",
        f'{code}/a.py:2:10: KEY TOKEN = "[ghp_***]"',
    ]
    assert message == "1 EMAIL, 1 KEY in 1 files"
    assert f"skipped: 1 binary: {code}/image" in told
    assert f"skipped: 1 not UTF-8: {code}/latin.txt" in told
    assert EMAIL not in told
    assert KEY not in told


def test_several_paths_and_values_as_they_are(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, _ = scan(capsys, code / "sub", code / "a.py", "--show", "--labels", "email")
    assert told.splitlines()[0] == f"{code}/a.py:1:6: EMAIL # By [{EMAIL}]"
    assert KEY not in told


def test_paths_may_come_last_as_hooks_have_them(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, _ = scan(capsys, "--show", "--", code / "sub", code / "a.py")
    assert told.splitlines()[0] == f"{code}/a.py:1:6: EMAIL # By [{EMAIL}]"


def test_what_the_terminal_cannot_write_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"# é {EMAIL}\n")
    program = f"from starcoder.cli import main; main(['pii', 'scan', {str(tmp_path)!r}])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "EMAIL # \\xe9 [***]" in done.stdout


def test_what_redaction_leaves_is_told_on_request(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "IP_ADDRESS" not in scan(capsys, code)[0]
    assert "a.py:3:10: IP_ADDRESS" in scan(capsys, code, "--everything")[0]


def test_clean_code_passes(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["pii", "scan", str(code / "sub")])
    assert capsys.readouterr().out.startswith("nothing found in 1 files")


def test_a_marked_line_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f'TOKEN = "{KEY}"  # pragma: allowlist secret\n')
    run(["pii", "scan", str(tmp_path)])


def test_a_mark_counts_for_its_own_line_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f'TOKEN = "{KEY}"'
    (tmp_path / "a.py").write_text(f"{line}\n{line}  # pragma: allowlist secret\n{line}\n{line}")
    told, _ = scan(capsys, tmp_path)
    assert [row.split(":")[1] for row in told.splitlines() if ": KEY " in row] == ["1", "3", "4"]


def test_a_baseline_accepts_what_is_known_wherever_it_moves(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    baseline = code.parent / "baseline.json"
    run(["pii", "scan", str(code), "--update_baseline", str(baseline)])
    (code / "a.py").write_text("\n\n" + (code / "a.py").read_text())
    run(["pii", "scan", str(code), "--baseline", str(baseline)])
    assert "2 more in the baseline" in capsys.readouterr().out
    (code / "sub" / "b.py").write_text(f"# {EMAIL}\n")
    told, _ = scan(capsys, code, "--baseline", baseline)
    assert told.splitlines()[0] == f"{code}/sub/b.py:1:3: EMAIL # [***]"


def test_json_is_for_programs(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, _ = scan(capsys, code, "--format", "json")
    report = json.loads(told)
    assert report["counts"] == {"EMAIL": 1, "KEY": 1}
    assert report["files"] == 2
    assert report["skipped"] == {f"{code}/image": "binary", f"{code}/latin.txt": "not UTF-8 (byte 1)"}
    assert [finding["value"] for finding in report["findings"]] == ["***", "ghp_***"]


def test_the_page_shows_findings_in_their_lines_and_runs_no_script_but_its_own(
    code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code / "<script>alert(1)<script>.py").write_text(f"x = '<img src=x>'  # {EMAIL} \u202e\n")
    scan(capsys, code, "--format", "html", "--output", code.parent / "scan.html")
    text = (code.parent / "scan.html").read_text()
    page = Page(text)
    assert page.all("mark") == ["***", "***", "ghp_***"]
    assert "x = '<img src=x>'  # ***" in page.all("code")[0]
    assert len(page.all("script")) == 1
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert "\u202e" not in text
    assert EMAIL not in text


def test_workers_find_the_same_in_the_same_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(150):
        (tmp_path / f"{number:03}.py").write_text(f"# user{number}@analytical-engine.org\n")
    alone, _ = scan(capsys, tmp_path, "--workers", "1", "--format", "json")
    together, _ = scan(capsys, tmp_path, "--workers", "2", "--format", "json")
    assert alone == together
    assert len(json.loads(alone)["findings"]) == 150


def die(_options: Options, _batch: list[Found]) -> Scan:
    os._exit(1)


def test_a_process_that_dies_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [Found(tmp_path, str(number), 0, "binary") for number in range(70)]
    options = Options(None, "cpu", frozenset(LABELS), False, False)
    monkeypatch.setattr(scanning, "_scan_batch", die)
    with pytest.raises(UserError, match="died, perhaps for want of memory; run again with fewer workers"):
        scanning.scan_files(files, options, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        ([".", "--labels", "PHONE"], "no label PHONE; labels are NAME, EMAIL"),
        ([".", "--labels", " ,"], "--labels names none; labels are NAME, EMAIL"),
        ([".", "--format", "html"], "--format html needs --output FILE"),
        ([".", "--baseline", "nowhere.json"], "nowhere.json cannot be read"),
        ([".", "--workers", "0"], "at least 1"),
        ([".", "--output", "."], "^. is a folder: name a file to write"),
        ([".", "--update_baseline", "."], "^. is a folder: name a file to write"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(["pii", "scan", *arguments])


def test_a_line_of_a_hundred_megabytes_is_counted_and_stops_nothing(
    code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (code / "huge.txt").open("wb") as file:
        file.truncate(100_000_000)
    told, _ = scan(capsys, code)
    assert "skipped: 1 larger than 10,000,000 bytes" in told


def test_what_only_a_model_finds_is_not_looked_for_without_one(code: Path) -> None:
    with pytest.raises(UserError, match="rules find no NAME or USERNAME: name a --model"):
        scanning.scan([code], labels="NAME,USERNAME")
