"""The engine inside this process: tantivy, in a folder (paper §8).

The folder holds the two views of each document for BM25, and the documents themselves: reading ten of a corpus, whose
shards are compressed in large groups, takes a hundred times as long. A commit is one rename, so that a process that is
killed leaves what was committed before.

What is removed is never found again, but its bytes stay in the folder until the engine merges that part of the index.
Where they must be gone, make the index again.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from starcoder.attribution.corpus import Address
from starcoder.attribution.search.base import ANALYZERS, Analyzer, Hit, Search
from starcoder.attribution.search.checksums import verify
from starcoder.attribution.search.terms import GRAM, plain, spaced, tokens, trigrams
from starcoder.corpus.document import Document
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError, needing
from starcoder.storage import atomic_file

if TYPE_CHECKING:
    from tantivy import IndexWriter, Query, Schema, Searcher

FILE = "search.json"
FORMAT = 1
HEAP = 512 * 2**20
_LEAST_HEAP = 15_000_000  # bytes a thread, the engine's own limit
_ROWS = 2**32
_TERMS = {"trigrams": 128, "tokens": 64}
"""Of a query so many terms are searched for, the rarest. More tokens find no more. More 3-grams take longer; they find
more code whose new names occur nowhere, and less whose names are borrowed from other code."""
_CUT = {"trigrams": trigrams, "tokens": tokens}
_LOCKS = (".tantivy-meta.lock", ".tantivy-writer.lock")  # the engine's threads make them even after it is closed
_FULL = ("No space left", "Permission denied", "Read-only", "Too many open files")


class TantivySearch(Search):
    """Search in a folder.

    Args:
        folder: Of the index.
        heap: Bytes of memory for what is not written yet, of all threads together.
        threads: That index.

    Raises:
        UserError: The folder holds no such index, or one that is damaged or of another version.
    """

    def __init__(self, folder: Path, heap: int = HEAP, threads: int = 2) -> None:
        with needing("attribution"):
            import tantivy

        if threads < 1 or heap < threads * _LEAST_HEAP:
            raise UserError(f"{threads} threads with {heap:,} bytes of memory: each of 1 or more needs {_LEAST_HEAP:,}")
        self.folder, self.heap, self.threads = folder, heap, threads
        self.analyzers = _analyzers(folder)
        with _told(folder):
            self._index = tantivy.Index(_schema(self.analyzers), str(folder))
            cutters = {"trigrams": tantivy.Tokenizer.ngram(GRAM, GRAM), "tokens": tantivy.Tokenizer.whitespace()}
            for name, cutter in cutters.items():
                self._index.register_tokenizer(name, tantivy.TextAnalyzerBuilder(cutter).build())
            self._index.config_reader("manual")
            self._index.reload()
        self._writer_made: IndexWriter | None = None

    @classmethod
    def create(
        cls, folder: Path, heap: int = HEAP, threads: int = 2, analyzers: Sequence[Analyzer] = ANALYZERS
    ) -> Self:
        """Make an empty index.

        Args:
            folder: Of the index.
            heap: See above.
            threads: See above.
            analyzers: The views of a text that can be searched; one alone is indexed faster and takes less room.

        Raises:
            UserError: The folder holds anything already.
        """
        with needing("attribution"):
            import tantivy

        if folder.exists() and not (folder.is_dir() and all(path.name in _LOCKS for path in folder.iterdir())):
            raise UserError(f"{folder} is not empty: name another folder for the index, or remove it")
        folder.mkdir(parents=True, exist_ok=True)
        with _told(folder):
            tantivy.Index(_schema(analyzers), str(folder))
        _state(folder, analyzers, {})
        return cls(folder, heap, threads)

    @classmethod
    def open(cls, folder: Path, heap: int = HEAP, threads: int = 2, check: bool = True) -> Self:
        """Open an index.

        Args:
            folder: Of the index.
            heap: See above.
            threads: See above.
            check: Whether to read all of it and compare checksums: about a second for each GB.

        Raises:
            UserError: There is none, or it is damaged or of another version.
        """
        if check and (folder / FILE).is_file():
            verify(folder)
        return cls(folder, heap, threads)

    def add(self, shard: int, documents: Iterable[tuple[int, Document]]) -> int:
        """See `Search`; when reading the documents fails, nothing since the last commit is kept."""
        import tantivy

        self.remove_shard(shard)
        count = 0
        try:
            for row, document in documents:
                entry = tantivy.Document()
                view = plain(document.content)
                for analyzer in self.analyzers:
                    entry.add_text(analyzer, spaced(view) if analyzer == "tokens" else view)
                entry.add_bytes("content", document.content.encode())
                entry.add_unsigned("key", shard * _ROWS + row)
                entry.add_unsigned("shard", shard)
                for name in ("repository", "path", "language"):
                    entry.add_text(name, getattr(document, name))
                for license in document.licenses:
                    entry.add_text("license", license)
                with _told(self.folder):
                    self._writer.add_document(entry)
                count += 1
        except BaseException:
            self._writer.rollback()
            raise
        return count

    def remove_shard(self, shard: int) -> None:
        """See `Search`."""
        self._writer.delete_documents_by_query(self._term("shard", shard))

    def remove_repositories(self, opt_out: OptOut) -> list[str]:
        """See `Search`; of what is not committed yet nothing is removed."""
        names = [name for name, _ in self._searcher.terms_with_prefix("repository", "") if name in opt_out]
        present = [name for name in names if self._searcher.search(self._term("repository", name), 1).hits]
        for name in present:
            self._writer.delete_documents_by_query(self._term("repository", name))
        return sorted(present)

    def commit(self) -> None:
        """See `Search`: at once or not at all."""
        with _told(self.folder):
            self._writer.commit()
            self._index.reload()

    def count(self) -> int:
        """See `Search`."""
        return self._searcher.num_docs

    def notes(self) -> dict[str, Any]:
        """See `Search`."""
        return dict(_stated(self.folder).get("notes", {}))

    def note(self, notes: Mapping[str, Any]) -> None:
        """See `Search`; nobody else does."""
        _state(self.folder, self.analyzers, notes)

    def holds_removed(self) -> bool:
        """See `Search`."""
        meta = json.loads((self.folder / "meta.json").read_text())
        return any(segment["deletes"] for segment in meta["segments"])

    def texts(self, addresses: Sequence[Address]) -> list[str]:
        """See `Search`."""
        found = []
        for address in addresses:
            hits = self._search(self._term("key", address.shard * _ROWS + address.row), 1)
            if not hits:
                raise UserError(
                    f"{self.folder} has no row {address.row} of shard {address.shard}: make the index again"
                )
            found.append(bytes(hits[0][1]["content"][0]).decode())
        return found

    def find(
        self,
        text: str,
        k: int = 10,
        language: str | None = None,
        license: str | None = None,
        repository: str | None = None,
        analyzer: Analyzer | None = None,
    ) -> list[Hit]:
        """See `Search`."""
        field = self.checked(analyzer, k)
        terms = self._rarest(field, _CUT[field](text))
        if not terms:
            return []
        from tantivy import Occur, Query

        query = Query.boolean_query([(Occur.Should, self._term(field, term)) for term in terms])
        wanted = {"language": language, "license": license, "repository": repository}
        filters = [Query.const_score_query(self._term(name, value), 0.0) for name, value in wanted.items() if value]
        if filters:
            query = Query.boolean_query([(Occur.Must, part) for part in (query, *filters)])
        return [_hit(score, document) for score, document in self._search(query, k)]

    def close(self) -> None:
        """See `Search`; waits for the engine's merges."""
        writer, self._writer_made = self._writer_made, None
        if writer:
            writer.rollback()
            writer.wait_merging_threads()

    def _rarest(self, field: Analyzer, terms: set[str]) -> list[str]:
        """The terms of the fewest documents, without those of none."""
        counted = [(count, term) for term in terms if (count := self._searcher.doc_freq(field, term))]
        return [term for _, term in sorted(counted)[: _TERMS[field]]]

    def _search(self, query: "Query", k: int) -> list[tuple[float, dict[str, list[Any]]]]:
        """Scores and stored fields of the best documents."""
        searcher = self._searcher
        with _told(self.folder):
            found = searcher.search(query, k, count=False).hits
            return [(score, searcher.doc(address).to_dict()) for score, address in found]

    def _term(self, field: str, value: str | int) -> "Query":
        from tantivy import Query

        return Query.term_query(self._index.schema, field, value, "freq" if field in _CUT else "basic")

    @property
    def _searcher(self) -> "Searcher":
        return self._index.searcher()

    @property
    def _writer(self) -> "IndexWriter":
        if self._writer_made is None:
            with _told(self.folder):
                self._writer_made = self._index.writer(self.heap, self.threads)
        return self._writer_made


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn what the engine raises, its panics included, into one line."""
    try:
        yield
    except BaseException as error:
        detail = " ".join(str(error).split())[:200]
        if "LockBusy" in detail:
            raise UserError(f"another process is writing to {folder}: wait until it is done") from error
        if "schema does not match" in detail:
            raise UserError(f"{folder} holds a search index with other fields: make it again") from error
        if any(reason in detail for reason in _FULL):
            raise UserError(f"{folder} cannot be used ({detail}): make room, or name another folder") from error
        if isinstance(error, ValueError) or type(error).__name__ == "PanicException":
            raise UserError(f"the search index in {folder} is damaged ({detail}): make it again") from error
        raise


def _state(folder: Path, analyzers: Sequence[Analyzer], notes: Mapping[str, Any]) -> None:
    with atomic_file(folder / FILE) as partial:
        partial.write_text(json.dumps({"format": FORMAT, "analyzers": list(analyzers), "notes": dict(notes)}) + "\n")


def _stated(folder: Path) -> dict[str, Any]:
    """What an index says of itself."""
    marker = folder / FILE
    if not marker.is_file():
        raise UserError(f"no search index in {folder}: make it with `starcoder trace index`")
    with _told(folder):
        stated = json.loads(marker.read_text())
    version = stated.get("format") if isinstance(stated, dict) else stated
    if version != FORMAT:
        raise UserError(f"{folder} holds a search index of another version ({version!r}): make it again")
    return dict(stated)


def _analyzers(folder: Path) -> tuple[Analyzer, ...]:
    """The analysers that an index says to have."""
    stated = _stated(folder)
    analyzers = tuple(name for name in ANALYZERS if name in stated.get("analyzers", ()))
    if not analyzers or not (folder / "meta.json").is_file():
        raise UserError(f"the search index in {folder} is damaged (a part is missing): make it again")
    return analyzers


def _schema(analyzers: Iterable[Analyzer]) -> "Schema":
    from tantivy import SchemaBuilder

    builder = SchemaBuilder()
    for analyzer in sorted(analyzers):
        builder.add_text_field(analyzer, tokenizer_name=analyzer, index_option="freq")
    for name in ("repository", "language", "license"):
        builder.add_text_field(name, stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("path", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_bytes_field("content", stored=True, indexed=False)
    builder.add_unsigned_field("key", stored=True, indexed=True)
    builder.add_unsigned_field("shard", indexed=True)
    return builder.build()


def _hit(score: float, stored: dict[str, list[Any]]) -> Hit:
    address = Address(*divmod(stored["key"][0], _ROWS))
    repository, path, language = (str(stored[name][0]) for name in ("repository", "path", "language"))
    return Hit(address, float(score), repository, path, language, tuple(stored.get("license", ())))
