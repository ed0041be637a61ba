from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.corpus import document as module
from starcoder.corpus.document import Document, Mark, Rejection, read_documents, write_documents
from starcoder.errors import UserError

_TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
_DOCUMENTS = st.builds(
    Document,
    repository=_TEXT,
    path=_TEXT,
    language=_TEXT,
    extension=_TEXT,
    licenses=st.lists(_TEXT, max_size=3).map(tuple),
    size=st.integers(0, 2**40),
    content=_TEXT,
    stars=st.none() | st.integers(0, 2**40),
    rejection=st.none() | st.builds(Rejection, _TEXT, _TEXT, _TEXT),
    kind=st.sampled_from(["code", "notebook-script", "notebook", "issue", "commit"]),
    marks=st.lists(st.builds(Mark, st.integers(0, 20), _TEXT), max_size=3).map(tuple),
    commit=_TEXT,
    sha256=_TEXT,
    source=_TEXT,
    evidence=_TEXT,
    copies=st.integers(1, 2**40),
)


def some_documents(count: int = 40) -> list[Document]:
    contents = ["".join(sha256(f"{n} {line}".encode()).hexdigest() + "\n" for line in range(9)) for n in range(count)]
    return [Document("r", f"{n}.py", "python", "py", ("MIT",), 585, text) for n, text in enumerate(contents)]


@settings(max_examples=50)
@given(documents=st.lists(_DOCUMENTS, max_size=5))
def test_round_trip(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    write_documents(folder, "train", documents)
    assert list(read_documents(folder, "train")) == documents


def test_equal_documents_give_equal_bytes_in_several_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GROUP_CHARACTERS", 2000)  # several groups of rows in a shard
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_documents(tmp_path / name, "train", some_documents(), 5)
        write_documents(tmp_path / name, "validation", some_documents(3))
    shards = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert len(shards) > 4
    assert shards == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    assert list(read_documents(tmp_path / "a", "train")) == some_documents()
    next((tmp_path / "a").glob("train-00001-*")).unlink()
    with pytest.raises(UserError, match="train shards: build the corpus again"):
        list(read_documents(tmp_path / "a", "train"))


def test_plain_parquet_readers_see_the_columns(tmp_path: Path) -> None:
    write_documents(tmp_path, "train", some_documents(2))
    table = pq.read_table(tmp_path / "train-00000-of-00001.parquet")
    assert table.column("content").to_pylist() == [document.content for document in some_documents(2)]
    assert table.column("licenses").to_pylist() == [["MIT"], ["MIT"]]


@pytest.mark.parametrize("damage", ["flip", "cut", "text"])
def test_damage_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    write_documents(tmp_path, "train", some_documents())
    shard = tmp_path / "train-00000-of-00001.parquet"
    data = bytearray(shard.read_bytes())
    if damage == "flip":  # the digests fill most of the file, so its middle is in their page
        data[len(data) // 2] ^= 0xFF
    shard.write_bytes({"flip": data, "cut": data[: len(data) // 2], "text": b"no parquet"}[damage])
    with pytest.raises(UserError, match=r"is corrupt .*build the corpus again") as caught:
        list(read_documents(tmp_path, "train"))
    assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    documents = some_documents(3)
    write_documents(tmp_path, "train", documents)
    shard = tmp_path / "train-00000-of-00001.parquet"
    data = shard.read_bytes()
    for place in range(0, len(data), 41):
        shard.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            assert list(read_documents(tmp_path, "train")) == documents
        except UserError:
            continue


def test_missing_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no train documents in .*starcoder corpus build"):
        list(read_documents(tmp_path / "missing", "train"))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="build the corpus again"):
        list(read_documents(tmp_path, "train"))


def test_rejecting_drops_the_content_and_keeps_the_rest() -> None:
    document = some_documents(1)[0]
    rejected = document.reject("longest line", "2000 > 1000")
    assert rejected.rejection == Rejection("longest line", "2000 > 1000")
    assert (rejected.content, rejected.size, rejected.name) == ("", document.size, "r/0.py")
