import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from starcoder.corpus.benchmarks import BenchmarkString, BenchmarkStrings
from starcoder.corpus.document import Document, Mark, Rejection
from starcoder.corpus.filters import FilterOptions
from starcoder.corpus.ingest import Ingest, Rules
from starcoder.corpus.licenses import PERMISSIVE, Declaration
from starcoder.corpus.malware import Quarantine
from starcoder.corpus.optout import OptOut
from starcoder.corpus.sources.base import Candidate

CODE = b"def square(x):\n    return x * x\n"
BASE = Document("ada/engine", "a.py", "python", "py", (), 0, source="folder")


def must_not_be_read() -> bytes:
    raise AssertionError("this was to be left out without reading it")


def candidate(
    data: bytes | Callable[[], bytes] = CODE, license: str = "MIT", size: int | None = None, **fields: object
) -> Candidate:
    known = len(data) if isinstance(data, bytes) else 100
    document = replace(BASE, **{"size": known if size is None else size} | fields)  # type: ignore[arg-type]
    read = (lambda: data) if isinstance(data, bytes) else data
    return Candidate(document, Declaration(license, "LICENSE"), read)


def ingest(one: Candidate, rules: Rules | None = None) -> list[Document]:
    steps = Ingest(rules or Rules())
    return list(steps.documents(one, steps.listed(one)))


def why(document: Document) -> tuple[str, str] | None:
    rejection = document.rejection
    return (rejection.stage, rejection.reason) if rejection else None


def test_a_file_is_kept_with_all_that_is_known() -> None:
    (document,) = ingest(candidate())
    assert document == replace(
        BASE,
        licenses=("MIT",),
        evidence="LICENSE",
        size=len(CODE),
        content=CODE.decode(),
        sha256=hashlib.sha256(CODE).hexdigest(),
    )


def test_order_of_the_rules() -> None:
    """Everything is wrong with a file; each time the first thing that was told is mended, the next one is told."""

    def vanished() -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    bad = b"\xff" * 1001
    wide = b"x" * 1001
    foreign = b"# SPDX-License-Identifier: GPL-3.0-only\n" + wide
    rules = Rules(
        opt_out=OptOut(frozenset({"ada"})),
        quarantine=Quarantine(frozenset({hashlib.sha256(bad).hexdigest()}), frozenset()),
        max_file_bytes=5000,
    )
    one = candidate(
        must_not_be_read,
        "GPL-3.0-only",
        6000,
        path="vendor/a.pyi",
        language="",
        extension="pyi",
        rejection=Rejection("link"),
    )
    steps: list[tuple[tuple[str, str] | None, dict[str, object], dict[str, object]]] = [
        (("opt-out", "opted out"), {"repository": "bob/engine"}, {}),
        (("readable", "link"), {"rejection": None}, {}),
        (("licence", "licence not permissive"), {}, {"license": Declaration("MIT", "LICENSE")}),
        (("licence", "vendored code"), {"path": "a.pyi"}, {}),
        (("language", "no language of the table"), {"path": "a.py", "language": "python", "extension": "py"}, {}),
        (("readable", "file too large"), {"size": 5000}, {"read": vanished}),
        (("readable", "unreadable"), {}, {"read": lambda: bad}),
        (("malware", "malware"), {}, {"read": lambda: bad[1:]}),
        (("readable", "not UTF-8"), {}, {"read": lambda: foreign}),
        (("licence", "file under another licence"), {}, {"read": lambda: wide}),
        (("filters", "longest line"), {}, {"read": lambda: CODE}),
        (None, {}, {}),
    ]
    for expected, mended, others in steps:
        (document,) = ingest(one, rules)
        assert why(document) == expected
        one = replace(one, document=replace(one.document, **mended), **others)  # type: ignore[arg-type]


def test_what_is_left_out_has_no_content_but_for_the_filters() -> None:
    (wide,) = ingest(candidate(b"x" * 1001))
    assert wide.content == "x" * 1001
    assert wide.rejection == Rejection("longest line", "1001 > 1000", "filters")
    assert wide.sha256 == hashlib.sha256(b"x" * 1001).hexdigest()
    for data in (b"", b"a\0b", b"# SPDX-License-Identifier: GPL-3.0-only\n", b"\xff"):
        (document,) = ingest(candidate(data))
        assert document.rejection
        assert document.content == ""


def test_options_of_the_rules() -> None:
    assert why(*ingest(candidate(license="GPL-3.0-only"), Rules(accepted=PERMISSIVE | {"GPL-3.0-only"}))) is None
    assert why(*ingest(candidate(), Rules(filters=FilterOptions(mean_line=5)))) == ("filters", "mean line")
    assert why(*ingest(candidate(size=101), Rules(max_file_bytes=100))) == ("readable", "file too large")
    quarantine = Quarantine(frozenset(), frozenset({"ada/engine/a.py"}))
    (found,) = ingest(candidate(), Rules(quarantine=quarantine))
    assert found.rejection == Rejection("malware", "path:ada/engine/a.py", "malware")


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        ("MIT AND Apache-2.0", ("Apache-2.0", "MIT")),
        ("GPL-3.0-only OR ISC", ("ISC",)),
        ("", ("licence", "licence unknown")),
        ("Foo-1.0", ("licence", "licence unknown")),
        ("MIT AND GPL-3.0-only", ("licence", "licence not permissive")),
    ],
)
def test_licence_of_the_repository(license: str, expected: tuple[str, ...]) -> None:
    (document,) = ingest(candidate(license=license))
    assert (why(document) or document.licenses) == expected


def test_a_licence_of_the_file_replaces_that_of_the_repository() -> None:
    (document,) = ingest(candidate(b"# SPDX-License-Identifier: ISC\n" + CODE))
    assert document.licenses == ("ISC",)


@pytest.mark.parametrize(
    ("path", "data", "expected"),
    [
        ("bin/run", b"#!/usr/bin/env python3\n" + CODE, ("python", "py")),
        ("bin/run", b"#!/bin/sh\n\0", ("readable", "binary")),
        ("LICENSE", b"Some text.", ("language", "no language of the table")),
        ("bin/run", b"\x7fELF\0", ("language", "no language of the table")),
        ("empty", b"", ("language", "no language of the table")),
    ],
)
def test_a_file_without_extension_is_read_to_find_its_language(
    path: str, data: bytes, expected: tuple[str, str]
) -> None:
    (document,) = ingest(candidate(data, path=path, language="", extension=""))
    assert (why(document) or (document.language, document.extension)) == expected


@pytest.mark.parametrize(
    ("path", "extension", "size"),
    [("a.pyi", "pyi", 10), ("core", "", 2**20 + 1), ("a.h", "h", 10)],  # a data set may not call a .h file C
)
def test_nothing_else_without_language_is_read(path: str, extension: str, size: int) -> None:
    one = candidate(must_not_be_read, path=path, language="", extension=extension, size=size)
    (document,) = ingest(one)
    assert document.rejection == Rejection("no language of the table", extension, "language")


def notebook(extension: str, code: str = "print(1)") -> bytes:
    cells = [{"cell_type": "markdown", "source": "A title"}, {"cell_type": "code", "source": code}]
    return json.dumps({"metadata": {"language_info": {"file_extension": extension}}, "cells": cells}).encode()


def test_a_notebook_is_two_documents() -> None:
    script, text = ingest(candidate(notebook(".py"), path="a.ipynb", language="", extension="ipynb"))
    assert (script.kind, script.language, script.extension) == ("notebook-script", "python", "py")
    assert (text.kind, text.language, text.content) == ("notebook", "jupyter", "A titleprint(1)")
    assert "print(1)" in script.content
    for document in (script, text):
        assert document.sha256 == hashlib.sha256(document.content.encode()).hexdigest()
        assert document.licenses == ("MIT",)


def test_a_script_in_a_language_without_a_row_is_left_out() -> None:
    script, _ = ingest(candidate(notebook(".m"), path="a.ipynb", language="", extension="ipynb"))
    assert why(script) == ("language", "no language of the table")


def test_one_bad_half_of_a_notebook_rejects_both() -> None:
    found = ingest(
        candidate(notebook(".py", "# SPDX-License-Identifier: GPL-3.0-only\n"), path="a.ipynb", extension="ipynb")
    )
    assert [why(document) for document in found] == [("licence", "file under another licence")] * 2
    # The structured text begins with the first cell of text: what stands before it is in the script alone.
    first = [{"cell_type": "code", "source": "# Under the GNU General Public License\n"}]
    data = json.loads(notebook(".py"))
    before = json.dumps(data | {"cells": first + data["cells"]}).encode()
    found = ingest(candidate(before, path="a.ipynb", extension="ipynb"))
    assert [why(document) for document in found] == [("licence", "file under another licence")] * 2
    assert [document.content for document in found] == ["", ""]
    script, _ = ingest(candidate(notebook(".py"), path="a.ipynb", extension="ipynb"))
    found = ingest(
        candidate(notebook(".py"), path="a.ipynb", extension="ipynb"),
        Rules(quarantine=Quarantine(frozenset({script.sha256}), frozenset())),
    )
    assert [why(document) for document in found] == [("malware", "malware")] * 2


GPL = "/* under the GNU General Public License */\n"


def commit(file: str = "src/a.py", texts: tuple[str, ...] = ("old", "new"), **fields: object) -> Candidate:
    shown = {"path": f"{file}@0123456789ab", "kind": "commit", "content": "oldsubjectnew"} | fields
    document = replace(BASE, **shown)  # type: ignore[arg-type]
    return Candidate(document, Declaration("MIT", "LICENSE"), file=file, texts=texts)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (commit(), None),
        (commit("vendor/x/lib.py"), ("licence", "vendored code")),
        (commit(texts=("old", GPL)), ("licence", "file under another licence")),
        (commit(texts=(GPL, "new")), ("licence", "file under another licence")),
        (commit(texts=("# SPDX-License-Identifier: GPL-3.0-only\n",)), ("licence", "file under another licence")),
        (commit(content=f"oldQuote '{GPL}'new"), None),  # the subject is no notice in the file
        (commit("bad.py"), ("malware", "malware")),
        (commit(texts=("old", "bad")), ("malware", "malware")),
        (commit(content="bad"), ("malware", "malware")),
        (commit(language="", extension=""), ("language", "no language of the table")),
    ],
)
def test_a_commit_is_judged_as_the_file_that_it_changes(one: Candidate, expected: tuple[str, str] | None) -> None:
    bad = hashlib.sha256(b"bad").hexdigest()
    rules = Rules(quarantine=Quarantine(frozenset({bad}), frozenset({"ada/engine/bad.py"})))
    (document,) = ingest(one, rules)
    assert why(document) == expected
    assert bool(document.content) == (expected is None)


def test_the_licences_of_both_texts_of_a_commit_apply() -> None:
    tagged = "# SPDX-License-Identifier: ISC\n"
    assert [document.licenses for document in ingest(commit(texts=("old", tagged)))] == [("ISC", "MIT")]
    assert [document.licenses for document in ingest(commit(texts=(tagged,)))] == [("ISC",)]


def test_an_issue_is_scanned_too() -> None:
    issue = replace(BASE, path="issues/1", language="issues", extension="", kind="issue", content="bad")
    one = Candidate(issue, Declaration("MIT", ""))
    for hashes, paths in (({hashlib.sha256(b"bad").hexdigest()}, set()), (set(), {"ada/engine/issues/1"})):
        (document,) = ingest(one, Rules(quarantine=Quarantine(frozenset(hashes), frozenset(paths))))
        assert why(document) == ("malware", "malware")


def test_a_filter_of_a_source_comes_after_licence_and_language() -> None:
    out = commit(content="", rejection=Rejection("short commit message", "sampled out", "filters"))
    (document,) = ingest(out)
    assert document.rejection == Rejection("short commit message", "sampled out", "filters")
    assert (document.licenses, document.evidence) == (("MIT",), "LICENSE")
    assert why(*ingest(replace(out, license=Declaration("", "")))) == ("licence", "licence unknown")
    assert why(*ingest(replace(out, file="vendor/a.py"))) == ("licence", "vendored code")
    unknown = replace(out, document=replace(out.document, language=""))
    assert why(*ingest(unknown)) == ("language", "no language of the table")
    broken = replace(out, document=replace(out.document, rejection=Rejection("binary")), license=Declaration("", ""))
    assert why(*ingest(broken)) == ("readable", "binary")


def test_a_file_that_is_larger_than_its_source_says() -> None:
    for size in (0, 3):
        (document,) = ingest(candidate(b"x" * 101, size=size), Rules(max_file_bytes=100))
        assert document.rejection == Rejection("file too large", "101 bytes", "readable")
    (document,) = ingest(candidate(b"x" * 101, size=3, language="", extension=""), Rules(max_file_bytes=100))
    assert why(document) == ("readable", "file too large")


PROBLEM = BenchmarkString("write the sum of all numbers from one to n", "MBPP/1 statement", "MBPP/1")


def test_the_filters_opinion_comes_before_the_benchmarks() -> None:
    rules = Rules(benchmarks=BenchmarkStrings((PROBLEM,), {}, ()))
    leak = f"# {PROBLEM.text.title()}\n"
    issue = replace(BASE, path="issues/1", language="issues", extension="", kind="issue", content=leak)
    for one, expected in (
        (candidate(f"{leak}x = '{'y' * 1001}'\n".encode()), ("filters", "longest line")),
        (candidate(leak.encode()), ("benchmarks", "benchmark content")),
        (commit(content=leak), ("benchmarks", "benchmark content")),
        (Candidate(issue, Declaration("MIT", "")), ("benchmarks", "benchmark content")),
        (candidate(), None),
    ):
        (document,) = ingest(one, rules)
        assert why(document) == expected
        assert document.content
    assert [
        why(half) for half in ingest(candidate(notebook(".py", leak), path="a.ipynb", extension="ipynb"), rules)
    ] == [("benchmarks", "benchmark content")] * 2


def test_a_text_that_the_source_has_made_keeps_its_marks() -> None:
    """Neither the filters of code nor licences in its head concern a conversation."""
    content = "Title: <?xml version= SPDX-License-Identifier: GPL-3.0-only " + "x" * 2000
    marks = (Mark(0, "<issue_start>"),)
    issue = replace(BASE, path="issues/1", language="issues", extension="", kind="issue", content=content, marks=marks)
    (document,) = ingest(Candidate(issue, Declaration("MIT", "")))
    assert (document.content, document.marks, document.rejection) == (content, marks, None)
    (half,) = ingest(Candidate(replace(issue, content="\ud800"), Declaration("MIT", "")))
    assert why(half) == ("readable", "not UTF-8")


def test_rules_travel_to_other_machines() -> None:
    rules = Rules(opt_out=OptOut(frozenset({"ada"})), max_file_bytes=7)
    assert pickle.loads(pickle.dumps(rules)) == rules
