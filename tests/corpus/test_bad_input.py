"""Whatever a source has wrong with it: all else is kept, and the reason stands in `rejected`, at the right stage."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from starcoder.corpus.build import build
from starcoder.corpus.document import Document, read_documents
from starcoder.corpus.filters import FilterOptions
from starcoder.corpus.ingest import Ingest, Rules
from starcoder.corpus.sources import SourceSpec
from starcoder.corpus.sources.folder import Folder
from starcoder.corpus.summary import STAGES, read_summary
from starcoder.errors import UserError
from starcoder.executors import Execution

ONE = Execution(workers=1)
SPLITS = ("train", "validation", "rejected")
HOSTILE = "a\nb\x1b[2J\u202e"
DEEP = "/".join(["d" * 250] * 14)
NO_LANGUAGE = ("language", "no language of the table")
FOREIGN = ("licence", "file under another licence")
NO_CELLS = ("readable", "notebook without cells")
NOT_JSON = ("readable", "notebook is not JSON")
NOT_UTF8 = ("readable", "not UTF-8")


def program(name: str, lines: int = 30) -> str:
    return "".join(f"def {name}_{n}(first, second):\n    return first * {n} + second\n" for n in range(lines))


def notebook(source: str, extension: str = ".py") -> str:
    cells = [{"cell_type": "markdown", "source": "A title"}, {"cell_type": "code", "source": source}]
    return json.dumps({"metadata": {"language_info": {"file_extension": extension}}, "cells": cells})


KEPT: dict[str, str | bytes] = {
    **{f"good{n}/a.py": program(f"good{n}") for n in range(4)},
    f"{HOSTILE}/a.py": program("hostile"),
    f"names/{HOSTILE}.py": program("name"),
    f"names/{DEEP}/deep.py": program("deep"),
    "names/script": "#!/usr/bin/env python3\n" + program("script"),
}
LEFT_OUT: dict[str, tuple[str | bytes, tuple[str, str]]] = {
    "bytes/latin.py": (b"a = '\xe9'", NOT_UTF8),
    "bytes/utf16.py": (program("utf16").encode("utf-16"), ("readable", "binary")),
    "bytes/zero.py": (b"a\0b", ("readable", "binary")),
    "bytes/nothing.py": ("", ("readable", "empty")),
    "bytes/blank.py": (" \n\t", ("readable", "empty")),
    "bytes/nothing": ("", NO_LANGUAGE),
    "bytes/prose": ("Some words.", NO_LANGUAGE),
    "bytes/program": (b"\x7fELF\0" * 99, NO_LANGUAGE),
    "bytes/script": (b"#!/bin/sh\n\0", ("readable", "binary")),
    "bytes/stub.pyi": (program("stub"), NO_LANGUAGE),
    "bytes/one_line.py": ("x = 1;" * 50_000, ("filters", "longest line")),
    "bytes/one_line.json": ('{"k": "' + "v" * 300_000, ("filters", "size of a data file")),
    "bytes/section.html": ("<p>Some words.</p>\n<![foo[x]]>\n" * 9, ("filters", "HTML cannot be parsed")),
    "bytes/tag.py": ("# SPDX-License-Identifier: Foo-1.0\n", FOREIGN),
    "bytes/broken_tag.py": ("# SPDX-License-Identifier: (MIT AND\n", FOREIGN),
    "unknown/a.py": (program("unknown"), ("licence", "licence unknown")),
    "contradicted/a.py": (program("contradicted"), ("licence", "licence not permissive")),
}
NOTEBOOKS: dict[str, tuple[str, tuple[str, str], tuple[str, str]]] = {
    "notebooks/text.ipynb": ("{", NOT_JSON, NOT_JSON),
    "notebooks/open.ipynb": ('{"cells":' + "[" * 10**5, NOT_JSON, NOT_JSON),
    "notebooks/deep.ipynb": ("[" * 10**5 + "]" * 10**5, NOT_JSON, NOT_JSON),
    "notebooks/list.ipynb": ("[]", NO_CELLS, NO_CELLS),
    "notebooks/half.ipynb": (notebook("a = '\ud800'\n" * 9), NOT_UTF8, NOT_UTF8),
    "notebooks/octave.ipynb": (notebook(program("m"), ".m"), NO_LANGUAGE, ("readable", "notebook not in Python")),
}
"""Content, what is wrong with the script, what is wrong with the structured text."""
ROWS: tuple[tuple[Any, str, str, tuple[str, str] | None], ...] = (
    (program("row"), "owner/row", "MIT", None),
    (program("cursed"), f"owner/{HOSTILE}", "MIT", None),
    (program("foo"), "owner/foo", "Foo-1.0", ("licence", "licence unknown")),
    (b"a = '\xe9'", "owner/latin", "MIT", NOT_UTF8),
    (None, "owner/null", "MIT", ("readable", "row without content, path or repository")),
)
DECLARING = ("package.json", "COPYING")


def write(root: Path, files: Mapping[str, str | bytes]) -> None:
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content if isinstance(content, bytes) else content.encode())


def write_folder(root: Path) -> None:
    write(root, KEPT)
    write(root, {path: content for path, (content, *_) in (LEFT_OUT | NOTEBOOKS).items()})
    for repository in root.iterdir():
        license = "Foo-1.0" if repository.name == "unknown" else "MIT"
        (repository / "package.json").write_text(f'{{"license": "{license}"}}')
    (root / "contradicted/COPYING").write_text("GPL-3.0-only")
    (root / "empty").mkdir()


def write_strange(strange: Path) -> None:
    """What is no regular file, may not be read, is too large, or has a name that is too long or not UTF-8."""
    write(strange, {"closed.py": program("closed"), "shut/a.py": program("shut"), "package.json": '{"license": "MIT"}'})
    os.mkfifo(strange / "pipe.py")
    os.mknod(strange / "socket.py", stat.S_IFSOCK)
    for name, target in (("loop", "."), ("outside.py", "/etc/hostname"), ("dangling.py", "nowhere")):
        (strange / name).symlink_to(target)
    (strange.parent / "linked").symlink_to(strange)
    for name in ("sparse.py", "sparse"):
        (strange / name).touch()
        os.truncate(strange / name, 200_000_000)
    Path(os.fsdecode(os.fsencode(strange) + b"/latin-\xe9.py")).write_text(program("latin"))
    _write_too_deep(strange)
    (strange / "closed.py").chmod(0)
    (strange / "shut").chmod(0)


def _write_too_deep(strange: Path) -> None:
    """More characters than the system takes as one path."""
    folder = os.open(strange, os.O_RDONLY)
    for _ in range(17):
        os.mkdir("e" * 250, dir_fd=folder)
        inner = os.open("e" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)


CLOSED = {"closed.py": ("readable", "unreadable"), "shut": ("readable", "unreadable")}
STRANGE = {
    "pipe.py": ("readable", "not a file"),
    "socket.py": ("readable", "not a file"),
    "loop": ("readable", "link"),
    "outside.py": ("readable", "link"),
    "dangling.py": ("readable", "link"),
    "sparse.py": ("readable", "file too large"),
    "sparse": NO_LANGUAGE,
    "latin-\\udce9.py": ("readable", "undecodable name"),
    "eee": ("readable", "unreadable"),
}


def write_archives(root: Path) -> None:
    root.mkdir()
    (root / "garbage.tar.gz").write_bytes(b"\x1f\x8b\x08 no more")
    for name in ("whole.zip", "cut.zip"):
        with zipfile.ZipFile(root / name, "w") as archive:
            archive.writestr("whole/package.json", '{"name": "whole", "license": "MIT"}')
            archive.writestr("whole/a.py", program("whole"))
            archive.writestr("../leaves.py", program("leaves"))
    (root / "cut.zip").write_bytes((root / "cut.zip").read_bytes()[:-30])


def write_stack(root: Path) -> None:
    root.mkdir()
    contents = [text.encode() if isinstance(text, str) else text for text, *_ in ROWS]
    names, licenses = [name for _, name, *_ in ROWS], [[license] for _, _, license, _ in ROWS]
    columns = {"content": pa.array(contents, pa.binary()), "max_stars_repo_name": names, "lang": ["Python"] * len(ROWS)}
    columns |= {"max_stars_repo_path": ["a.py"] * len(ROWS), "max_stars_repo_licenses": licenses}
    pq.write_table(pa.table(columns), root / "rows.parquet")
    pq.write_table(pa.table({"content": ["a"]}), root / "missing.parquet")
    (root / "cut.parquet").write_bytes((root / "rows.parquet").read_bytes()[:-100])


@dataclass(frozen=True)
class Result:
    """A build that has ended."""

    process: subprocess.CompletedProcess[str]
    restricted: bool
    summary: dict[str, Any]
    documents: dict[str, list[Document]]

    def reasons(self, source: str) -> dict[tuple[str, str], tuple[str, str]]:
        """(name, kind) → stage and reason, for all but the files that only declare a licence."""
        found = [
            (document, document.rejection)
            for document in self.documents["rejected"]
            if document.source == source and not document.path.endswith(DECLARING) and document.rejection
        ]
        # How many folders fit into a path depends on where the temporary folder is.
        names = [re.sub(r"(?:/?e{250})+", "/eee", document.name) for document, _ in found]
        kinds: list[str] = [document.kind for document, _ in found]
        reasons = {
            (name, kind): (why.stage, why.reason) for name, kind, (_, why) in zip(names, kinds, found, strict=True)
        }
        assert len(reasons) == len(found)
        return reasons

    def kept(self, source: str) -> dict[str, str]:
        documents = [*self.documents["train"], *self.documents["validation"]]
        return {document.name: document.content for document in documents if document.source == source}


def _dropping_rights(root: Path) -> list[str]:
    """What to put before a command so that it may not read everything, as root may; nothing if that cannot be."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if not shutil.which("setpriv"):
        return []
    (root / "closed").touch(0)
    done = subprocess.run([*drop, "cat", root / "closed"], capture_output=True, check=False)
    return drop if b"Permission denied" in done.stderr else []


BUILD = """
import sys
from pathlib import Path
from starcoder.corpus.build import build
from starcoder.corpus.sources import SourceSpec
from starcoder.executors import Execution
build(Path(sys.argv[1]), [SourceSpec(*spec.split("=")) for spec in sys.argv[2:]], execution=Execution(workers=1))
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One corpus of all that can be wrong, made by a process that may not read everything."""
    root = tmp_path_factory.mktemp("bad")
    write_folder(root / "folder")
    write_strange(root / "folder/strange")
    write_archives(root / "archives")
    write_stack(root / "stack")
    for first in "xy":
        write(root / first / "twin", {"r/a.py": program(f"twin_{first}"), "r/package.json": '{"license": "MIT"}'})
    specs = [f"{kind}={root / kind}" for kind in ("folder", "archives", "stack")]
    specs += [f"folder={root / first / 'twin'}" for first in "xy"]
    drop = _dropping_rights(root) if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-c", BUILD, str(root / "out"), *specs]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    documents = {split: list(read_documents(root / "out", split)) for split in SPLITS}
    return Result(process, os.geteuid() != 0 or bool(drop), read_summary(root / "out"), documents)


def test_files_of_a_folder(result: Result) -> None:
    expected = {(path, "code"): why for path, (_, why) in LEFT_OUT.items()}
    for path, (_, script, text) in NOTEBOOKS.items():
        expected |= {(path, "notebook-script"): script, (path, "notebook"): text}
    expected |= {(f"strange/{path}", "code"): why for path, why in STRANGE.items()}
    expected[("linked/", "code")] = ("readable", "link")
    closed = [f"strange/{path}" for path in ("closed.py", "shut", "shut/a.py")]
    assert {key: why for key, why in result.reasons("folder").items() if key[0] not in closed} == expected
    assert {name: text for name, text in result.kept("folder").items() if name not in closed} == KEPT


def test_files_that_may_not_be_read(result: Result) -> None:
    if not result.restricted:
        pytest.skip("root reads everything, and there is no setpriv that could keep it from that here")
    reasons = result.reasons("folder")
    assert {path: reasons[f"strange/{path}", "code"] for path in CLOSED} == CLOSED
    assert not any("closed" in name or "shut" in name for name in result.kept("folder"))


def test_corrupt_archives(result: Result) -> None:
    assert result.kept("archives") == {"whole/a.py": program("whole")}
    assert result.reasons("archives") == {
        ("garbage/", "code"): ("readable", "corrupt archive"),
        ("cut/", "code"): ("readable", "corrupt archive"),
        ("whole/../leaves.py", "code"): ("readable", "path leaves the archive"),
    }


def test_parquet_files(result: Result) -> None:
    expected = {(f"{name}/a.py", "code"): why for _, name, _, why in ROWS if why}
    expected[("stack/missing.parquet", "code")] = ("readable", "parquet columns missing")
    expected[("stack/cut.parquet", "code")] = ("readable", "parquet file cannot be read")
    assert result.reasons("stack") == expected
    assert result.kept("stack") == {f"{name}/a.py": content for content, name, _, why in ROWS if not why}


def test_sources_of_one_name_stay_apart(result: Result) -> None:
    assert result.kept("twin") == {"r/a.py": program("twin_x")}
    assert result.kept("twin-2") == {"r/a.py": program("twin_y")}
    assert any("is called twin-2" in message for message in result.summary["messages"])


def test_everything_is_counted_once(result: Result) -> None:
    stages = {row["stage"]: row["files"] for row in result.summary["stages"]}
    assert list(stages) == [*STAGES, "kept"]
    assert stages["opt-out"] == sum(map(len, result.documents.values()))
    assert stages["kept"] == len(result.documents["train"]) + len(result.documents["validation"])
    for stage, after in zip(stages, [*stages][1:], strict=False):
        lost = [document for document in result.documents["rejected"] if document.rejection.stage == stage]  # type: ignore[union-attr]
        assert stages[stage] - stages[after] == len(lost)


def test_hostile_names_do_not_reach_the_terminal(result: Result) -> None:
    output = result.process.stdout + result.process.stderr
    assert "\x1b[2J" not in output
    assert "Traceback" not in output


def test_a_file_that_vanishes_is_unreadable(tmp_path: Path) -> None:
    write(tmp_path, {"r/a.py": program("a"), "r/b.py": program("b"), "r/package.json": '{"license": "MIT"}'})
    source, ingest = Folder(tmp_path), Ingest(Rules())
    (unit,) = source.units()
    listing = source.candidates(unit)
    first = next(listing)
    (tmp_path / "r/a.py").unlink()
    (document,) = ingest.documents(first, ingest.listed(first))
    assert document.rejection
    assert (document.rejection.reason, document.rejection.stage) == ("unreadable", "readable")
    shutil.rmtree(tmp_path / "r")
    (whole,) = source.candidates(unit)
    assert ingest.listed(whole).rejection


def test_an_empty_source_beside_a_good_one(tmp_path: Path) -> None:
    write(tmp_path, {f"good/{name}/a.py": "# SPDX-License-Identifier: MIT\n" + program(name) for name in "ab"})
    (tmp_path / "bare/nothing").mkdir(parents=True)
    pq.write_table(
        pa.table({name: pa.array([], pa.string()) for name in ("content", "repo_name", "path")}), tmp_path / "a.parquet"
    )
    specs = [SourceSpec("folder", str(tmp_path / "good"), "MIT"), SourceSpec("folder", str(tmp_path / "bare"))]
    build(tmp_path / "out", [*specs, SourceSpec("stack", str(tmp_path / "a.parquet"))], execution=ONE)
    summary = read_summary(tmp_path / "out")
    assert summary["train"]["documents"] == summary["validation"]["documents"] == 1
    assert summary["rejected"]["documents"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": [SourceSpec("folder", "nowhere")]}, "nowhere does not exist"),
        ({"sources": [SourceSpec("folder", "empty")]}, "not a folder of repositories"),
        ({"sources": [SourceSpec("folder", "folder"), SourceSpec("folder", "empty")]}, "not a folder of repositories"),
        ({"sources": [SourceSpec("repository", "empty")]}, "not a folder with files"),
        ({"sources": [SourceSpec("archives", "folder")]}, "no archives"),
        ({"sources": [SourceSpec("stack", "folder")]}, "no parquet files"),
        ({"sources": [SourceSpec("issues", "folder")]}, "no files of issues"),
        ({"sources": [SourceSpec("commits", "folder")]}, "no git repository"),
        ({"sources": [SourceSpec("folder", "folder", "Foo-1.0")]}, "Foo-1.0"),
        ({"source": Path("folder"), "repository": Path("folder")}, "not two of them"),
        ({"source": Path("folder"), "license": "Foo-1.0"}, "Foo-1.0"),
        ({"source": Path("folder"), "license": "GPL-3.0-only"}, "licence not permissive"),
        ({"source": Path("folder"), "accept": ["Foo-1.0"]}, "no such SPDX licence id: Foo-1.0"),
        ({"source": Path("folder"), "opt_out": Path("nowhere")}, "nowhere"),
        ({"source": Path("folder"), "quarantine": Path("nowhere")}, "nowhere"),
        ({"source": Path("folder"), "quarantine": Path("folder/r/a.py")}, "a.py"),
        ({"source": Path("folder"), "benchmarks": Path("nowhere")}, "nowhere"),
        ({"source": Path("folder"), "clamd": "nowhere"}, "nowhere"),
        (
            {"source": Path("folder"), "max_bytes": 0, "validation_share": 1.0},
            "max_bytes must .*; validation_share must",
        ),
        ({"source": Path("folder"), "execution": Execution(workers=0)}, "workers"),
        ({"source": Path("folder"), "output": Path("folder")}, "holds something else"),
        ({"source": Path("folder"), "output": Path("folder/r/a.py")}, "holds something else"),
    ],
)
def test_wrong_configuration_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"folder/r/a.py": program("a"), "empty/.git/x": ""})
    before = sorted(tmp_path.rglob("*"))
    defaults: dict[str, Any] = {"output": tmp_path / "out", "execution": ONE}
    with pytest.raises(UserError, match=message) as error:
        build(**defaults | options)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("license", "options"),
    [(None, {}), ("MIT", {"filters": FilterOptions(mean_line=1)}), ("MIT", {"max_bytes": 1})],
)
def test_an_empty_corpus_is_one_line_and_leaves_nothing(
    tmp_path: Path, license: str | None, options: dict[str, Any]
) -> None:
    write(tmp_path, {f"folder/{name}/a.py": program(name) for name in "ab"})
    with pytest.raises(UserError, match="fewer than two repositories have files to keep") as error:
        build(tmp_path / "out", source=tmp_path / "folder", license=license, execution=ONE, **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]
