"""The longest matches of a text anywhere in a corpus, by the suffix arrays of infini-gram (paper §8).

Search looks for spans in the documents that are most like a text as a whole. Here all the corpus is searched: each of
its shards has a folder with the ids of its documents' squeezed texts and their suffix array (6 bytes a token), made by
infini-gram's own indexer. A shard's folder appears when it is complete, so that a build goes on where it was stopped,
and only the shards that changed are made again.

The longest matches in tokens of the model name the documents, each at most `DOCUMENTS` of those that have it; in these
`Spans` finds the spans, and verifies them. So nothing long is missed, but of what stands in very many documents only
some are told, beside how often it stands in all; a span of fewer than `SHORTEST` tokens of the model is found where a
longer match leads to its document. The engine knows no languages, licences or repositories: the tracer searches by BM25
where it is asked for some of them alone.
"""

import json
import math
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from starcoder import tokenizer as vocabulary
from starcoder.attribution.corpus import Address, Corpus
from starcoder.attribution.lexer import Tokens, lex
from starcoder.attribution.spans import Spans
from starcoder.attribution.squeezed import Squeezed, squeeze
from starcoder.errors import UserError
from starcoder.storage import atomic_folder, sha256
from starcoder.tokenizer import EOD, Tokenizer

SHORTEST = 6
"""The shortest match in tokens of the model: 8 tokens of code are as few as that, but for the first and the last."""

DOCUMENTS = 20
"""How many documents of a match are looked at."""

Read = Callable[[Sequence[Address]], Sequence[str]]

_VERSION = 2
_MARKER = "shard.json"
_SEPARATOR = b"\xff\xff"
_LARGEST = 2**16 - 1
# Bytes of ids whose suffixes are sorted at once, in about 8 times the memory; and how much the parts overlap.
_PART = 2**28
_OVERLAP = 100_000


@dataclass(frozen=True)
class Match:
    """A sequence of the model's tokens that stands in the corpus, and no longer one with it.

    Attributes:
        start: Its first character in the original text.
        end: Behind its last one.
        count: How often it stands there.
        documents: Some of the documents that have it.
    """

    start: int
    end: int
    count: int
    documents: tuple[Address, ...]


class _Asked(NamedTuple):
    """A text that is asked about.

    Attributes:
        view: Its characters.
        ids: The model's tokens of them.
        bounds: The character at which each of these begins, or in which; and behind the last one.
    """

    view: Squeezed
    ids: list[int]
    bounds: NDArray[np.int64]

    def original(self, first: int, end: int) -> tuple[int, int]:
        """Start and end in the original text of the tokens from `first` to before `end`."""
        start, behind = int(self.bounds[first]), int(self.bounds[end])
        return self.view.original(start, max(behind, start + 1))

    def within(self, start: int, end: int) -> tuple[int, int]:
        """The first of the tokens that are wholly in a part of the original text, and behind the last."""
        begin, behind = np.searchsorted(self.view.places, (start, end))
        return int(np.searchsorted(self.bounds, begin)), int(np.searchsorted(self.bounds, behind, side="right")) - 1


def build_suffixes(corpus: Corpus, tokenizer: Tokenizer, folder: Path) -> Iterator[int]:
    """Make what is missing of the suffix arrays of a corpus, and yield the number of each shard that is complete.

    Args:
        corpus: The corpus.
        tokenizer: A vocabulary of at most 65,535 tokens, so that an id is two bytes.
        folder: Where they go.

    Raises:
        UserError: infini-gram is missing, this is not Linux on x86-64, the vocabulary is too large, or sorting failed.
    """
    check_engine()
    if tokenizer.vocab_size > _LARGEST:
        raise UserError(f"the exact index takes at most {_LARGEST:,} tokens, not {tokenizer.vocab_size:,}")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / "tokenizer")
    for shard, fingerprint in enumerate(corpus.fingerprints):
        path = _shard(folder, shard)
        if not _is_complete(path, fingerprint, tokenizer):
            with atomic_folder(path, _MARKER) as partial:
                _write_tokens(corpus, shard, tokenizer, partial)
                _sort(partial)
                state = {"version": _VERSION, "fingerprint": fingerprint, "tokenizer": tokenizer.digest}
                (partial / _MARKER).write_text(json.dumps(state | {"files": _checksums(partial)}))
        yield shard


def check_engine() -> None:
    """Refuse when infini-gram cannot run here.

    Raises:
        UserError: It is not installed, or this is not Linux on x86-64.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UserError("the exact index needs Linux on x86-64, where infini-gram runs: leave out --exact")
    if find_spec("infini_gram") is None:
        raise UserError("the exact index needs `pip install --no-deps infini-gram`: install it, or leave out --exact")


class Suffixes:
    """The suffix arrays of a corpus.

    Args:
        folder: Where `build_suffixes` put them.
        corpus: The corpus.

    Raises:
        UserError: They cannot be used here, are damaged, or are not of this version of the corpus.
    """

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        check_engine()
        from infini_gram.engine import InfiniGramEngine

        self.corpus = corpus
        self.tokenizer = vocabulary.load(folder / "tokenizer")
        for shard, fingerprint in enumerate(corpus.fingerprints):
            if not _is_complete(_shard(folder, shard), fingerprint, self.tokenizer):
                raise UserError(f"{_shard(folder, shard)} is damaged, or not of this corpus: make the index again")
        paths = [_shard(folder, shard) for shard in range(len(corpus.fingerprints))]
        self.shards = [shard for shard, path in enumerate(paths) if (path / "table.0").exists()]
        used = [str(paths[shard]) for shard in self.shards]
        # Its advice to the kernel about pages to come costs more than the search in pages that are in memory.
        quiet: dict[str, Any] = {"ds_prefetch_depth": 0, "sa_prefetch_depth": 0, "od_prefetch_depth": 0}
        self.engine: Any = InfiniGramEngine(used, eos_token_id=EOD, vocab_size=_LARGEST, **quiet) if used else None

    @classmethod
    def open(cls, folder: Path, corpus: Corpus) -> Self:
        """The suffix arrays in a folder, see above."""
        return cls(folder, corpus)

    def matches(self, text: str, shortest: int = SHORTEST, documents: int = DOCUMENTS) -> list[Match]:
        """The longest matches of a text in the corpus, in the order of the text; none is inside of another.

        Args:
            text: The text.
            shortest: The shortest match in tokens of the model.
            documents: How many places of each are looked at.
        """
        return self._matches(self._asked(squeeze(text)), shortest, documents)

    def find(self, query: Tokens, read: Read, documents: int = DOCUMENTS) -> Spans:
        """The spans of a text in the documents that have its longest matches.

        Where a match stands in more places than were looked at, the count of a span there is how often the corpus has
        the model's tokens within it.

        Args:
            query: The text.
            read: Reads the contents of documents, such as `Search.texts`; a corpus alone is slow at it.
            documents: How many places of each match are looked at.
        """
        asked = self._asked(query.view)
        matches = self._matches(asked, SHORTEST, documents)
        addresses = sorted({address for match in matches for address in match.documents})
        texts = dict(zip(addresses, map(lex, read(addresses)), strict=True))
        cut = [match for match in matches if match.count > len(match.documents)]

        def count(start: int, end: int) -> int:
            return self._count(asked, start, end) if any(m.start < end and start < m.end for m in cut) else 0

        return Spans(query, texts, count=count)

    def _matches(self, asked: "_Asked", shortest: int, documents: int) -> list[Match]:
        return [
            Match(*asked.original(start, end), found["cnt"], self._documents(found, documents))
            for start, end, found in self._longest(asked.ids, shortest)
        ]

    def _count(self, asked: "_Asked", start: int, end: int) -> int:
        """How often the corpus has the model's tokens that are wholly in a part of the text."""
        first, last = asked.within(start, end)
        return int(self.engine.count(asked.ids[first:last])["count"]) if first < last else 0

    def _asked(self, view: Squeezed) -> "_Asked":
        ids = self.tokenizer.encode(view.text) if self.engine else []
        pieces = [self.tokenizer.decode([each], "surrogateescape").encode(errors="surrogateescape") for each in ids]
        data = np.frombuffer(b"".join(pieces), dtype=np.uint8)
        characters = np.append(0, np.cumsum((data & 0xC0) != 0x80)).astype(np.int64)
        return _Asked(view, ids, characters[np.cumsum([0, *map(len, pieces)])])

    def _longest(self, ids: list[int], shortest: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Start, end and ranks of the matches that are in no longer one; infini-gram's own leaves out frequent ones.

        The next match reaches behind the end of the one before. So it has the shortest match that does, if any, from
        where it is made longer to both sides: a long match is not searched for again from each of its tokens.
        """
        least = start = 0
        while start + shortest <= len(ids):
            found = self.engine.find(ids[start : start + shortest])
            if not found["cnt"]:
                least = start = start + 1
                continue
            first, found = self._earliest(ids, least, start, start + shortest, found)
            end, found = self._farthest(ids, first, start + shortest, found)
            yield first, end, found
            least, start = first + 1, max(first, end - shortest) + 1

    def _earliest(
        self, ids: list[int], least: int, start: int, end: int, found: dict[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """The start, at least `least`, of the longest match that ends at `end`, and its ranks."""
        step = 1
        while step and start > least:
            before = max(start - step, least)
            more = self.engine.find(ids[before:end])
            if more["cnt"]:
                start, found, step = before, more, step * 2
            else:
                step //= 2
        return start, found

    def _farthest(self, ids: list[int], start: int, end: int, found: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The end of the longest match from `start` on, and its ranks, by steps that double and halve."""
        step = 1
        while step and end < len(ids):
            after = min(end + step, len(ids))
            more = self.engine.find(ids[start:after])
            if more["cnt"]:
                end, found, step = after, more, step * 2
            else:
                step //= 2
        return end, found

    def _documents(self, found: dict[str, Any], count: int) -> tuple[Address, ...]:
        """Documents of the first ranks of a match."""
        ranks = ((s, rank) for s, (start, end) in enumerate(found["segment_by_shard"]) for rank in range(start, end))
        addresses = []
        for s, rank in islice(ranks, count):
            document = self.engine.get_doc_by_rank_2(s=s, rank=rank, needle_len=1, max_ctx_len=0)
            addresses.append(Address(self.shards[s], json.loads(document["metadata"])["row"]))
        return tuple(dict.fromkeys(addresses))


def _shard(folder: Path, shard: int) -> Path:
    return folder / f"{shard:05d}"


def _checksums(path: Path) -> dict[str, str]:
    """SHA-256 of each file that the engine reads: it trusts what they say, and would miss matches without a word."""
    return {file.name: sha256(file) for file in sorted(path.glob("*.0"))}


def _is_complete(path: Path, fingerprint: str, tokenizer: Tokenizer) -> bool:
    """Whether a shard's folder is of its present documents, and its files are as they were left."""
    with suppress(OSError, ValueError):
        state = json.loads((path / _MARKER).read_text())
        expected = {"version": _VERSION, "fingerprint": fingerprint, "tokenizer": tokenizer.digest}
        return bool(state == expected | {"files": _checksums(path)})
    return False


def _write_tokens(corpus: Corpus, shard: int, tokenizer: Tokenizer, path: Path) -> None:
    """The files that the engine reads: ids with a separator before each document, its row, and where they begin."""
    offsets, rows = [], []
    with (path / "tokenized.0").open("wb") as ids, (path / "metadata.0").open("wb") as metadata:
        for row, document in corpus.documents(shard):
            offsets.append(ids.tell())
            rows.append(metadata.tell())
            ids.write(_SEPARATOR + tokenizer.encode_array(squeeze(document.content).text).astype("<u2").tobytes())
            metadata.write(json.dumps({"row": row}).encode() + b"\n")
    np.array(offsets, dtype="<u8").tofile(path / "offset.0")
    np.array(rows, dtype="<u8").tofile(path / "metaoff.0")


def _sort(path: Path) -> None:
    """Write table.0, the suffix array of tokenized.0: places as numbers of as few bytes as they need."""
    data, table = path / "tokenized.0", path / "table.0"
    size = data.stat().st_size
    if not size:
        return
    common = ["--data-file", str(data), "--ratio", str(math.ceil(math.log2(size) / 8)), "--token-width", "2"]
    parts, merged = path / "parts", path / "merged"
    parts.mkdir()
    merged.mkdir()
    step = math.ceil(size / math.ceil(size / _PART) / 2) * 2  # whole ids, and no part that is less than the overlap
    for start in range(0, size, step):
        end = min(start + step + _OVERLAP, size)
        _run("make-part", *common, "--parts-dir", str(parts), "--start-byte", str(start), "--end-byte", str(end))
    threads = ["--num-threads", "1"]
    _run(
        "merge", *common, *threads, "--parts-dir", str(parts), "--merged-dir", str(merged), "--hacksize", str(_OVERLAP)
    )
    _run("concat", *common, *threads, "--merged-dir", str(merged), "--merged-file", str(table))
    for folder in (parts, merged):
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _run(step: str, *arguments: str) -> None:
    spec = find_spec("infini_gram")
    assert spec
    assert spec.submodule_search_locations
    program = Path(spec.submodule_search_locations[0]) / "rust_indexing"
    try:
        done = subprocess.run([program, step, *arguments], capture_output=True, check=False)
    except OSError as error:
        raise UserError(f"infini-gram's indexer cannot run ({error.strerror}): leave out --exact") from error
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"infini-gram's indexer failed at {step}: {''.join(last) or done.returncode}")
