import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.attribution.corpus import Address
from starcoder.attribution.search.base import ANALYZERS, Analyzer
from starcoder.attribution.search.embedded import FILE, TantivySearch
from starcoder.attribution.search.terms import plain, spaced
from starcoder.corpus.document import Document
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError
from tests.attribution.search.documents import SHARDS, TEXTS, document

SMALL = {"heap": 15_000_000, "threads": 1}


def fill(folder: Path) -> None:
    with TantivySearch.create(folder, **SMALL) as search:
        for number, documents in enumerate(SHARDS):
            assert search.add(number, enumerate(documents)) == len(documents)
        search.commit()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def search(folder: Path) -> Iterator[TantivySearch]:
    with TantivySearch.open(folder, **SMALL) as search:
        yield search


def paths(search: TantivySearch, text: str = "return", **options: object) -> list[str]:
    return sorted(hit.path for hit in search.find(text, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("analyzer", ANALYZERS)
def test_a_part_of_a_document_finds_it(search: TantivySearch, analyzer: Analyzer) -> None:
    first = search.find("WHILE (*s)\n\n\th = h*33 ^ *s++;", 2, analyzer=analyzer)[0]
    assert (first.address, first.repository, first.path) == (Address(0, 1), "bob/c", "hash.c")
    assert (first.language, first.licenses) == ("c", ("MIT", "Zlib"))
    assert search.texts([first.address, Address(1, 0)]) == [TEXTS["hash"], TEXTS["json"]]


def test_scores_are_bm25(tmp_path: Path) -> None:
    """The closed form; the engine keeps the lengths of documents of up to 40 tokens exactly."""
    texts = ["a b c c ( )", "a a a d", "b e f g h i j", "c a ( x ) ( y )"]
    with TantivySearch.create(tmp_path / "index", **SMALL) as search:
        search.add(3, ((row, document(f"{row}", "r", text)) for row, text in enumerate(texts)))
        search.commit()
        scores = {hit.address.row: hit.score for hit in search.find("c ( a z")}
    counts = [Counter(spaced(plain(text)).split()) for text in texts]
    mean = sum(count.total() for count in counts) / len(counts)
    expected = {}
    for row, count in enumerate(counts):
        score = 0.0
        for term in "ca(":
            holders = sum(term in other for other in counts)
            rarity = math.log(1 + (len(counts) - holders + 0.5) / (holders + 0.5))
            score += rarity * count[term] * 2.2 / (count[term] + 1.2 * (0.25 + 0.75 * count.total() / mean))
        if score:
            expected[row] = score
    assert scores == pytest.approx(expected, rel=1e-5)


def test_one_view_alone(tmp_path: Path) -> None:
    with TantivySearch.create(tmp_path / "index", analyzers=["trigrams"], **SMALL) as search:
        search.add(0, enumerate(SHARDS[0]))
        search.commit()
    with TantivySearch.open(tmp_path / "index") as search:
        assert paths(search, "bubble") == ["sort.py"]
        with pytest.raises(UserError, match="no analyser 'tokens' here: use one of trigrams"):
            search.find("bubble", analyzer="tokens")


def test_filters(search: TantivySearch) -> None:
    assert paths(search) == ["hash.c", "json.py", "sort.py"]
    assert paths(search, language="c") == ["hash.c"]
    assert paths(search, license="MIT") == ["hash.c", "sort.py"]
    assert paths(search, license="Zlib", language="python") == []
    assert paths(search, repository="group/sub/tool") == ["json.py"]
    assert paths(search, repository="group") == []
    alone, among = search.find("return h", language="c"), search.find("return h")
    assert alone[0].score == pytest.approx(next(hit.score for hit in among if hit.path == "hash.c"))


def test_adding_a_shard_again_replaces_it(search: TantivySearch) -> None:
    search.add(0, [(0, document("other.py", "x", "return h"))])
    assert search.count() == 4
    search.commit()
    assert search.count() == 3
    assert paths(search) == ["json.py", "other.py"]
    search.remove_shard(1)
    search.commit()
    assert paths(search) == ["other.py"]
    with pytest.raises(UserError, match="has no row 0 of shard 1"):
        search.texts([Address(1, 0)])


@pytest.mark.parametrize(
    ("entries", "gone"),
    [
        ({"ann"}, ["Ann/Lib"]),
        ({"ann/lib", "bob"}, ["Ann/Lib", "bob/c"]),
        ({"group/sub"}, ["group/sub/tool"]),
        ({"wheel"}, ["wheel"]),
        ({"lib", "sub", "ann/other"}, []),
    ],
)
def test_opted_out_repositories_are_never_found(search: TantivySearch, entries: set[str], gone: list[str]) -> None:
    assert search.remove_repositories(OptOut(frozenset(entries))) == gone
    search.commit()
    left = {hit.repository for text in (*TEXTS.values(), "x = 1") for hit in search.find(text)}
    assert left == {each.repository for shard in SHARDS for each in shard} - set(gone)
    assert search.remove_repositories(OptOut(frozenset(entries))) == []


def test_when_documents_cannot_be_read_the_last_commit_stays(search: TantivySearch) -> None:
    def broken() -> Iterator[tuple[int, Document]]:
        yield 0, document("new.py", "x", "return")
        raise UserError("the shard is corrupt")

    with pytest.raises(UserError, match="corrupt"):
        search.add(0, broken())
    search.commit()
    assert paths(search) == ["hash.c", "json.py", "sort.py"]


@pytest.mark.parametrize("analyzer", ANALYZERS)
@pytest.mark.parametrize("text", ["", " \n\t", "\x00\x01\xff", "\udcff", "🙂", "ab"])
def test_texts_without_known_terms_find_nothing(search: TantivySearch, text: str, analyzer: Analyzer) -> None:
    assert search.find(text, analyzer=analyzer) == []


@settings(deadline=None, max_examples=50)
@given(
    st.text(alphabet="\"'\\+-&|!(){}[]^~*?:/<>=AND OR NOT TO IN content:\n", max_size=40), st.sampled_from(ANALYZERS)
)
def test_nothing_in_a_query_is_a_query_language(
    tmp_path_factory: pytest.TempPathFactory, text: str, analyzer: Analyzer
) -> None:
    folder = tmp_path_factory.getbasetemp() / "special"
    if not folder.exists():
        with TantivySearch.create(folder, **SMALL) as search:
            search.add(0, [(0, document("a", "r", 'a AND (b OR "c") NOT content:x* [1 TO 2]~3 ^4 \\ + - !'))])
            search.commit()
    for hit in TantivySearch.open(folder, check=False, **SMALL).find(text, analyzer=analyzer):
        assert hit.score > 0


def test_huge_texts(tmp_path: Path) -> None:
    """As a document and as a query, of code and of what is no text."""
    code = "".join(f"def name_{n}(x): return x * {n} + other_{n % 977}\n" for n in range(50_000))
    noise = os.urandom(10**5).decode("latin-1") * 10
    with TantivySearch.create(tmp_path / "index", **SMALL) as search:
        search.add(0, [(0, document("code", "r", code)), (1, document("noise", "r", noise))])
        search.commit()
        for analyzer in ANALYZERS:
            assert search.find(code, 1, analyzer=analyzer)[0].path == "code"
            assert search.find(noise, 1, analyzer=analyzer)[0].path == "noise"
        assert search.texts([Address(0, 1)]) == [noise]


@pytest.mark.parametrize(
    ("k", "analyzer", "message"), [(0, None, "ask for 1 or more"), (1, "words", "tokens, trigrams")]
)
def test_what_cannot_be_asked(search: TantivySearch, k: int, analyzer: Analyzer, message: str) -> None:
    with pytest.raises(UserError, match=message):
        search.find("x", k, analyzer=analyzer)


KILLED = """
import sys, itertools
from pathlib import Path
from starcoder.attribution.search.embedded import TantivySearch
from tests.attribution.search.documents import document
search = TantivySearch.open(Path(sys.argv[1]), heap=15_000_000, threads=1)
for shard in itertools.count(2):
    search.add(shard, ((row, document(f"{row}", "r", f"return {shard} {row} " * 20)) for row in range(200)))
    print("added", flush=True)
    search.commit()
    print("committed", shard, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 2, 5, 8])
def test_a_killed_writer_leaves_whole_shards(folder: Path, lines: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    seen = [writer.stdout.readline() for _ in range(lines)]
    time.sleep(0.002 * lines)
    writer.send_signal(signal.SIGKILL)
    seen += writer.stdout.read().splitlines(keepends=True)
    writer.wait()
    committed = sum(line.startswith("committed") for line in seen)
    with TantivySearch.open(folder, **SMALL) as search:
        # The kill may fall between a commit and the line that tells of it.
        assert search.count() in (4 + 200 * committed, 4 + 200 * (committed + 1))
        search.add(2, [(0, document("again.py", "r", "again"))])
        search.commit()
        assert paths(search, "again") == ["again.py"]
        assert search.count() % 200 == 5


def test_one_process_writes_at_a_time(folder: Path) -> None:
    with TantivySearch.open(folder, **SMALL) as first, TantivySearch.open(folder, **SMALL) as second:
        first.remove_shard(0)
        with pytest.raises(UserError, match="another process is writing"):
            second.remove_shard(0)
        assert second.count() == 4


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_folder_is_refused(tmp_path: Path, harm: str) -> None:
    fill(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir() if path.name[0] != "." and path.stat().st_size)
    assert len(names) > 6
    for number, name in enumerate(names):
        folder = tmp_path / f"{harm}-{number}"
        subprocess.run(["cp", "-r", tmp_path / "whole", folder], check=True)
        path = folder / name
        content = bytearray(path.read_bytes())
        if harm == "remove":
            path.unlink()
        elif harm == "cut":
            path.write_bytes(content[: len(content) // 2])
        else:
            content[len(content) // 3] ^= 0x55
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"damaged|no search index|other fields|another version") as caught:
            TantivySearch.open(folder)
        assert "\n" not in str(caught.value), name


def test_what_is_noted_is_kept(folder: Path) -> None:
    with TantivySearch.open(folder, **SMALL) as search:
        assert search.notes() == {}
        search.note({"shards": {"0": "a", "1": "b"}})
        search.note({"shards": {"1": "b"}})
    with TantivySearch.open(folder, **SMALL) as search:
        assert search.notes() == {"shards": {"1": "b"}}
        assert search.analyzers == ANALYZERS


def test_a_lock_that_the_engine_leaves_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / ".tantivy-meta.lock").touch()
    with TantivySearch.create(tmp_path, **SMALL) as search:
        assert search.count() == 0


def test_what_is_no_index_of_ours_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"no search index .* `starcoder trace index`"):
        TantivySearch.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not empty"):
        TantivySearch.create(folder)
    (folder / FILE).write_text('{"format": 99}')
    with pytest.raises(UserError, match=r"another version \(99\)"):
        TantivySearch.open(folder)
    (folder / FILE).write_text('{"format": 1, "analyzers": ["tokens"]}')
    with pytest.raises(UserError, match="other fields"):
        TantivySearch.open(folder)
    (folder / FILE).write_text('{"format": 1, "analyzers": ["tokens", "trigrams"]}')
    meta = folder / "meta.json"
    meta.write_text(re.sub(r'"record": ?"freq"', '"record": "position"', meta.read_text()))
    with pytest.raises(UserError, match="other fields"):
        TantivySearch.open(folder)


def test_too_little_memory_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="each of 1 or more needs 15,000,000"):
        TantivySearch.create(tmp_path / "index", heap=20_000_000, threads=2)
    with pytest.raises(UserError, match="0 threads"):
        TantivySearch.create(tmp_path / "other", threads=0)
