import gzip
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from starcoder.corpus.document import Document
from starcoder.corpus.formatting import segments
from starcoder.corpus.licenses import Declaration
from starcoder.corpus.sources.base import Candidate
from starcoder.corpus.sources.conversations import Event, Issue
from starcoder.corpus.sources.issues import Issues, conversation, read_issue
from starcoder.errors import UserError
from starcoder.tokenizer import SENTINELS, Sentinel

LONG = "It stops with an error. " * 10


def event(author: str, action: str = "created", **values: Any) -> dict[str, Any]:
    return {"author": author, "action": action, "type": "issue", "datetime": "2020-01-02T03:04:05Z"} | values


ROW = {
    "repo": "name",
    "org": "owner",
    "issue_id": 987,
    "issue_number": 12,
    "events": [
        event("ann", "opened", title="It <issue_closed> stops", description=LONG, comment=None),
        event("bob", comment="Thanks ann, fixed"),
        event("bob", "closed", comment=""),
        event("ann", comment="Works"),
    ],
}


def spelled(content: str, issue: Issue) -> str:
    document = Document("r", "p", "issues", "", (), 0, content, kind="issue", marks=conversation(issue)[1])
    return "".join(SENTINELS[part] if isinstance(part, Sentinel) else part for part in segments(document, 1))


def shown(*events: tuple[str, str, str], title: str = "T") -> str:
    issue = Issue(title, tuple(Event(*event) for event in events))
    return spelled(conversation(issue)[0], issue)


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(row if isinstance(row, str) else f"{json.dumps(row)}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(source: Issues) -> list[Candidate]:
    return [candidate for unit in source.units() for candidate in source.candidates(unit)]


def reasons(source: Issues) -> list[str | None]:
    rejections = [candidate.document.rejection for candidate in read(source)]
    return [rejection.reason if rejection else None for rejection in rejections]


class TestConversation:
    def test_hand_made(self) -> None:
        assert shown(("u0", "hello", "opened"), ("u1", "yes", "created"), ("u1", "", "closed")) == (
            "<issue_start>Title: T\nu0: hello<issue_comment>u1: yes<issue_closed>"
        )

    @pytest.mark.parametrize(
        ("events", "expected"),
        [
            ([("u", "a", "opened")], "u: a"),
            ([("u", "", "opened"), ("v", "b", "created")], "u:<issue_comment>v: b"),
            ([("u", "a", "opened"), ("v", "", "labelled"), ("v", "b", "")], "u: a<issue_comment>v: b"),
            ([("u", "a", ""), ("u", "b", "closed"), ("v", "c", "")], "u: a<issue_comment>u: b<issue_closed>"),
            ([("u", "a", ""), ("u", "", "closed"), ("u", "", "reopened")], "u: a"),
            ([("u", "a", ""), ("u", "", "closed"), ("u", "", "reopened"), ("u", "", "closed")], "u: a<issue_closed>"),
        ],
    )
    def test_what_shows(self, events: list[tuple[str, str, str]], expected: str) -> None:
        assert shown(*events, title="").removesuffix("<issue_comment>v: c") == f"<issue_start>{expected}"


class TestRows:
    def test_events(self) -> None:
        assert read_issue(ROW) == Issue(
            "It <issue_closed> stops",
            (
                *(Event("ann", LONG, "opened"), Event("bob", "Thanks ann, fixed", "created")),
                *(Event("bob", "", "closed"), Event("ann", "Works", "created")),
            ),
        )

    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ({"title": "t", "description": "d", "author": "ann"}, Issue("t", (Event("ann", "d"),))),
            ({"title": "t", "description": "d", "comment": "c", "author": "ann"}, Issue("t", (Event("ann", "c"),))),
            (
                {"title": "t", "description": "d", "author": "ann", "events": [event("bob", "", comment="c")]},
                Issue("t", (Event("ann", "d"), Event("bob", "c"))),
            ),
            (
                {"description": "d", "events": [event("bob", "", title="t", description="d")]},
                Issue("t", (Event("bob", "d"),)),
            ),
            ({"events": [event("bob", "", text="merged already")]}, Issue("", (Event("bob", "merged already"),))),
            ({"events": [None, 3, {"author": None, "comment": 5}]}, Issue("", (Event("ghost", ""),))),
            ({"events": "none", "text": "another rendering"}, Issue("", ())),
        ],
    )
    def test_other_schemas(self, row: dict[str, Any], expected: Issue) -> None:
        assert read_issue(row) == expected


class TestSource:
    def test_document(self, tmp_path: Path) -> None:
        source = Issues(write_lines(tmp_path / "dump.jsonl", ROW), license="MIT")
        (found,) = read(source)
        document = found.document
        assert (document.repository, document.path, document.kind) == ("owner/name", "issues/12", "issue")
        assert (document.language, document.extension, document.source) == ("issues", "", "issues")
        assert (document.rejection, document.size) == (None, len(document.content.encode()))
        parts = segments(document, 1)
        assert parts == [
            *(Sentinel.ISSUE_START, f"Title: It <issue_closed> stops\nusername_0: {LONG.strip()}"),
            *(Sentinel.ISSUE_COMMENT, "username_1: Thanks username_0, fixed", Sentinel.ISSUE_CLOSED),
            *(Sentinel.ISSUE_COMMENT, "username_0: Works"),
        ]
        assert found.license == Declaration("MIT", "declared for issues")
        assert found.read is None

    def test_all_formats_hold_the_same(self, tmp_path: Path) -> None:
        rows = [ROW, ROW | {"issue_number": 13}]
        write_lines(tmp_path / "a" / "x.jsonl", *rows)
        write_lines(tmp_path / "b" / "x.jsonl.gz", *rows)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
        (tmp_path / "README.md").write_text("not a dump")
        source = Issues(tmp_path)
        units = source.units()
        assert [unit.name for unit in units] == ["a/x.jsonl", "b/x.jsonl.gz", "c.parquet"]
        assert [unit.size for unit in units] == [(tmp_path / unit.name).stat().st_size for unit in units]
        plain, zipped, table = ([found.document for found in source.candidates(unit)] for unit in units)
        assert plain == zipped == table
        assert [document.path for document in plain] == ["issues/12", "issues/13"]
        again = pickle.loads(pickle.dumps(source))
        assert (again, again.units()) == (source, units)

    def test_revision_follows_the_file_and_the_license(self, tmp_path: Path) -> None:
        source = Issues([write_lines(tmp_path / "a.jsonl", ROW), write_lines(tmp_path / "b" / "c.jsonl", ROW)])
        before = source.units()
        assert [unit.name for unit in before] == ["a.jsonl", "b/c.jsonl"]
        assert source.units() == before
        assert Issues(source.path, "MIT").units()[1].revision != before[1].revision
        write_lines(tmp_path / "a.jsonl", ROW, ROW)
        changed = source.units()
        assert (changed[0].revision == before[0].revision, changed[1] == before[1]) == (False, True)

    @pytest.mark.parametrize(
        ("values", "expression", "evidence"),
        [
            ({}, "ISC", "declared for issues"),
            ({"license": "MIT"}, "MIT", "d.jsonl: license"),
            ({"licenses": ["MIT"]}, "MIT", "d.jsonl: licenses"),
            ({"licenses": ["MIT", "Apache-2.0 OR ISC"]}, "(MIT) AND (Apache-2.0 OR ISC)", "d.jsonl: licenses"),
            ({"licenses": [], "license": None}, "ISC", "declared for issues"),
        ],
    )
    def test_license(self, values: dict[str, Any], expression: str, evidence: str, tmp_path: Path) -> None:
        (found,) = read(Issues(write_lines(tmp_path / "d.jsonl", ROW | values), license="ISC"))
        assert found.license == Declaration(expression, evidence)

    @pytest.mark.parametrize(
        ("values", "name"),
        [
            ({}, "owner/name/issues/12"),
            ({"repo": "else/where"}, "else/where/issues/12"),
            ({"org": None}, "name/issues/12"),
            ({"issue_number": 12.0}, "owner/name/issues/12"),
            ({"issue_number": None}, "owner/name/issues/987"),
            ({"issue_number": None, "pull_request": {"number": 5}}, "owner/name/issues/5"),
            ({"issue_number": None, "issue_id": None, "repo": None}, "d.jsonl/issues/row-1"),
        ],
    )
    def test_name(self, values: dict[str, Any], name: str, tmp_path: Path) -> None:
        (found,) = read(Issues(write_lines(tmp_path / "d.jsonl", ROW | values)))
        assert found.document.name == name

    def test_what_is_wrong_with_a_row_is_a_rejection(self, tmp_path: Path) -> None:
        short = {"repo": "r", "events": [event("ann", comment="short")]}
        half = {"repo": "r", "events": [event("ann", comment=LONG + "\ud83d")]}
        path = write_lines(tmp_path / "d.jsonl", "{\n", "[1]\n", "\n", {}, short, half, ROW)
        expected = ["not JSON", "not an issue", "issue without events", "short issue", "not UTF-8", None]
        assert reasons(Issues(path)) == expected
        # A short issue can be read; it is one of the filters that leaves it out.
        stages = [
            candidate.document.rejection and candidate.document.rejection.stage for candidate in read(Issues(path))
        ]
        assert stages == ["", "", "", "filters", "", None]

    def test_what_is_wrong_with_a_file_is_a_rejection(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"PAR1, but no more")
        (tmp_path / "b.jsonl.gz").write_bytes(b"not zipped")
        whole = write_lines(tmp_path / "c.jsonl.gz", *[ROW | {"text": str(i) * 999} for i in range(999)])
        whole.write_bytes(whole.read_bytes()[:-9])
        found = reasons(Issues(tmp_path))
        assert found[:2] == ["unreadable file"] * 2
        assert (set(found[2:-1]), found[-1]) == ({None}, "unreadable file")

    def test_no_dumps(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "missing.jsonl", [], [tmp_path / "missing.parquet"]):
            with pytest.raises(UserError, match=r"no files? of issues"):
                Issues(path).units()
