import json
from pathlib import Path

import polars as pl
import pytest

from starcoder.corpus.document import Document, Rejection, read_documents, write_documents
from starcoder.corpus.summary import STAGES, count, read_summary, recount, seal
from starcoder.errors import UserError

MB = 10**6


def document(name: str, size: int, *, stage: str = "", reason: str = "", **fields: object) -> Document:
    repository, path = name.split("/")
    rejection = Rejection(reason or stage, "in detail", stage) if stage else None
    settings: dict[str, object] = {"language": "python", "licenses": ("MIT",), "source": "here"} | fields
    return Document(repository, path, extension="", size=size, rejection=rejection, **settings)  # type: ignore[arg-type]


def corpus(folder: Path, *documents: Document) -> Path:
    """A folder with the shards of a corpus: v is held out, and train has two shards, of which one can be empty."""
    kept = [document for document in documents if not document.rejection]
    write_documents(folder, "train", [d for d in kept if d.repository != "v"], 2)
    write_documents(folder, "validation", [d for d in kept if d.repository == "v"])
    write_documents(folder, "rejected", [d for d in documents if d.rejection])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return corpus(
        tmp_path,
        document("a/1", 3),
        document("a/2", 4, licenses=("MIT", "ISC")),
        document("b/1", 10, language="c"),
        document("v/1", 20, kind="issue", language="", licenses=()),
        document("b/2", 7, stage="licence", reason="licence unknown"),
        document("b/3", 100, stage="filters", reason="longest line", language="c"),
        document("b/4", 200, stage="filters", reason="XML"),
        document("c/1", 5, stage="exact duplicates"),
        document("c/2", 6, stage="benchmarks"),
    )


def test_the_funnel_counts_what_enters_each_stage(folder: Path) -> None:
    seal(folder, {}, {})
    rows = read_summary(folder)["stages"]
    assert [row["stage"] for row in rows] == [*STAGES, "kept"]
    entering = {row["stage"]: (row["files"], row["bytes"]) for row in rows}
    assert entering["opt-out"] == entering["licence"] == (9, 355)
    assert entering["language"] == entering["malware"] == entering["exact duplicates"] == (8, 348)
    assert entering["near-duplicates"] == entering["filters"] == (7, 343)
    assert entering["benchmarks"] == (5, 43)
    assert entering["kept"] == (4, 37)


def test_splits_are_counted_by_everything_largest_first(folder: Path) -> None:
    seal(folder, {"seed": 5}, {"NAME": 2, "KEY": 1})
    summary = read_summary(folder)
    assert summary["seed"] == 5
    assert list(summary["redacted"].items()) == [("KEY", 1), ("NAME", 2)]
    train, validation, rejected = (summary[split] for split in ("train", "validation", "rejected"))
    assert (train["documents"], train["bytes"], train["n_repositories"]) == (3, 17, 2)
    assert list(train["languages"].items()) == [
        ("c", {"documents": 1, "bytes": 10}),
        ("python", {"documents": 2, "bytes": 7}),
    ]
    assert train["licenses"] == {"MIT": {"documents": 2, "bytes": 13}, "MIT AND ISC": {"documents": 1, "bytes": 4}}
    assert list(train["repositories"]) == ["b", "a"]
    assert train["sources"] == {"here": {"documents": 3, "bytes": 17}}
    assert validation["kinds"] == {"issue": {"documents": 1, "bytes": 20}}
    assert validation["licenses"] == validation["languages"] == {"": {"documents": 1, "bytes": 20}}
    assert list(rejected["reasons"]) == ["XML", "longest line", "licence unknown", "benchmarks", "exact duplicates"]
    assert "reasons" not in train


def test_nothing_left_out_and_nothing_kept(tmp_path: Path) -> None:
    seal(corpus(tmp_path / "all", document("a/1", 3), document("v/1", 4)), {}, {})
    assert read_summary(tmp_path / "all")["stages"][-1] == {"stage": "kept", "files": 2, "bytes": 7}
    seal(corpus(tmp_path / "none", document("a/1", 3, stage="opt-out")), {}, {})
    assert [row["files"] for row in read_summary(tmp_path / "none")["stages"]] == [1] + [0] * 10


def test_most_repositories_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    seal(corpus(tmp_path, *(document(f"r{number}/1", number) for number in range(1200))), {}, {})
    train = read_summary(tmp_path)["train"]
    assert train["n_repositories"] == train["documents"] == 1200
    assert list(train["repositories"]) == [f"r{number}" for number in range(1199, 199, -1)]


def test_a_source_that_is_mostly_copies_raises_an_alarm(tmp_path: Path) -> None:
    """Of what came as far as the near-duplicates; what has less than a megabyte raises none."""
    seal(
        corpus(
            tmp_path,
            document("copies/1", 3 * MB),
            document("copies/2", 6 * MB, stage="near-duplicates"),
            document("copies/3", 1 * MB, stage="filters"),
            document("copies/4", 90 * MB, stage="licence"),
            document("half/1", 4 * MB),
            document("half/2", 4 * MB, stage="near-duplicates"),
            document("own/1", 9 * MB),
            document("small/1", MB - 1, stage="near-duplicates"),
            document("v/1", 8 * MB, stage="near-duplicates", source="forks"),
            document("v/2", 2 * MB, source="forks"),
        ),
        {"messages": ["something else"]},
        {},
    )
    assert read_summary(tmp_path)["messages"] == [
        "something else",
        "source forks: 80% of 10.0 MB are near-duplicates of what is kept",
        "repository v: 80% of 10.0 MB are near-duplicates of what is kept",
        "repository copies: 60% of 10.0 MB are near-duplicates of what is kept",
    ]


def test_recount_after_documents_were_taken_out(folder: Path) -> None:
    facts = {"options": {"seed": 5}, "messages": ["something else"], "redacted_languages": {"python": {"KEY": 1}}}
    seal(folder, facts, {"KEY": 1})
    before = (folder / "corpus.json").read_bytes()
    recount(folder, {})
    assert (folder / "corpus.json").read_bytes() == before
    rest = [document for document in read_documents(folder, "train") if document.name != "b/1"]
    write_documents(folder, "train", rest, 2)
    recount(folder, {})
    summary = read_summary(folder)
    assert {key: summary[key] for key in facts} == facts
    assert summary["redacted"] == {"KEY": 1}
    assert (summary["train"]["documents"], summary["train"]["bytes"]) == (2, 7)
    assert summary["stages"][-1] == {"stage": "kept", "files": 3, "bytes": 27}


def test_recount_does_not_repeat_alarms(tmp_path: Path) -> None:
    documents = [document("a/1", MB), document("a/2", 2 * MB, stage="near-duplicates")]
    seal(corpus(tmp_path, *documents), {"options": {}, "messages": ["something else"]}, {})
    before = read_summary(tmp_path)
    recount(tmp_path, {})
    assert read_summary(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no corpus in .*: make one with `starcoder corpus build --output"),
        ("{", "cannot be read .*: build the corpus again"),
        ("[]", "another version"),
        ('{"format": 1}', "another version"),
    ],
)
def test_a_folder_without_a_good_summary_is_one_clear_error(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "corpus.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_summary(tmp_path)


def test_summary_is_json_that_people_can_read(folder: Path) -> None:
    seal(folder, {}, {})
    text = (folder / "corpus.json").read_text()
    assert text == json.dumps(json.loads(text), indent=2) + "\n"


def test_count_orders_equal_sizes_by_name() -> None:
    frame = pl.LazyFrame({"name": ["b", "c", "a", "c"], "size": [4, 1, 4, 2]})
    assert list(count(frame, pl.col("name")).items()) == [
        ("a", {"documents": 1, "bytes": 4}),
        ("b", {"documents": 1, "bytes": 4}),
        ("c", {"documents": 2, "bytes": 3}),
    ]
