import json
from collections import Counter
from pathlib import Path

import pytest

from starcoder.corpus import build as module
from starcoder.corpus.build import build, inspect
from starcoder.corpus.dedup import near_duplicates
from starcoder.corpus.document import Document, read_documents
from starcoder.corpus.filters import FilterOptions
from starcoder.corpus.sources import find_repositories, fingerprint
from starcoder.corpus.summary import read_summary
from starcoder.errors import UserError

SPLITS = ("train", "validation", "rejected")


def program(name: str, lines: int = 40) -> str:
    return "".join(f"def {name}_{n}(first, second):\n    return first * {n} + second\n" for n in range(lines))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A large repository that is never held out, eight of one file, and one in which everything is wrong."""
    files = {f"large/{n}.py": program(f"large{n}", 100) for n in range(20)}
    files |= {f"small{n}/a.py": program(f"small{n}") for n in range(8)}
    files |= {
        "wrong/near.py": program("large0", 100) + "# a last line that the other one has not\n",
        "wrong/copy.py": program("large1", 100),
        "wrong/empty.py": " \n",
        "wrong/latin.py": "é",
        "wrong/zero.py": "a\0b",
        "wrong/wide.py": "x" * 1001,
        "wrong/stub.pyi": program("stub"),
        "wrong/gpl.py": "# SPDX-License-Identifier: GPL-3.0-only\n" + program("gpl"),
        "wrong/own.py": "# SPDX-License-Identifier: ISC\n" + program("own"),
        "wrong/_vendor/a.py": program("vendored"),
        "wrong/data.json": json.dumps({"k": "v" * 6000}),
    }
    for path, text in files.items():
        (tmp_path / "source" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / path).write_bytes(text.encode("latin-1" if text == "é" else "utf-8"))
    return tmp_path / "source"


def read(folder: Path) -> dict[str, list[Document]]:
    return {split: list(read_documents(folder, split)) for split in SPLITS}


def test_every_file_ends_in_one_split_with_its_reason(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", source, "MIT", validation_share=0.3)
    splits = read(tmp_path / "out")
    found = Counter(document.name for documents in splits.values() for document in documents)
    assert found == Counter(path.relative_to(source).as_posix() for path in source.rglob("*.*"))
    reasons = {
        d.name: d.rejection.reason for d in splits["rejected"] if d.rejection and "near" not in d.rejection.reason
    }
    assert reasons == {
        "wrong/copy.py": "exact duplicate",
        "wrong/empty.py": "empty",
        "wrong/latin.py": "not UTF-8",
        "wrong/zero.py": "binary",
        "wrong/wide.py": "longest line",
        "wrong/stub.pyi": "no language of the table",
        "wrong/gpl.py": "file under another licence",
        "wrong/_vendor/a.py": "vendored code",
        "wrong/data.json": "size of a data file",
    }
    kept = {document.name: document for split in SPLITS[:2] for document in splits[split]}
    assert all((source / name).read_text() == document.content for name, document in kept.items())
    assert kept["small0/a.py"].licenses == ("MIT",)
    assert kept["wrong/own.py"].licenses == ("ISC",)


def test_held_out_repositories_are_whole_and_without_near_duplicates(source: Path, tmp_path: Path) -> None:
    held_out_once = False
    for seed in range(4):
        build(tmp_path / "out", source, "MIT", validation_share=0.3, seed=seed)
        splits = read(tmp_path / "out")
        apart = {document.repository for document in splits["validation"]}
        assert apart
        assert apart.isdisjoint(document.repository for document in splits["train"])
        near = [d for d in splits["rejected"] if d.rejection and d.rejection.reason.startswith("near-duplicate")]
        assert [document.name for document in near] == (["wrong/near.py"] if "wrong" in apart else [])
        for document in near:
            assert document.rejection
            assert document.rejection.detail.startswith("large/0.py, Jaccard 0.99")
        held_out_once |= bool(near)
    assert held_out_once


def test_two_runs_give_the_same_bytes_and_another_seed_others(source: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(tmp_path / name, source, "MIT", seed=seed, max_bytes=60_000)
    contents = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_budget_is_shared_fairly(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", source, "MIT", max_bytes=60_000)
    splits = read(tmp_path / "out")
    kept = splits["train"] + splits["validation"]
    over = [d for d in splits["rejected"] if d.rejection and d.rejection.reason == "over its repository's share"]
    assert sum(document.size for document in kept) <= 60_000
    assert {document.repository for document in kept} >= {"large", *(f"small{n}" for n in range(8))}
    assert {document.repository for document in over} == {"large", "wrong"}  # the others have less than the share


def test_summary_counts_the_shards(source: Path, tmp_path: Path) -> None:
    build(tmp_path / "out", source, "MIT", validation_share=0.3)
    summary = read_summary(tmp_path / "out")
    assert summary["source"] == fingerprint(find_repositories(source, "MIT"))
    for split, documents in read(tmp_path / "out").items():
        assert summary[split]["documents"] == len(documents)
        assert summary[split]["bytes"] == sum(document.size for document in documents)
        for group in ("languages", "licenses", "repositories"):
            assert sum(entry["bytes"] for entry in summary[split][group].values()) == summary[split]["bytes"]
    assert summary["rejected"]["reasons"]["exact duplicate"]["documents"] == 1
    assert "reasons" not in summary["train"]


def test_real_code_of_this_machine(tmp_path: Path) -> None:
    """A small corpus of installed packages: several languages, and a held-out part that is not in training."""
    build(tmp_path / "out", max_bytes=4_000_000)
    splits = read(tmp_path / "out")
    train, validation = splits["train"], splits["validation"]
    assert len({document.repository for document in train}) > 30
    assert {"python", "c", "c++"} < {document.language for document in train}
    assert {document.repository for document in validation}.isdisjoint(document.repository for document in train)
    assert {document.content for document in validation}.isdisjoint(document.content for document in train)
    assert not list(near_duplicates([d.content for d in validation], [d.content for d in train]))
    assert sum(document.size for document in validation if document.language == "python") > 50_000
    rejected = {document.repository for document in splits["rejected"]} - {d.repository for d in train + validation}
    assert "hypothesis" in rejected  # MPL-2.0


def test_inspect(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "out", source, "MIT")
    assert "corpus: kept by the filters: 31 files" in capsys.readouterr().out
    inspect(tmp_path / "out", documents=2)
    shown = capsys.readouterr().out
    assert "train, languages" in shown
    assert shown.count("--- ") == 2
    assert "return first" in shown
    inspect(tmp_path / "out", split="rejected", documents=0)
    assert "longest line" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bytes": 0, "validation_share": 1.0}, "max_bytes must be .*; validation_share must be"),
        ({"similarity": 0.0}, "similarity must be"),
        ({"accept": ["FOO"]}, "no such SPDX licence id: FOO"),
        ({"license": "GPL-3.0-only"}, "GPL-3.0-only: licence not permissive"),
        ({"license": "nothing we know"}, "licence unknown"),
        ({"filters": FilterOptions(mean_line=1)}, "fewer than two repositories"),
    ],
)
def test_bad_options(source: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(tmp_path / "out", **({"source": source, "license": "MIT"} | options))
    assert sorted(tmp_path.iterdir()) == [source]


def test_a_folder_that_is_no_corpus_is_not_replaced(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds something else"):
        build(source, source, "MIT")
    assert (source / "small0/a.py").exists()
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty", source, "MIT")
    assert read_summary(tmp_path / "empty")


def test_an_interrupted_build_leaves_the_old_corpus(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "out", source, "MIT")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_summary", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", source, "MIT", seed=1)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out", source]


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 0}'])
def test_a_folder_without_a_summary_is_one_clear_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "corpus.json").write_text(content)
    with pytest.raises(UserError, match="build"):
        inspect(tmp_path)


def test_one_repository_of_ones_own_is_split_by_file(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    for number in range(40):
        path = root / f"part{number % 3}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"def f{number}_{n}(x):\n    return x * {number * n + 1}\n" for n in range(9)))
    build(tmp_path / "corpus", repository=root, validation_share=0.2, similarity=1.0)
    train, validation = (list(read_documents(tmp_path / "corpus", split)) for split in ("train", "validation"))
    assert len(train) + len(validation) == 40
    assert 1 <= len(validation) <= 10
    assert {document.repository for document in [*train, *validation]} == {"mine"}
    assert {document.licenses for document in train} == {("LicenseRef-Own",)}
    with pytest.raises(UserError, match="not both"):
        build(tmp_path / "other", repository=root, source=tmp_path)
    with pytest.raises(UserError, match="not a folder with files"):
        build(tmp_path / "other", repository=tmp_path / "nowhere")
