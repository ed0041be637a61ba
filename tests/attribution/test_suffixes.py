import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from starcoder import tokenizer as vocabulary
from starcoder.attribution import suffixes
from starcoder.attribution.corpus import Address, Corpus
from starcoder.attribution.lexer import lex
from starcoder.attribution.spans import Span, verify
from starcoder.attribution.squeezed import squeeze
from starcoder.attribution.suffixes import DOCUMENTS, Suffixes, build_suffixes, check_engine
from starcoder.corpus.document import Document, shards, write_documents, write_shard
from starcoder.corpus.summary import seal
from starcoder.errors import UserError
from starcoder.tokenizer import Tokenizer

try:
    check_engine()
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)

WORDS = [*"abcdefgh", "total", "é", "😀", "+", "=", "(", ")", ";", "7", "\n    ", "\n"]


def find(suffixes: Suffixes, query: str, documents: int = DOCUMENTS) -> list[Span]:
    """All spans, the longest first."""

    def read(addresses: Sequence[Address]) -> list[str]:
        return [suffixes.corpus.document(address).content for address in addresses]

    spans = suffixes.find(lex(query), read, documents)
    return spans.tell(range(len(spans.parts)))


def content(seed: int, length: int = 120) -> str:
    return " ".join(Random(seed).choices(WORDS, k=length))


COMMON = "def seen_everywhere(argument): return argument * 41 + total"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return vocabulary.train([content(seed) for seed in range(50)] + [COMMON] * 3, 330)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three shards of 40 documents; all of the even ones have a common line."""
    texts = [content(n) + ("\n" + COMMON + "\n" if n % 2 == 0 else "") + content(1000 + n) for n in range(120)]
    documents = [Document("ann/lib", f"{n}.py", "python", "py", ("MIT",), 9, text) for n, text in enumerate(texts)]
    folder = tmp_path / "corpus"
    for split in ("train", "validation", "rejected"):
        write_documents(folder, split, documents if split == "train" else [], 3)
    seal(folder, {}, {})
    return Corpus.open(folder)


@pytest.fixture
def built(corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    assert list(build_suffixes(corpus, tokenizer, tmp_path / "exact")) == [0, 1, 2]
    return tmp_path / "exact"


def all_texts(corpus: Corpus) -> Iterator[tuple[Address, str]]:
    for shard in range(len(corpus.shards)):
        for row, document in corpus.documents(shard):
            yield Address(shard, row), document.content


def occurrences(ids: list[int], part: list[int]) -> int:
    return sum(ids[at : at + len(part)] == part for at in range(len(ids)))


def test_matches_are_those_of_a_search_of_all_ids(corpus: Corpus, tokenizer: Tokenizer, built: Path) -> None:
    found = Suffixes.open(built, corpus)
    texts = {address: tokenizer.encode(squeeze(text).text) for address, text in all_texts(corpus)}
    query = "unheard of " + content(7)[30:150] + "\t nowhere \n" + content(1050)[:100] + " é😀 " + COMMON
    ids = tokenizer.encode(squeeze(query).text)
    texts_of_ids = ["".join(map(chr, text)) for text in texts.values()]
    asked = "".join(map(chr, ids))
    stands = {
        (i, j): sum(text.count(asked[i:j]) for text in texts_of_ids)
        for i in range(len(ids))
        for j in range(i + 6, len(ids) + 1)
        if any(asked[i:j] in text for text in texts_of_ids)
    }
    maximal = {(i, j): n for (i, j), n in stands.items() if not {(i - 1, j), (i, j + 1)} & stands.keys()}
    matches = found.matches(query, documents=7)
    assert [match.count for match in matches] == [count for _, count in sorted(maximal.items())]
    for match, (i, j) in zip(matches, sorted(maximal), strict=True):
        assert squeeze(query[match.start : match.end]).text in squeeze(tokenizer.decode(ids[i:j])).text
        assert len(match.documents) == min(7, match.count)
        assert all(occurrences(texts[address], ids[i:j]) for address in match.documents)


def test_spans_are_verified_and_counted_over_the_whole_corpus(corpus: Corpus, built: Path) -> None:
    found = Suffixes.open(built, corpus)
    query = content(7)[30:150].replace(" ", "  ") + "\n\n" + COMMON.replace(" ", "\n\t")
    spans = find(found, query, documents=5)
    texts = dict(all_texts(corpus))
    assert all(verify(query, span, place, texts[place.address]) for span in spans for place in span.places)
    own = next(span for span in spans if Address(0, 7) in {place.address for place in span.places})
    assert (own.count, own.text) == (1, spans[0].text)
    assert len(squeeze(own.text).text) > 100
    common = next(span for span in spans if "seen_everywhere" in span.text and len(span.places) > 1)
    assert (common.count, len(common.places)) == (60, 5)


def test_a_build_goes_on_where_it_stopped(
    corpus: Corpus, tokenizer: Tokenizer, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.glob("*/table.0")}
    documents = [document for _, document in corpus.documents(1)]
    write_shard(shards(corpus.folder, "train")[1], documents[1:])
    with pytest.raises(UserError, match="make the index again"):
        Suffixes.open(built, corpus)
    made = []
    sort = suffixes._sort
    monkeypatch.setattr(suffixes, "_sort", lambda path: (made.append(path.name), sort(path)))
    (built / "00001.partial").mkdir()
    assert list(build_suffixes(corpus, tokenizer, built)) == [0, 1, 2]
    assert made == ["00001.partial"]
    assert {path for path in before if path.stat().st_mtime_ns != before[path]} == {built / "00001" / "table.0"}
    query = documents[0].content
    assert max((len(span.text) for span in find(Suffixes.open(built, corpus), query)), default=0) < len(query) / 2


def test_a_shard_sorted_in_parts_has_the_same_suffix_array(
    corpus: Corpus, tokenizer: Tokenizer, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suffixes, "_PART", 4096)
    monkeypatch.setattr(suffixes, "_OVERLAP", 1000)
    list(build_suffixes(corpus, tokenizer, tmp_path / "parts"))
    for shard in ("00000", "00001", "00002"):
        assert (tmp_path / "parts" / shard / "table.0").read_bytes() == (built / shard / "table.0").read_bytes()
    assert not list((tmp_path / "parts").glob("*/parts"))


def test_an_empty_shard_is_no_obstacle(corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_shard(shards(corpus.folder, "train")[0], [])
    list(build_suffixes(corpus, tokenizer, tmp_path / "exact"))
    found = Suffixes.open(tmp_path / "exact", corpus)
    text = corpus.document(Address(1, 1)).content
    assert find(found, text)[0].places[0].address == Address(1, 1)
    for shard in (1, 2):
        write_shard(shards(corpus.folder, "train")[shard], [])
    list(build_suffixes(corpus, tokenizer, tmp_path / "exact"))
    assert find(Suffixes.open(tmp_path / "exact", corpus), text) == []


def test_nothing_is_found_in_nothing(corpus: Corpus, built: Path) -> None:
    found = Suffixes.open(built, corpus)
    assert find(found, "") == find(found, " \n") == find(found, "a b") == find(found, "ß" * 300) == []


@pytest.mark.parametrize("file", ["table.0", "tokenized.0", "offset.0", "metadata.0", "metaoff.0"])
def test_one_bit_is_noticed(corpus: Corpus, built: Path, file: str) -> None:
    data = bytearray((built / "00001" / file).read_bytes())
    data[len(data) // 2] ^= 1
    (built / "00001" / file).write_bytes(data)
    with pytest.raises(UserError, match="00001 is damaged"):
        Suffixes.open(built, corpus)


def test_damaged_arrays_are_refused(corpus: Corpus, built: Path) -> None:
    with (built / "00002" / "table.0").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match="00002 is damaged"):
        Suffixes.open(built, corpus)
    (built / "00001" / "shard.json").write_text("{")
    with pytest.raises(UserError, match="00001 is damaged"):
        Suffixes.open(built, corpus)


def test_another_tokenizer_makes_all_again(corpus: Corpus, built: Path) -> None:
    other = vocabulary.train([content(seed) for seed in range(60)], 300)
    list(build_suffixes(corpus, other, built))
    assert {json.loads(path.read_text())["tokenizer"] for path in built.glob("*/shard.json")} == {other.digest}
    assert find(Suffixes.open(built, corpus), content(7))


def test_what_cannot_work_is_said_in_a_line(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "vocab_size", 2**16)
    with pytest.raises(UserError, match="at most 65,535 tokens"):
        next(build_suffixes(corpus, tokenizer, tmp_path / "exact"))
    monkeypatch.setattr(suffixes, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        check_engine()
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(UserError, match="Linux on x86-64"):
        check_engine()
