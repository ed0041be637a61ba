import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.errors import UserError
from starcoder.pii.contents import NoText, decode, language_of, redact_contents
from starcoder.pii.detectors import open_detector
from starcoder.pii.entity import Detector, Entity
from starcoder.pii.redact import redact, redact_folder
from starcoder.pii.redact_parquet import redact_parquet
from starcoder.pii.redaction import Redactor
from starcoder.processes import share_out
from tests.conftest import ROOT, Command

MAIL, ADDRESS = "ada@lovelace.org", "93.184.216.34"
RULES = Redactor(open_detector)


def fake(value: str = ADDRESS) -> str:
    """What stands for an address."""
    return RULES.redact_all([value], [""])[0].text


FILES = {
    "a.py": f"# {MAIL}\nx = {MAIL}\n".encode(),
    "script": f"#!/usr/bin/env python3\nx = {MAIL}  # {ADDRESS}\n".encode(),
    "deep/er/b.txt": f"\ufeffé {MAIL}\r\n{ADDRESS} 😀\r\n".encode(),
    "clean.c": b"int x;\r\n\r",
    "empty": b"",
    "binary.bin": f"\0{MAIL}".encode(),
    "latin.txt": f"é {MAIL}".encode("latin-1"),
    "utf16.txt": f"é {MAIL}".encode("utf-16"),
    "large.txt": f"{MAIL}\n".encode() * 3000,
}
REDACTED = FILES | {
    "a.py": f"# <EMAIL>\nx = {MAIL}\n".encode(),
    "script": f"#!/usr/bin/env python3\nx = {MAIL}  # {fake()}\n".encode(),
    "deep/er/b.txt": f"\ufeffé <EMAIL>\r\n{fake()} 😀\r\n".encode(),
}
OUTCOMES = {"redacted": 3, "without findings": 2, "binary": 2, "not UTF-8": 1, "too large": 1}
OUTCOMES |= {"links": 4, ".git": 2, "no regular files": 1}
LIMIT = 20_000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with one of everything."""
    folder = tmp_path / "source"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "script").chmod(0o751)
    (folder / "clean.c").chmod(0o440)
    (folder / "nothing").mkdir(mode=0o750)
    (folder / ".git").mkdir()
    (folder / ".git" / "log").write_text(MAIL)
    (folder / "deep" / ".git").write_text("gitdir: ../.git/modules/deep")
    (folder / "link").symlink_to("a.py")
    (folder / "broken").symlink_to("/no/such/place")
    (folder / "deep" / "folder").symlink_to("../deep/er", target_is_directory=True)
    (folder / "outside").symlink_to(Path("/proc/self/mem"))
    os.mkfifo(folder / "pipe")
    (folder / "deep").chmod(0o550)
    return folder


def tree(folder: Path) -> dict[str, object]:
    """Everything in a folder: type, permissions, content or target."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        else:
            found[name] = stat.S_IMODE(path.stat().st_mode)
    return found


def expected(source: Path) -> dict[str, object]:
    """What a copy of the folder holds."""
    wanted = {name: kept for name, kept in tree(source).items() if ".git" not in name and name != "pipe"}
    modes = {name: (source / name).stat().st_mode for name in FILES}
    return wanted | {name: (stat.S_IMODE(modes[name]), data) for name, data in REDACTED.items()}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_copy_differs_only_where_something_was_found(source: Path, tmp_path: Path, workers: int) -> None:
    before = tree(source)
    tally = redact_folder(source, tmp_path / "new" / "target", RULES, workers, LIMIT)
    assert tree(tmp_path / "new" / "target") == expected(source)
    assert tree(source) == before
    assert tally.outcomes == OUTCOMES
    assert tally.redacted == {"EMAIL": 2, "IP_ADDRESS": 2}
    assert tally.left == {"EMAIL": 2}
    clean = [(folder / "clean.c").stat().st_mtime_ns for folder in (source, tmp_path / "new" / "target")]
    assert clean[0] == clean[1]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["target"]


@pytest.mark.parametrize("workers", [1, 2])
def test_in_place_only_what_was_found_is_written(source: Path, workers: int) -> None:
    (source / "deep" / "er" / "b.txt").chmod(0o640)
    wanted = tree(source) | {name: kept for name, kept in expected(source).items() if name in FILES}
    inodes = {name: (source / name).stat().st_ino for name in FILES}
    tally = redact_folder(source, source, RULES, workers, LIMIT)
    assert tally.outcomes == OUTCOMES
    assert tree(source) == wanted
    changed = {name for name, inode in inodes.items() if (source / name).stat().st_ino != inode}
    assert changed == {"a.py", "script", "deep/er/b.txt"}
    again = redact_folder(source, source, RULES, workers, LIMIT)
    assert again.redacted == {}
    assert again.left == tally.left


def test_names_that_are_no_text(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"a\nb", "é😀".encode(), b"-rf", b"x" * 250]
    (tmp_path / "source").mkdir()
    for name in names:
        (tmp_path / "source" / os.fsdecode(name)).write_text(MAIL)
    tally = redact_folder(tmp_path / "source", tmp_path / "target", RULES)
    assert tally.outcomes == {"redacted": 5}
    assert sorted(os.fsencode(path.name) for path in (tmp_path / "target").iterdir()) == sorted(names)


def as_nobody(work: Callable[[Path], object]) -> None:
    """Call `work` on a folder, as a user whom permissions bind, which they do not root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        if os.geteuid():
            work(folder)
            return
        child = os.fork()
        if not child:
            status = 1
            try:
                os.setuid(65534)
                work(folder)
                status = 0
            except BaseException:
                traceback.print_exc()  # beyond the fork there is no pytest
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def test_what_cannot_be_read_is_counted_and_the_rest_goes_on() -> None:
    def check(folder: Path) -> None:
        source, target = folder / "source", folder / "target"
        for name in ("a", "secret", "shut/b"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(MAIL)
        (source / "secret").chmod(0)
        (source / "shut").chmod(0)
        tally = redact_folder(source, target, RULES)
        (source / "shut").chmod(0o700)
        assert tally.outcomes == {"redacted": 1, "unreadable": 2}
        assert (target / "a").read_text() == "<EMAIL>"
        assert [path.name for path in target.rglob("*")] == ["a"]

    as_nobody(check)


def test_what_cannot_be_written_in_place_is_counted() -> None:
    def check(folder: Path) -> None:
        (folder / "shut").mkdir()
        for name in ("a", "shut/b", "shut/c"):
            (folder / name).write_text("" if name == "shut/c" else MAIL)
        (folder / "shut").chmod(0o500)
        tally = redact_folder(folder, folder, RULES)
        (folder / "shut").chmod(0o700)
        assert tally.outcomes == {"redacted": 1, "not writable": 1, "without findings": 1}
        assert ((folder / "a").read_text(), (folder / "shut/b").read_text()) == ("<EMAIL>", MAIL)

    as_nobody(check)


def test_the_command_copies_and_reports(in_process: Command, source: Path, tmp_path: Path) -> None:
    (source / "key.txt").write_text(f"{ADDRESS} {MAIL}")
    options = ["--output", "target", "--labels", "email", "--max_file_bytes", str(LIMIT), "--workers", "1"]
    result = in_process(tmp_path, "pii", "redact", "source", *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "redact: 17 files: 3 redacted, 3 without findings",
        "redact: as they are: 2 binary, 1 not UTF-8, 1 too large, 4 links",
        "redact: left out: 2 .git, 1 no regular files",
        "redact: PII: redacted by regex: 3 EMAIL; left as they are: 2 EMAIL",
        "redact: target",
    ]
    assert (tmp_path / "target" / "key.txt").read_text() == f"{ADDRESS} <EMAIL>"


def test_the_salt_decides_which_address(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text(ADDRESS)
    found = set()
    for number in range(20):
        redact(tmp_path / "source", tmp_path / str(number), salt=f"pepper{number}", workers=1)
        found.add((tmp_path / str(number) / "a").read_text())
    assert len(found) > 2


@pytest.mark.parametrize(
    ("place", "options", "message"),
    [
        ("missing", {}, "missing is neither a folder nor a .parquet file"),
        ("source/a.py", {}, "a.py is neither a folder nor a .parquet file"),
        ("source", {"output": None}, "--output, or --in_place"),
        ("source", {"in_place": True}, "one of the two"),
        ("source", {"output": "source"}, "overlaps with"),
        ("source", {"output": "source/deep/new"}, "overlaps with"),
        ("source", {"output": "link/new"}, "overlaps with"),
        ("source/deep", {"output": "source"}, "overlaps with"),
        ("source", {"output": "full"}, "full is there already"),
        ("source", {"output": "full/file"}, "file is there already"),
        ("source", {"labels": "EMAIL,USERNAME"}, "USERNAME is never redacted"),
        ("source", {"labels": "EMIAL"}, "no label EMIAL"),
        ("source", {"labels": " ,"}, "no label is to be redacted"),
        ("source", {"workers": 0}, "at least 1"),
        ("source", {"max_file_bytes": 0}, "at least 1"),
        ("source", {"model": "no/such/model/here"}, "no/such/model/here"),
    ],
)
def test_bad_options_change_nothing(
    tmp_path: Path, source: Path, place: str, options: dict[str, object], message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "source")
    before = tree(tmp_path)
    given = {"output": "target", "workers": 1} | options
    output = given.pop("output")
    with pytest.raises(UserError, match=message) as caught:
        redact(tmp_path / place, tmp_path / str(output) if output else None, **given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_killed_run_leaves_no_target_and_no_process(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(3000):
        (tmp_path / "source" / f"{number}.txt").write_text(f"{MAIL} {ADDRESS}\n" * 500)
    command = [sys.executable, "-m", "starcoder.cli", "pii", "redact", "source", "--output", "target", "--workers", "2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("target.partial/*.txt")):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "target").exists()
    while processes(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes(run.pid)
    shutil.rmtree(tmp_path / "source")
    (tmp_path / "source").mkdir()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert list((tmp_path / "target").iterdir()) == []
    assert not (tmp_path / "target.partial").exists()


def processes(group: int) -> list[str]:
    """The processes of a group that are alive."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if number == str(group) and state != "Z":
            found.append(path.parent.name)
    return found


class Dies(Detector):
    name = "dies"

    def detect(self, text: str) -> list[Entity]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


def test_a_process_that_dies_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a").write_text(MAIL)
    with pytest.raises(UserError, match="died, perhaps for want of memory; run again with fewer workers"):
        redact_folder(tmp_path / "source", tmp_path / "target", Redactor(Dies), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def doubled(_: Redactor, number: int) -> int:
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_tasks_are_taken_when_they_are_needed(workers: int) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(40):
            taken.append(number)
            yield number

    results = share_out(doubled, tasks(), RULES, workers)
    assert [next(results), next(results)] == [0, 2]
    assert len(taken) < 10
    assert list(results) == [2 * number for number in range(2, 40)]


@given(st.lists(st.binary() | st.text().map(str.encode), max_size=4))
def test_any_bytes_come_back(contents: list[bytes]) -> None:
    changes, tally = redact_contents(RULES, contents, [""] * len(contents), 10_000)
    assert tally.outcomes.total() == len(contents)
    for content, change in zip(contents, changes, strict=True):
        text = decode(content, 10_000)
        assert change is None or isinstance(text, str)
        if isinstance(text, str):
            assert text.encode() == content


def test_which_file_is_python() -> None:
    for name in ("a.py", "A.PY", "b.pyi", "c.pyw"):
        assert language_of(name, b"") == "python"
    assert language_of("run", b"#!/usr/bin/env python3\nx") == "python"
    for name, content in (
        ("run", b"#!/bin/sh\npython"),
        ("a.sh", b"#!/usr/bin/python"),
        ("run", b"python"),
        ("a", b""),
    ):
        assert language_of(name, content) == ""
    assert language_of("run", NoText("unreadable")) == ""


# Parquet

ROWS = [MAIL, None, "", f"x = {MAIL}", f"é {ADDRESS}\r\n", "\0" + MAIL, MAIL + "\n" * LIMIT] * 50
DONE = ["<EMAIL>", None, "", f"x = {MAIL}", f"é {fake()}\r\n", "\0" + MAIL, MAIL + "\n" * LIMIT] * 50


def table(type: pa.DataType = pa.string()) -> pa.Table:  # noqa: B008
    languages = ["Text", "C", None, "Python", "C", "C", "C"] * 50
    texts = pa.array(ROWS, type)
    schema = pa.schema(
        [
            pa.field("id", pa.int32(), nullable=False, metadata={"unit": "one"}),
            pa.field("content", type, metadata={"what": "code"}),
            pa.field("language", pa.string()),
            pa.field("tags", pa.list_(pa.string())),
        ],
        metadata={"huggingface": "{}"},
    )
    tags = [[MAIL], None] * 175
    return pa.Table.from_arrays(
        [pa.array(range(350), pa.int32()), texts, pa.array(languages), pa.array(tags)], schema=schema
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("type", [pa.string(), pa.large_string()])
def test_one_column_of_parquet_is_redacted(tmp_path: Path, type: pa.DataType, workers: int) -> None:
    pq.write_table(table(type), tmp_path / "a.parquet", row_group_size=120)
    before = pq.read_table(tmp_path / "a.parquet")
    assert before.column("content").type == type
    tally = redact_parquet(
        tmp_path / "a.parquet", tmp_path / "new" / "b.parquet", RULES, workers, LIMIT, "content", "language"
    )
    after = pq.read_table(tmp_path / "new" / "b.parquet")
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.column("content").to_pylist() == DONE
    assert after.drop_columns("content").equals(before.drop_columns("content"))
    groups = [pq.ParquetFile(tmp_path / name).metadata for name in ("a.parquet", "new/b.parquet")]
    rows = [[each.row_group(n).num_rows for n in range(each.num_row_groups)] for each in groups]
    assert rows[0] == rows[1] == [120, 120, 110]
    outcomes = {"redacted": 100, "without findings": 100, "null": 50, "binary": 50, "too large": 50}
    assert (tally.outcomes, tally.redacted) == (outcomes, {"EMAIL": 50, "IP_ADDRESS": 50})
    assert tally.left == {"EMAIL": 50}


def test_parquet_in_place_and_texts_that_are_none(tmp_path: Path, in_process: Command) -> None:
    values = [f"é {MAIL}".encode("latin-1"), MAIL.encode(), b"\xed\xa0\x80"]
    broken = pa.array(values, pa.binary()).view(pa.string())
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": broken}), path)
    path.chmod(0o640)
    result = in_process(tmp_path, "pii", "redact", "a.parquet", "--in_place", "--column", "text", "--workers", "1")
    assert result.returncode == 0, result.stderr
    assert "redact: 3 rows: 1 redacted\nredact: as they are: 2 not UTF-8\n" in result.stdout
    after = pq.read_table(path).column("text").combine_chunks().view(pa.binary()).to_pylist()
    assert after == [values[0], b"<EMAIL>", values[2]]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["a.parquet"]


def test_parquet_without_rows(tmp_path: Path) -> None:
    pq.write_table(table().slice(0, 0), tmp_path / "a.parquet")
    tally = redact_parquet(tmp_path / "a.parquet", tmp_path / "b.parquet", RULES, 1, LIMIT, "content", "none")
    assert tally.outcomes == Counter()
    before, after = (pq.read_table(tmp_path / f"{name}.parquet") for name in "ab")
    assert after.equals(before, check_metadata=True)


@given(st.lists(st.none() | st.text(), max_size=8), st.integers(1, 4))
def test_texts_without_findings_stay_in_parquet(texts: list[str | None], rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(pa.table({"content": pa.array(texts, pa.string())}), folder / "a.parquet", row_group_size=rows)
        redact_parquet(folder / "a.parquet", folder / "b.parquet", Redactor(Nothing), 1, LIMIT, "content", "")
        assert pq.read_table(folder / "b.parquet").column("content").to_pylist() == texts


class Nothing(Detector):
    name = "nothing"

    def detect(self, text: str) -> list[Entity]:
        return []


@pytest.mark.parametrize(
    ("column", "broken", "message"),
    [
        ("code", False, "has no column code; name one by --column: id, content, language, tags"),
        ("id", False, "the column id of .* holds int32, no texts"),
        ("content", True, "cannot be read as parquet"),
    ],
)
def test_bad_parquet_is_one_line(tmp_path: Path, column: str, broken: bool, message: str) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path)
    if broken:
        path.write_bytes(path.read_bytes()[:-100])
    for output, in_place in ((tmp_path / "b.parquet", False), (None, True)):
        before = path.read_bytes()
        with pytest.raises(UserError, match=message) as caught:
            redact(path, output, in_place, column=column, workers=1)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == before
        assert [each.name for each in tmp_path.iterdir()] == ["a.parquet"]


def test_a_model_gets_many_texts_at_once(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for number in range(20):
        (tmp_path / "source" / f"{number}.txt").write_text(f"Ada Lovelace {number}")
    calls: list[int] = []
    redact_folder(tmp_path / "source", tmp_path / "target", Redactor(partial(Batches, calls)))
    assert calls == [20, 20]  # the texts, and again what was changed in them
    assert (tmp_path / "target" / "7.txt").read_text() == "<NAME> 7"


class Batches(Detector):
    name = "batches"

    def __init__(self, calls: list[int]) -> None:
        self.calls = calls

    def detect(self, text: str) -> list[Entity]:
        return [Entity(0, 12, "NAME")] if text.startswith("Ada") else []

    def detect_all(self, texts: Sequence[str]) -> list[list[Entity]]:
        self.calls.append(len(texts))
        return super().detect_all(texts)
