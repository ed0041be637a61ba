import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from starcoder.corpus.document import Document
from starcoder.corpus.inspect import inspect, table
from starcoder.corpus.summary import FILE
from starcoder.corpus.survey import survey
from starcoder.errors import UserError
from tests.corpus.example import STAGES, documents, file, write_corpus

Ask = Callable[..., str]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("a=b [x]") / "corpus")


@pytest.fixture
def ask(corpus: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(**options: object) -> str:
        inspect(**{"folder": corpus} | options)  # type: ignore[arg-type]
        return capsys.readouterr().out

    return ask


def rows_of(shown: str, title: str) -> dict[str, list[str]]:
    """The rows of the table that begins with `title`, by their first cell."""
    found = re.search(rf"^{title} .*files.*\n", shown, flags=re.MULTILINE)
    assert found
    lines = shown[found.end() :].split("\n\n", maxsplit=1)[0].splitlines()
    cells = [re.split(r"  +", line) for line in lines]
    return {row[0]: row[1:] for row in cells}


def total(chosen: list[Document]) -> list[str]:
    return [f"{len(chosen):,}", f"{sum(document.size for document in chosen) / 1e6:,.2f}"]


def test_the_tables_count_the_documents(ask: Ask) -> None:
    shown, splits = ask(), documents()
    kept, left = splits["train"] + splits["validation"], splits["rejected"]
    assert shown.startswith(f"to train on: {' files, '.join(total(splits['train']))} MB; held out: 1 files, 0.40 MB")
    assert f"left out: {len(left)} files\nPII: not redacted\n" in shown
    assert "note: two are called folder" in shown
    funnel = rows_of(shown, "stage")
    assert list(funnel) == [*STAGES, "opt-out"]
    entering = kept + left
    for stage in STAGES:
        out = [d for d in left if d.rejection and d.rejection.stage == stage]
        assert funnel[stage] == total(entering) + total(out)
        entering = [document for document in entering if document not in out]
    assert funnel["opt-out"] == ["–", "–", "1", "0.12"]
    for language in ("python", "c"):
        mine = [[d for d in part if d.language == language] for part in (kept, left)]
        assert rows_of(shown, "language")[language] == total(mine[0]) + total(mine[1])
    licenses = rows_of(shown, "licence")
    assert licenses["BSD-3-Clause AND MIT"] == ["1", "0.30"]
    assert licenses["MIT"] == total([d for d in kept if d.licenses == ("MIT",)])


def test_reasons_unresolved_licences_and_clusters(corpus: Path) -> None:
    result, left = survey(corpus), documents()["rejected"]
    expected = Counter((d.rejection.stage, d.rejection.reason) for d in left if d.rejection)
    assert {(row["stage"], row["reason"]): row["files"] for row in result.reasons} == expected
    order = [row["stage"] for row in result.reasons]
    assert order == sorted(order, key=[*STAGES, "opt-out"].index)
    assert [(row["reason"], row["detail"], row["bytes"]) for row in result.unresolved] == [
        ("licence unknown", "Proprietary", 7_000_000),
        ("licence unknown", "ask\x07me", 6_000_000),
        ("licence not permissive", "GPL-3.0-only", 500_000),
    ]
    assert [(row["name"], row["copies"]) for row in result.clusters] == [
        ("ada/engine/wheel.py", 5),
        ("eve/held/out.py", 2),
    ]


def test_what_does_not_print_is_escaped_in_the_terminal(ask: Ask) -> None:
    shown = ask() + ask(repo="dan/closed") + ask(repo="</script><script>alert(1)</script><img src=x onerror=alert(1)>")
    assert "ask\\x07me" in shown
    assert "\\x1b[2J\\u202e.py" in shown
    assert all(line.isprintable() for line in shown.splitlines())


def test_the_page_goes_beside_the_corpus_or_where_it_is_asked_for(corpus: Path, ask: Ask, tmp_path: Path) -> None:
    before = sorted(corpus.iterdir())
    assert str(corpus.parent / "corpus-report.html") in ask()
    assert (corpus.parent / "corpus-report.html").read_text().startswith("<!doctype html>")
    ask(html=tmp_path / "new/page.html")
    assert (tmp_path / "new/page.html").is_file()
    assert sorted(corpus.iterdir()) == before


def test_a_table_adds_up_the_rows_it_does_not_show() -> None:
    rows = [("a", 1000, 2_500_000), ("b", 1, 1_000_000), ("c" * 80, 2, 3_000_000)]
    lines = [line.split() for line in table(("name", "files", "MB"), rows, 1).splitlines()]
    assert lines == [["name", "files", "MB"], ["a", "1,000", "2.50"], ["(2", "more)", "3", "4.00"]]
    assert table(("name", "files"), [("c" * 80, 1)]).splitlines()[1].startswith("c" * 59 + "… ")
    assert table(("name", "files"), []) == "name  files\n"
    assert "(none)" in table(("name", "files"), [("", 1)])


@pytest.mark.parametrize(
    "name",
    [
        *(
            "ada/engine",
            "ADA/Engine",
            "https://github.com/ada/engine.git",
            "git@github.com:ada/engine",
            " ada/engine/ ",
        ),
        *("ssh://git@github.com/ada/engine.git", "git://github.com/ada/engine", "https://gitlab.com/ada/engine"),
    ],
)
def test_a_repository_by_any_spelling(ask: Ask, name: str) -> None:
    shown = ask(repo=name)
    assert shown.startswith("ada/engine in ")
    assert ": 3 files (1.31 MB) kept, 1 file (0.98 MB) left out\n" in shown
    assert "  ada/engine/wheel.py  train; python; MIT (LICENSE: MIT 0.99); stands for 5 files\n" in shown
    assert "  ada/engine/cog.c  train; c; BSD-3-Clause AND MIT (LICENSE: MIT 0.99)\n" in shown
    why = "near-duplicates: near-duplicate (ada/engine/wheel.py, Jaccard 0.83)"
    assert f"\nleft out\n  ada/engine/wheel2.py  {why}\n" in shown
    assert "copy of another's" not in shown


def test_an_owner_is_all_of_its_repositories(ask: Ask) -> None:
    shown = ask(repo="dan")
    assert ask(repo="@dan") == shown  # what an opt-out of that name would take out
    assert shown.startswith("dan/Closed, dan/gpl in ")
    assert ": nothing kept, 3 files (13.50 MB) left out\n" in shown
    assert "licence: licence not permissive (GPL-3.0-only)" in shown
    assert "\nkept\n" not in shown
    assert "opt-out: opted out (zoe)" in ask(repo="zoe")


def test_copies_that_others_stand_for_are_followed_to_the_end(ask: Ask) -> None:
    section = ask(repo="cat/copy").partition("left out as a copy of another's file, which stands for it\n")[2]
    assert section.splitlines() == [
        "  cat/copy/big.py  bob/tools/big.py: left out itself, filters: longest line (2000 > 1000)",
        "  cat/copy/out.py  eve/held/out.py: validation; python; MIT (LICENSE: MIT 0.99); stands for 2 files",
        "  cat/copy/wheel.py  ada/engine/wheel.py: train; python; MIT (LICENSE: MIT 0.99); stands for 5 files",
    ]


def test_a_name_that_was_not_seen(ask: Ask) -> None:
    for name in ("ad", "ada/engine2", "engine", ".*"):
        assert ask(repo=name).startswith(f"nothing called {name} was seen: ")
    assert "names that contain it: ada/engine, " not in ask(repo="ada/engine2")
    assert "names that contain it: ada/engine\n" in ask(repo="engine")


def test_duplicates_that_name_each_other_end(tmp_path: Path, ask: Ask) -> None:
    ring = [file(f"o/{n}/x", 1).reject("exact duplicate", f"o/{(n + 1) % 3}/x", "exact duplicates") for n in range(3)]
    lost = file("o/9/x", 1).reject("exact duplicate", "o/8/x", "exact duplicates")
    folder = write_corpus(tmp_path, {"train": [], "validation": [], "rejected": [*ring, lost]})
    assert ask(folder=folder, repo="o/0").count("o/1/x") == 1
    assert "copy of another's" not in ask(folder=folder, repo="o/9")
    assert "PII: redacted by stars" in ask(folder=write_corpus(tmp_path, redactor="stars"))


def test_what_was_redacted_in_each_language(tmp_path: Path, ask: Ask) -> None:
    languages = {"c": {"EMAIL": 1200}, "": {"KEY": 1}, "python": {"EMAIL": 30, "KEY": 1230}}
    facts = {"redacted": {"EMAIL": 1230, "KEY": 1231}, "redacted_languages": languages, "unredacted": {"KEY": 9}}
    shown = ask(folder=write_corpus(tmp_path, redactor="stars", **facts))
    assert "\nPII: redacted by stars: 1,230 EMAIL, 1,231 KEY; left as they are: 9 KEY\n" in shown
    table = shown[shown.index("redacted in") :].split("\n\n")[0].splitlines()
    assert [line.split() for line in table] == [
        ["redacted", "in", "EMAIL", "KEY"],
        ["python", "30", "1,230"],
        ["c", "1,200", "0"],
        ["(none)", "0", "1"],
    ]
    assert "redacted in" not in ask()


def index(folder: Path, lengths: list[int], first: int = 0) -> list[str]:
    """Write the index of documents of these lengths; return the name of the document of every token."""
    rows, owners = [], [""] * first
    for n, tokens in enumerate(lengths):
        facts = {"repository": "o/r", "path": f"{n}.py", "commit": "", "licenses": ["MIT", "ISC"], "stars": None}
        facts |= {"language": "python", "kind": "code", "sha256": "ab", "source": "folder", "copies": n}
        rows.append({"start": len(owners), "tokens": tokens, **facts})
        owners += [f"o/r/{n}.py"] * tokens
    pq.write_table(pa.Table.from_pylist(rows), folder / "documents.parquet")
    return owners


def test_every_position_belongs_to_its_document(tmp_path: Path, ask: Ask) -> None:
    owners = index(tmp_path, [3, 1, 4])
    answers = [ask(folder=Path("missing"), shards=tmp_path, position=n).splitlines() for n in range(8)]
    assert [answer[0] for answer in answers] == owners
    assert [answer[1].split(",")[0] for answer in answers] == [
        *(f"  its token {n} of 3" for n in range(3)),
        "  its token 0 of 1",
        *(f"  its token {n} of 4" for n in range(4)),
    ]
    assert f"counted from 0: 4 to 7 of {tmp_path}" in answers[5][1]
    assert "  licence     MIT AND ISC" in answers[5]
    assert "  stands for  2 files" in answers[5]
    assert not [line for line in answers[5] if "commit" in line or "stars" in line or "None" in line]


def test_positions_without_a_document(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no documents\.parquet in .*starcoder tokenize"):
        inspect(shards=tmp_path, position=0)
    index(tmp_path, [3, 1], first=2)
    for position in (-1, 0, 1, 6, 2**62):
        with pytest.raises(UserError, match=f"no document has token {position:,} of .* holds 6 counted from 0"):
            inspect(shards=tmp_path, position=position)
    pl.DataFrame({"start": [0]}).write_parquet(tmp_path / "documents.parquet")
    with pytest.raises(UserError, match="is corrupt"):
        inspect(shards=tmp_path, position=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position": 3}, "--shards and --position go together"),
        ({"shards": Path("x"), "repo": "a"}, "--shards and --position go together"),
        ({"shards": Path("x"), "position": 1, "repo": "a"}, "--repo and --position are two questions"),
        ({"samples": -1, "repo": " / "}, "--repo is empty; --samples must not be negative"),
        ({"folder": Path("missing")}, r"no corpus in missing.*starcoder corpus build"),
        ({"folder": Path("missing"), "repo": "a"}, r"no train documents in missing.*starcoder corpus build"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        inspect(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damage", "repo"),
    [("summary", None), *((damage, repo) for damage in ("flip", "cut", "version", "shard") for repo in (None, "ada"))],
)
def test_damage_is_one_clear_error(tmp_path: Path, damage: str, repo: str | None) -> None:
    write_corpus(tmp_path)
    shard = tmp_path / "train-00001-of-00002.parquet"
    data = shard.read_bytes()
    if damage == "flip":
        # All texts and names but the footer: whatever column is read first, its pages are no pages.
        shard.write_bytes(data[:4] + bytes(byte ^ 0xFF for byte in data[4:-4000]) + data[-4000:])
    elif damage == "cut":
        shard.write_bytes(data[: len(data) // 2])
    elif damage == "version":
        pq.write_table(pa.table({"text": ["a"]}), shard)
    elif damage == "shard":
        shard.unlink()
    else:
        (tmp_path / FILE).write_text('{"format": 0}')
    with pytest.raises(UserError, match="build") as caught:
        inspect(tmp_path, repo)
    assert "\n" not in str(caught.value)
