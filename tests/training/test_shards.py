import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from starcoder.corpus.document import Document, read_documents, write_documents
from starcoder.corpus.formatting import segments, star_bucket
from starcoder.errors import UserError
from starcoder.executors import Execution
from starcoder.tokenizer import EOD, SENTINELS, Sentinel, Tokenizer, load
from starcoder.training import shards
from starcoder.training.chunks import ChunkWriter, write_litdata_index
from starcoder.training.shards import encode_document, tokenize
from starcoder.training.stream import import_litdata, open_shards
from tests.conftest import Tiny

ONE = Execution(workers=1)
HOSTILE = "<|endoftext|> print('<fim_prefix>') <reponame>x<filename>y<gh_stars>0\n<fim_pad>"


def document(content: str = "x = 1\n", number: int = 0, stars: int | None = 7, language: str = "python") -> Document:
    return Document("owner/name", f"a/{number}.py", language, "py", ("MIT",), len(content), content, stars)


def tokens_of(folder: Path) -> NDArray[Any]:
    metadata = open_shards(folder).metadata
    return np.concatenate([np.fromfile(folder / c.filename, metadata.dtype, offset=12) for c in metadata.chunks])


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def write_corpus(folder: Path, documents: list[Document], count: int = 1) -> Path:
    folder.mkdir()
    write_documents(folder, "train", documents, count)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tiny: Tiny) -> Tokenizer:
    return load(tiny.tokenizer)


class TestMetadata:
    def test_each_field_is_there_one_time_in_five_and_independently(self) -> None:
        count = 10_000
        sets = [frozenset(p for p in segments(document(number=i), 1) if isinstance(p, Sentinel)) for i in range(count)]
        fields = (Sentinel.REPONAME, Sentinel.FILENAME, Sentinel.GH_STARS)
        for present in product((True, False), repeat=3):
            chosen = frozenset(field for field, is_there in zip(fields, present, strict=True) if is_there)
            probability = 0.2 ** len(chosen) * 0.8 ** (3 - len(chosen))
            sigma = sqrt(count * probability * (1 - probability))
            assert abs(sets.count(chosen) - count * probability) <= 3 * sigma, chosen

    def test_fields_are_sentinels_and_text_in_the_order_of_the_paper(self, tokenizer: Tokenizer) -> None:
        seen = set()
        for i in range(1000):
            fields = {18: "owner/name", 5: f"a/{i}.py", 6: "1-10"}
            ids = list(encode_document(document("import os\n", i, stars=7), tokenizer, seed=3))
            present = tuple(field for field in fields if field in ids)
            texts = [fields[field] for field in present]
            if texts:
                texts[-1] += "\nimport os\n"
                expected = [
                    j for field, text in zip(present, texts, strict=True) for j in (field, *tokenizer.encode(text))
                ]
            else:
                expected = tokenizer.encode("import os\n")
            assert ids == [*expected, EOD]
            seen.add(present)
        assert len(seen) == 8

    def test_depends_on_seed_and_document_alone(self) -> None:
        drawn = [segments(document(number=i), 1) for i in range(50)]
        assert drawn == [segments(document(number=i), 1) for i in range(50)]
        assert drawn != [segments(document(number=i), 2) for i in range(50)]

    @pytest.mark.parametrize(
        ("stars", "bucket"),
        [
            *((None, "0"), (0, "0"), (1, "1-10"), (10, "1-10"), (11, "10-100"), (100, "10-100")),
            *((101, "100-1000"), (1000, "100-1000"), (1001, "1000+")),
        ],
    )
    def test_star_buckets(self, stars: int | None, bucket: str) -> None:
        assert star_bucket(stars) == bucket


class TestContent:
    def test_every_document_comes_back(self, tiny: Tiny, tokenizer: Tokenizer) -> None:
        tokens = tokens_of(tiny.train)
        assert tokens[-1] == EOD
        pieces = np.split(tokens, np.flatnonzero(tokens == EOD) + 1)[:-1]
        documents = list(read_documents(tiny.corpus, "train"))
        for piece, one in zip(pieces, documents, strict=True):
            before = "".join(
                SENTINELS[part] if isinstance(part, Sentinel) else part for part in segments(one, 1234)
            ).removesuffix(one.content)
            assert tokenizer.decode(piece[:-1].tolist()) == before + one.content

    def test_a_sentinel_in_a_file_is_text(self, tiny: Tiny, tokenizer: Tokenizer, tmp_path: Path) -> None:
        hostile = [Document(HOSTILE, HOSTILE, "python", "py", (), 0, HOSTILE + str(i)) for i in range(40)]
        tokenize(write_corpus(tmp_path / "corpus", hostile), tiny.tokenizer, tmp_path / "shards", execution=ONE)
        tokens = tokens_of(tmp_path / "shards")
        control = tokens[tokens < len(SENTINELS)]
        own = [part for one in hostile for part in [*segments(one, 1234), Sentinel.EOD] if isinstance(part, Sentinel)]
        assert control.tolist() == own
        assert tokenizer.decode(tokens.tolist()).count(HOSTILE) >= len(hostile)

    def test_metadata_counts_what_is_there(self, tiny: Tiny, tokenizer: Tokenizer, tmp_path: Path) -> None:
        documents = [document(f"x{i} = {i}\n", i, language=("python", "c")[i % 3 == 0]) for i in range(20)]
        corpus = write_corpus(tmp_path / "corpus", documents)
        tokenize(corpus, tiny.tokenizer, tmp_path / "shards", execution=ONE, chunk_tokens=50, seed=5)
        metadata = json.loads((tmp_path / "shards" / "metadata.json").read_text())
        expected = {
            language: {
                "documents": sum(d.language == language for d in documents),
                "tokens": sum(len(encode_document(d, tokenizer, 5)) for d in documents if d.language == language),
            }
            for language in ("c", "python")
        }
        assert metadata["languages"] == expected
        assert metadata["tokenizer"] == tokenizer.digest
        assert metadata["vocab_size"] == tokenizer.vocab_size
        assert metadata["sources"] == [{"corpus": "corpus", "split": "train", "language": None, "weight": 1.0}]
        sizes = [chunk["tokens"] for chunk in metadata["chunks"]]
        assert sizes[:-1] == [50] * (len(sizes) - 1)
        assert sum(sizes) == sum(count["tokens"] for count in expected.values()) == len(tokens_of(tmp_path / "shards"))

    def test_language_and_max_tokens_select_whole_documents(
        self, tiny: Tiny, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        documents = [document(f"x{i} = {i}\n" * 9, i, language=("python", "c")[i % 2]) for i in range(20)]
        corpus = write_corpus(tmp_path / "corpus", documents)
        lengths = [len(encode_document(d, tokenizer, 1234)) for d in documents[1::2]]
        limit = sum(lengths[:4]) + lengths[4] - 1
        tokenize(corpus, tiny.tokenizer, tmp_path / "shards", language="c", max_tokens=limit, execution=ONE)
        assert len(tokens_of(tmp_path / "shards")) == sum(lengths[:4])


class TestBytes:
    def test_are_the_same_for_any_number_of_workers_and_after_kills(
        self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        corpus = write_corpus(tmp_path / "corpus", list(read_documents(tiny.corpus, "train")), 3)
        tokenize(corpus, tiny.tokenizer, tmp_path / "one", execution=ONE)
        tokenize(corpus, tiny.tokenizer, tmp_path / "two", execution=Execution(workers=2))
        encode, calls = shards.encode_document, []

        def dies_in_the_second_shard(*arguments: Any) -> NDArray[Any]:
            calls.append(arguments)
            if len(calls) == 20:
                raise KeyboardInterrupt
            return encode(*arguments)

        monkeypatch.setattr(shards, "encode_document", dies_in_the_second_shard)
        with pytest.raises(KeyboardInterrupt):
            tokenize(corpus, tiny.tokenizer, tmp_path / "resumed", execution=ONE)
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["corpus", "one", "resumed.work", "two"]
        done = len(list(read_documents(corpus, "train"))) // 3
        calls.clear()
        monkeypatch.setattr(shards, "encode_document", lambda *arguments: calls.append(arguments) or encode(*arguments))
        tokenize(corpus, tiny.tokenizer, tmp_path / "resumed", execution=ONE)
        assert 0 < len(calls) <= 2 * done + 2
        assert digests(tmp_path / "one") == digests(tmp_path / "two") == digests(tmp_path / "resumed")
        assert not list(tmp_path.glob("*.work"))

    @pytest.mark.parametrize("dtype", ["uint16", "uint32"])
    def test_are_those_of_litdata_s_own_writer(self, tmp_path: Path, dtype: str) -> None:
        litdata = import_litdata()
        tokens = np.arange(2500, dtype=dtype)
        (tmp_path / "ours").mkdir()
        ours = ChunkWriter(tmp_path / "ours", np.dtype(dtype), 1000)
        for part in np.split(tokens, [3, 700, 701, 2300]):
            ours.append(part)
        write_litdata_index(tmp_path / "ours", ours.finish(), np.dtype(dtype), 1000)
        loader = litdata.TokensLoader(1)
        theirs = litdata.streaming.writer.BinaryWriter(str(tmp_path / "theirs"), chunk_size=1000, item_loader=loader)
        for i, part in enumerate(np.split(tokens, [1000, 2000])):
            theirs.add_item(i, part)
        theirs.done()
        theirs.merge()
        own, other = (json.loads((tmp_path / name / "index.json").read_text()) for name in ("ours", "theirs"))
        assert own | {"updated_at": ""} == other | {"updated_at": ""}
        for chunk in own["chunks"]:
            name = chunk["filename"]
            assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


class TestFailures:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"language": "cobol"}, "no train documents in cobol"),
            ({"max_tokens": 1}, "at most 1 tokens"),
            ({"max_tokens": 0}, "at least 1"),
            ({"chunk_tokens": 0}, "at least 1"),
            ({"execution": Execution(workers=0)}, "at least 1"),
            ({"split": "nonsense"}, "no nonsense documents"),
            ({"tokenizer": Path("missing")}, "tokenizer"),
        ],
    )
    def test_one_line_and_nothing_written(
        self, tiny: Tiny, tmp_path: Path, options: dict[str, Any], message: str
    ) -> None:
        arguments = {"corpus": tiny.corpus, "tokenizer": tiny.tokenizer, "execution": ONE} | options
        with pytest.raises(UserError, match=message) as caught:
            tokenize(output=tmp_path / "shards", **arguments)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_killed_in_the_middle_leaves_neither_shards_nor_workers(self, tiny: Tiny, tmp_path: Path) -> None:
        documents = list(read_documents(tiny.corpus, "train"))
        many = [Document(str(i), d.path, d.language, "py", (), 0, d.content) for i in range(40) for d in documents]
        write_corpus(tmp_path / "corpus", many, 4)
        run = start(tmp_path, tiny, tmp_path / "shards")
        while not (workers := children_of(run.pid)):
            assert run.poll() is None
            time.sleep(0.01)
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        assert not (tmp_path / "shards").exists()
        deadline = time.monotonic() + 20
        while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(alive(worker) for worker in workers)

    def test_leaves_nothing_outside_its_output(self, tiny: Tiny, tmp_path: Path) -> None:
        assert start(tmp_path, tiny, tmp_path / "shards", corpus=tiny.corpus).wait(timeout=60) == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "shards", "tmp"]
        assert list((tmp_path / "home").iterdir()) == list((tmp_path / "tmp").iterdir()) == []


def start(folder: Path, tiny: Tiny, output: Path, corpus: Path | None = None) -> subprocess.Popen[bytes]:
    (folder / "home").mkdir()
    (folder / "tmp").mkdir()
    places = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
    program = (
        "import sys; from pathlib import Path; from starcoder.executors import Execution;"
        "from starcoder.training.shards import tokenize;"
        "tokenize(*map(Path, sys.argv[1:]), execution=Execution(workers=2))"
    )
    command = [sys.executable, "-c", program, str(corpus or folder / "corpus"), str(tiny.tokenizer), str(output)]
    return subprocess.Popen(command, env=os.environ | places, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
