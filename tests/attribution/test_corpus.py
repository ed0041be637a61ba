from dataclasses import replace
from pathlib import Path

import pytest

from starcoder.attribution.corpus import Address, Corpus
from starcoder.corpus.document import Document, read_documents, shards, write_documents, write_shard
from starcoder.corpus.summary import seal
from starcoder.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A corpus of 2,600 documents in two shards, the first of more than one group of rows."""
    documents = [
        Document("ann/lib", f"{n}.py", "python", "py", ("MIT",), 9, f"x = {n}\n", source="test") for n in range(2600)
    ]
    for split in ("train", "validation", "rejected"):
        write_documents(tmp_path, split, documents if split == "train" else [], 2)
    seal(tmp_path, {}, {})
    return tmp_path


def test_documents_are_found_again_by_their_address(folder: Path) -> None:
    corpus = Corpus.open(folder)
    found = [(Address(n, row), each) for n in range(len(corpus.shards)) for row, each in corpus.documents(n)]
    assert [each for _, each in found] == list(read_documents(folder, "train"))
    for address, document in found[::97]:
        assert corpus.document(address) == document
        assert corpus.facts(address) == replace(document, content="")
    assert corpus.repositories == {"ann/lib"}
    with pytest.raises(UserError, match="make the index again"):
        corpus.document(Address(0, 10**6))


def test_what_is_corrupt_is_one_line_that_does_not_tell_whose_machine_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    corpus = Corpus.open(folder)
    for path in corpus.shards:
        path.write_bytes(path.read_bytes()[:-9])
    for read in (lambda: corpus.document(Address(0, 0)), lambda: corpus.repositories):
        with pytest.raises(UserError, match=rf"^{folder.name}/train-\S+ is corrupt \(.*\): build the corpus again$"):
            read()


def test_a_fingerprint_changes_with_its_shard_alone(folder: Path) -> None:
    before = Corpus.open(folder).fingerprints
    assert Corpus.open(folder).fingerprints == before
    first = shards(folder, "train")[0]
    write_shard(first, list(read_documents(folder, "train"))[1:1300])
    after = Corpus.open(folder).fingerprints
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_without_a_corpus_there_is_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus"):
        Corpus.open(tmp_path)
