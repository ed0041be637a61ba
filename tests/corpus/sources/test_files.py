import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Rejection
from starcoder.corpus.licenses import Declaration, RepositoryLicenses
from starcoder.corpus.sources.base import Unit
from starcoder.corpus.sources.files import (
    File,
    candidates,
    files_of,
    origin,
    read_texts,
    repository_of,
    revision,
    units_of,
    walk,
)

MB = 1_000_000


def reasons(root: Path) -> dict[str, str | None]:
    return {file.path: file.problem and file.problem.reason for file in walk(root)}


def test_walk_finds_the_files_that_are_source(tmp_path: Path) -> None:
    kept = ["a.py", "a/z.py", "src/b.py", ".github/workflows/ci.yml", "build/é.c"]
    skipped = [
        ".git/config",
        "src/__pycache__/b.pyc",
        "env/lib/site-packages/x.py",
        "x.egg-info/PKG-INFO",
        ".svn/wc.db",
    ]
    for path in [*kept, *skipped]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    found = walk(tmp_path)
    assert [(file.path, file.size, file.problem) for file in found] == [
        (path, len(path.encode()), None) for path in sorted(kept)
    ]


def test_walk_never_follows_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.py").write_text("outside")
    (root / "loop").symlink_to(root)
    (root / "outside").symlink_to(tmp_path)
    (root / "file.py").symlink_to(tmp_path / "secret.py")
    (root / "dangling.py").symlink_to("nowhere")
    assert reasons(root) == dict.fromkeys(["loop", "outside", "file.py", "dangling.py"], "link")


def test_walk_opens_nothing_that_would_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    assert reasons(tmp_path) == {"pipe.py": "not a file"}


def test_names_that_are_not_utf8_are_told(tmp_path: Path) -> None:
    for name in (b"caf\xe9.py", b"line\n\xff.py"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff")).mkdir()
    found = reasons(tmp_path)
    assert set(found.values()) == {"undecodable name"}
    assert len(found) == 3
    assert all(path.encode() for path in found)  # what is told can be stored


def test_a_folder_too_deep_for_the_system_is_one_problem(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # a path may have 4096 bytes
        os.mkdir("d" * 250, dir_fd=here)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    (tmp_path / "a.py").touch()
    found = walk(tmp_path)
    assert [file.path[:4] for file in found] == ["a.py", "dddd"]
    assert found[1].problem == Rejection("unreadable", "File name too long")


@contextmanager
def nobody() -> Iterator[Path]:
    """A folder, and only the rights that its owner has: root may read everything."""
    with TemporaryDirectory() as folder:
        unprivileged = os.geteuid() == 0
        if unprivileged:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            if unprivileged:
                os.seteuid(0)


def test_what_may_not_be_read_is_told() -> None:
    licenses = RepositoryLicenses(None, {})  # reads its own data, once, which nobody may not
    with nobody() as folder:
        (folder / "closed").mkdir(mode=0)
        for name in ("LICENSE", "a.py"):
            (folder / name).touch(mode=0)
        found = walk(folder)
        assert [file.problem for file in found] == [None, None, Rejection("unreadable", "Permission denied")]
        assert read_texts(folder, found) == {}
        read = [candidate.read for candidate in candidates(origin("s", "r"), found, licenses, _read)]
        assert read[0]
        assert read[2] is None
        with pytest.raises(PermissionError):
            (folder / "a.py").read_bytes()
        (folder / "closed").chmod(0o700)


def _read(path: str) -> bytes:
    return f"content of {path}".encode()


def test_candidates_tell_what_is_known() -> None:
    files = [
        File("a.PY", 5),
        File("Makefile", 1),
        File("b.ipynb", 3),
        File("c.unknown", 2),
        File("l.py", 0, "", Rejection("link")),
    ]
    licenses = RepositoryLicenses(Declaration("MIT", "License-Expression"), {})
    found = list(candidates(origin("here", "owner/name", "abc"), files, licenses, _read))
    assert [(c.document.path, c.document.language, c.document.extension, c.document.size) for c in found] == [
        ("a.PY", "python", "py", 5),
        ("Makefile", "makefile", "", 1),
        ("b.ipynb", "", "ipynb", 3),
        ("c.unknown", "", "unknown", 2),
        ("l.py", "python", "py", 0),
    ]
    assert {(c.document.source, c.document.repository, c.document.commit) for c in found} == {
        ("here", "owner/name", "abc")
    }
    assert [c.document.rejection for c in found] == [None] * 4 + [Rejection("link")]
    assert [c.license.expression for c in found] == ["MIT"] * 4 + [""]
    assert [c.read and c.read() for c in found[::4]] == [b"content of a.PY", None]


@given(
    st.lists(st.tuples(st.sampled_from(["py", "so", "ipynb"]), st.integers(0, 40)), max_size=60), st.sampled_from("ac#")
)
def test_units_are_a_partition_into_pieces_of_equal_size(files: list[tuple[str, int]], name: str) -> None:
    listed = [File(f"{number:03}.{extension}", size * MB) for number, (extension, size) in enumerate(files)]
    units = units_of(name, listed, "1")
    parts = [files_of(unit, listed) for unit in units]
    assert [file for part in parts for file in part] == listed
    assert {repository_of(unit) for unit in units} == {name}
    assert len({unit.name for unit in units}) == len(units)
    for unit, part in zip(units, parts, strict=True):
        read = [file.size for file in part if not file.path.endswith("so")]
        assert unit.size == sum(read)
        assert unit.size <= max(16 * MB, *read, 0)
    for one, next_part in zip(units, parts[1:], strict=False):  # none could have been filled with more
        assert one.size + next(file.size for file in next_part if not file.path.endswith("so")) > 16 * MB


def test_a_small_repository_is_one_unit_of_its_name() -> None:
    assert units_of("requests", [File("a.py", 5), File("b.so", 10**9)], "2.31") == [Unit("requests", 5, "2.31")]
    assert units_of("c#0", [], "") == [Unit("c#0#0", 0, "")]  # else it could not be told from a part of "c"


def test_revision_follows_names_sizes_and_times() -> None:
    states = [
        [File("a", 1, "1")],
        [File("b", 1, "1")],
        [File("a", 2, "1")],
        [File("a", 1, "2")],
        [File("a1", 1, "")],
        [],
    ]
    digests = {revision(files, *others) for files in states for others in ((), ("MIT",))}
    assert len(digests) == 12


def test_licence_texts_are_read_when_they_are_short(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "LICENSE").write_text("root")
    (tmp_path / "sub/COPYING").write_text("sub")
    (tmp_path / "sub/LICENSE.md").write_bytes(b" " * (2**20 + 1))
    (tmp_path / "main.py").write_text("no licence")
    assert read_texts(tmp_path, walk(tmp_path)) == {"LICENSE": b"root", "sub/COPYING": b"sub"}
