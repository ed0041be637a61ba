from pathlib import Path

from starcoder.corpus.document import Document
from starcoder.corpus.summary import count, counts_table, read_summary, write_summary


def documents() -> list[Document]:
    sizes = {"python": (3, 4), "c": (10,), "css": (1,)}
    return [Document("r", "p", language, "", ("MIT", "ISC"), n) for language, ns in sizes.items() for n in ns]


def test_count_sorts_by_bytes() -> None:
    counts = count(documents(), lambda document: document.language)
    assert list(counts.items()) == [
        ("c", {"documents": 1, "bytes": 10}),
        ("python", {"documents": 2, "bytes": 7}),
        ("css", {"documents": 1, "bytes": 1}),
    ]


def test_table_adds_up_the_rows_it_does_not_show() -> None:
    counts = {name: {"documents": 1000, "bytes": 2_500_000} for name in "abcd"}
    lines = [line.split() for line in counts_table("languages", counts, rows=1).splitlines()]
    assert lines == [["languages", "documents", "MB"], ["a", "1,000", "2.50"], ["(3", "more)", "3,000", "7.50"]]
    assert counts_table("nothing", {}).split() == ["nothing", "documents", "MB"]


def test_round_trip(tmp_path: Path) -> None:
    write_summary(tmp_path, {"source": "abc"}, {"train": documents(), "rejected": [documents()[0].reject("empty")]})
    summary = read_summary(tmp_path)
    assert summary["source"] == "abc"
    assert summary["train"]["licenses"] == {"MIT AND ISC": {"documents": 4, "bytes": 18}}
    assert summary["rejected"]["reasons"] == {"empty": {"documents": 1, "bytes": 3}}
