import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Document, Rejection, read_documents, shards, write_documents, write_shard
from starcoder.corpus.optout import OptOut, apply_to_corpus
from starcoder.errors import UserError


def read(tmp_path: Path, text: str | bytes) -> OptOut:
    path = tmp_path / "opt-out.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return OptOut.read(path)


@pytest.mark.parametrize(
    ("line", "repository", "expected"),
    [
        ("Alice", "alice/Code", "alice"),
        ("alice/code", "Alice/Code", "alice/code"),
        ("alice/code", "alice/codec", None),
        ("alice/code", "alice", None),
        ("alice", "alicette/code", None),
        ("alice", "bob/alice", None),
        ("code", "alice/code", None),
        ("requests", "requests", "requests"),
        ("requests", "requests-mock", None),
        ("https://github.com/Alice/Code", "alice/code", "alice/code"),
        ("https://www.github.com/alice/code.git", "alice/code", "alice/code"),
        ("git@github.com:alice/code.git", "alice/code", "alice/code"),
        ("github.com/alice/", "alice/other", "alice"),
        ("alice/code.git  # asked in May", "alice/code", "alice/code"),
        ("@babel", "@babel/core", "@babel"),
        ("babel", "@babel/core", None),
        ("@babel/core", "@babel/core", "@babel/core"),
        ("@babel/core", "babel/core", None),
        ("@torvalds", "torvalds/linux", "@torvalds"),
        ("@Torvalds", "Torvalds", "@torvalds"),
        ("@torvalds", "other/torvalds", None),
        ("group", "group/sub/repo", "group"),
        ("group/sub", "Group/Sub/repo", "group/sub"),
        ("group/sub/repo", "group/sub/repo", "group/sub/repo"),
        ("https://gitlab.com/group/sub/repo.git", "group/sub/repo", "group/sub/repo"),
        ("sub", "group/sub/repo", None),
        ("group/sub", "group/subway/repo", None),
        ("https://gitlab.com/alice/code", "alice/code", "alice/code"),
        ("ssh://git@github.com/alice/code.git", "alice/code", "alice/code"),
        ("ssh://git@github.com:22/alice/code", "alice/code", "alice/code"),
        ("git://github.com/alice/code", "alice/code", "alice/code"),
        ("git@codeberg.org:alice/code", "alice/code", "alice/code"),
        ("~alice", "~alice/code", "~alice"),
        ("alice", "alice@1.2/code", None),
        ("alice/c#", "alice/c", "UserError"),
        ("  # alice", "alice/code", None),
        ("", "alice/code", None),
    ],
)
def test_an_entry_matches_its_repositories_alone(
    tmp_path: Path, line: str, repository: str, expected: str | None
) -> None:
    if expected == "UserError":
        with pytest.raises(UserError):
            read(tmp_path, line)
        return
    opt_out = read(tmp_path, line)
    assert opt_out.matches(repository) == expected
    assert (repository in opt_out) == (expected is not None)


_NAMES = st.text("ab-.", min_size=1, max_size=3)
_REPOSITORIES = st.lists(_NAMES, min_size=1, max_size=4).map("/".join)


@given(st.frozensets(_REPOSITORIES, max_size=8), _REPOSITORIES)
def test_matching_equals_comparing_whole_names(entries: frozenset[str], repository: str) -> None:
    expected = any(repository == entry or repository.startswith(f"{entry}/") for entry in entries)
    assert (repository in OptOut(entries)) == expected


@pytest.mark.parametrize(
    "line",
    [
        *("alice code", "/", "a:b", "https://github.com/", "https://gitlab.com", "alice/~code", "a/@b"),
        *("alice/code/tree/main", "https://github.com/alice/code/issues/3", "https://gitlab.com/a/b/c/-/tree/main"),
    ],
)
def test_a_line_that_is_no_name_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    with pytest.raises(UserError, match=r"opt-out\.txt, line 3: .* is neither an owner nor an owner/repository"):
        read(tmp_path, f"# list\nalice\n{line}\n")


def test_unreadable_lists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        OptOut.read(tmp_path / "missing")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path, b"al\xefce")


def test_digest_tells_what_is_asked_for_not_how(tmp_path: Path) -> None:
    opt_out = read(tmp_path, "\ufeffalice\r\nBob/Code\n\n")
    same = read(tmp_path, "# two\nhttps://github.com/bob/code\nALICE\nalice")
    assert (len(opt_out), opt_out.digest) == (2, same.digest)
    assert opt_out.digest != read(tmp_path, "alice/bob\ncode").digest != OptOut.none().digest
    assert pickle.loads(pickle.dumps(opt_out)) == opt_out
    assert (len(OptOut.none()), OptOut.none().matches("alice/code")) == (0, None)


def document(repository: str, number: int, content: str = "text\n") -> Document:
    return Document(
        repository, f"{number}.py", "python", "py", ("MIT",), len(content), content, sha256=f"{number:064x}"
    )


def corpus(folder: Path) -> None:
    owners = ["alice/a", "bob/b", "alice/c", "dora/d", "requests"]
    train = [document(owners[number % 5], number) for number in range(20)]
    validation = [document(owners[number % 5], 100 + number) for number in range(5)]
    rejected = [
        replace(document(owner, 200 + number, "excerpt"), rejection=Rejection("mean line", "120 > 100", "filters"))
        for number, owner in enumerate(owners)
    ]
    write_documents(folder, "train", train, 4)
    write_documents(folder, "validation", validation)
    write_documents(folder, "rejected", rejected, 2)


def contents(folder: Path) -> dict[str, list[Document]]:
    return {split: list(read_documents(folder, split)) for split in ("train", "validation", "rejected")}


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())}


ALICE = OptOut(frozenset({"alice", "bob/b"}))


def test_opting_out_of_a_finished_corpus(tmp_path: Path) -> None:
    corpus(tmp_path)
    before = contents(tmp_path)
    assert apply_to_corpus(tmp_path, ALICE) == Counter(train=12, validation=3, rejected=3)
    after = contents(tmp_path)
    for split in ("train", "validation"):
        assert after[split] == [each for each in before[split] if each.repository in ("dora/d", "requests")]
    moved = [each for each in [*before["train"], *before["validation"]] if each.repository in ALICE]
    erased = [replace(each, content="") if each.repository in ALICE else each for each in before["rejected"]]
    entries = {"alice/a": "alice", "alice/c": "alice", "bob/b": "bob/b"}
    assert after["rejected"] == erased + [
        each.reject("opted out", entries[each.repository], "opt-out") for each in moved
    ]
    assert not any(each.content for each in after["rejected"] if each.repository in ALICE)


def test_the_second_time_nothing_changes(tmp_path: Path) -> None:
    corpus(tmp_path)
    apply_to_corpus(tmp_path, ALICE)
    done = state(tmp_path)
    assert apply_to_corpus(tmp_path, ALICE) == Counter()
    assert state(tmp_path) == done


def test_only_shards_with_such_documents_are_written(tmp_path: Path) -> None:
    corpus(tmp_path)
    before = state(tmp_path)
    assert apply_to_corpus(tmp_path, OptOut.none()) == Counter()
    assert apply_to_corpus(tmp_path, OptOut(frozenset({"nobody"}))) == Counter()
    assert state(tmp_path) == before
    write_documents(tmp_path, "validation", [document("eve/e", 300)])
    before = state(tmp_path)
    assert apply_to_corpus(tmp_path, OptOut(frozenset({"eve"}))) == Counter(validation=1)
    changed = {name for name, value in state(tmp_path).items() if value != before[name]}
    assert changed == {"validation-00000-of-00001.parquet", "rejected-00001-of-00002.parquet"}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("writes", range(7))
def test_a_killed_run_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """After any number of written shards, running again ends as one run does."""
    corpus(tmp_path / "once")
    apply_to_corpus(tmp_path / "once", ALICE)
    corpus(tmp_path / "killed")
    left = iter(range(writes))

    def killed(path: Path, documents: Iterable[Document]) -> None:
        if next(left, None) is None:
            raise Killed
        write_shard(path, documents)

    monkeypatch.setattr("starcoder.corpus.optout.write_shard", killed)
    with pytest.raises(Killed):
        apply_to_corpus(tmp_path / "killed", ALICE)
    monkeypatch.undo()
    apply_to_corpus(tmp_path / "killed", ALICE)
    assert contents(tmp_path / "killed") == contents(tmp_path / "once")


def test_damaged_or_missing_shards_are_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no train documents"):
        apply_to_corpus(tmp_path, ALICE)
    corpus(tmp_path)
    shards(tmp_path, "train")[1].write_bytes(b"PAR1 not parquet")
    with pytest.raises(UserError, match="corrupt"):
        apply_to_corpus(tmp_path, ALICE)
