"""Token shards: a corpus as one flat stream of token ids, in chunks that litdata streams (paper §5.3).

    documents ─► [<reponame>R <filename>P <gh_stars>S ⏎] content <|endoftext|> ─► chunk-0-0.bin  chunk-0-1.bin  …
                                                                                  index.json     metadata.json

Only what this module puts there is a control token: text that spells a sentinel is encoded as text. All chunks but the
last hold the same number of tokens, so that the bytes of a folder follow from corpus, tokenizer and options, whatever
the number of workers.
"""

import hashlib
import json
import os
import random
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from starcoder.corpus.document import Document, read_documents
from starcoder.errors import UserError
from starcoder.storage import atomic_folder, sha256
from starcoder.tokenizer import Sentinel, Tokenizer, load
from starcoder.training.stream import Chunk, ShardsMetadata

METADATA_RATE = 0.2
"""Probability of each metadata field (paper §5.1)."""
_STAR_BUCKETS = ((0, "0"), (10, "1-10"), (100, "10-100"), (1000, "100-1000"))
_BATCH_CHARACTERS = 2**20
_LITDATA_TYPES = {"uint16": "no_header_numpy:5", "uint32": "no_header_numpy:6"}
_LITDATA_CONFIG = {
    "chunk_bytes": None,
    "compression": None,
    "compression_batch_size": None,
    "compression_level": None,
    "data_spec": '[1, {"type": null, "context": null, "children_spec": []}]',
    "encryption": None,
    "ipc_compression": None,
    "item_loader": "TokensLoader",
    "types": "json",
}


def tokenize(
    corpus: Path,
    tokenizer: Path,
    output: Path,
    split: str = "train",
    language: str | None = None,
    max_tokens: int | None = None,
    num_workers: int | None = None,
    seed: int = 1234,
    chunk_tokens: int = 2**25,
) -> None:
    """Write the documents of a corpus as token shards.

    Args:
        corpus: folder of the corpus.
        tokenizer: folder of the tokenizer.
        output: folder to write the shards to; an older one is replaced when the new one is complete.
        split: which documents of the corpus, "train" or "validation".
        language: only the documents of this language, such as "python"; all of them by default.
        max_tokens: stop before the first document that would exceed this number of tokens.
        num_workers: processes that tokenize; one a CPU core by default, and 0 tokenizes in this process.
        seed: seed of the choice of metadata (repository, path, stars) that precedes a document.
        chunk_tokens: tokens in a file. The tail of each file, less than a window, is not trained on: few are better.

    Raises:
        UserError: when corpus or tokenizer are missing or damaged, or no document is left to write.
    """
    workers = os.cpu_count() or 1 if num_workers is None else num_workers
    if chunk_tokens < 1 or workers < 0 or (max_tokens is not None and max_tokens < 1):
        raise UserError("chunk_tokens and max_tokens must be at least 1, num_workers at least 0")
    encoder = load(tokenizer)
    documents = (document for document in read_documents(corpus, split) if language in (None, document.language))
    counts: dict[str, Counter[str]] = {}
    with (
        atomic_folder(output, marker="chunk-0-0.bin") as partial,
        closing(_encode_all(documents, encoder, seed, workers)) as batches,
    ):
        writer = _ChunkWriter(partial, _dtype(encoder), chunk_tokens)
        for batch in _limited(batches, max_tokens, f"tokenize {split}"):
            writer.append(batch.ids)
            for name, length in zip(batch.languages, batch.lengths, strict=True):
                counts.setdefault(name, Counter()).update(documents=1, tokens=length)
        if not counts:
            which = f"{split} documents" if language is None else f"{split} documents in {language}"
            raise UserError(f"{corpus} has no {which} of at most {max_tokens or 'any number of'} tokens")
        source = {"corpus": corpus.name, "split": split, "language": language, "weight": 1.0}
        languages = {name: dict(counts[name]) for name in sorted(counts)}
        dtype = _dtype(encoder).name
        metadata = ShardsMetadata(encoder.digest, encoder.vocab_size, dtype, seed, [source], languages, writer.finish())
        (partial / "metadata.json").write_text(json.dumps(asdict(metadata), indent=1) + "\n")


def segments(document: Document, seed: int) -> list[Sentinel | str]:
    """The document as control tokens and texts, which are encoded one by one; the last is the text with the content.

    Each field is present with probability 0.2, decided by the seed and the document's name. The content follows the
    last field and a line break in one text, as it did for the authors.
    """
    rng = random.Random(f"{seed} {document.name}")
    parts: list[Sentinel | str] = []
    for sentinel, value in (
        (Sentinel.REPONAME, document.repository),
        (Sentinel.FILENAME, document.path),
        (Sentinel.GH_STARS, star_bucket(document.stars)),
    ):
        if rng.random() < METADATA_RATE:
            parts += [sentinel, value]
    return [*parts[:-1], f"{parts[-1]}\n{document.content}"] if parts else [document.content]


def star_bucket(stars: int | None) -> str:
    """The stars of a repository as <gh_stars> spells them; unknown counts as none."""
    return next((name for limit, name in _STAR_BUCKETS if (stars or 0) <= limit), "1000+")


def encode_document(document: Document, tokenizer: Tokenizer, seed: int) -> NDArray[Any]:
    """Ids of metadata, content and <|endoftext|>, in the type that they have on disk.

    Raises:
        UserError: when the vocabulary has no symbol for a character.
    """
    dtype = _dtype(tokenizer)
    try:
        ids = [
            np.array([part.value]) if isinstance(part, Sentinel) else tokenizer.encode_array(part)
            for part in [*segments(document, seed), Sentinel.EOD]
        ]
    except UserError as error:
        raise UserError(f"{document.name}: {error}") from None
    return np.concatenate(ids, dtype=dtype, casting="unsafe")


@dataclass(frozen=True)
class _Batch:
    """Encoded documents back to back, with the number of tokens and the language of each."""

    ids: NDArray[Any]
    lengths: list[int]
    languages: list[str]


def _encode_batch(documents: list[Document], tokenizer: Tokenizer, seed: int) -> _Batch:
    ids = [encode_document(document, tokenizer, seed) for document in documents]
    return _Batch(np.concatenate(ids), [len(part) for part in ids], [document.language for document in documents])


def _dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def _encode_all(documents: Iterable[Document], encoder: Tokenizer, seed: int, workers: int) -> Generator[_Batch]:
    """Encode in this process or in others, in the order of the documents."""
    if workers == 0:
        for batch in _batches(documents):
            yield _encode_batch(batch, encoder, seed)
        return
    waiting: deque[Future[_Batch]] = deque()
    context = get_context("fork" if sys.platform == "linux" else "spawn")  # a fork has the tokenizer at once
    with ProcessPoolExecutor(workers, context, _start_worker, (encoder, seed)) as pool:
        try:
            for batch in _batches(documents):
                waiting.append(pool.submit(_encode_in_worker, batch))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError("a tokenizing process died, perhaps for want of memory; use fewer num_workers") from None
        finally:
            pool.shutdown(cancel_futures=True)


_worker: tuple[Tokenizer, int]
"""Tokenizer and seed of this process, if it is a worker."""


def _start_worker(tokenizer: Tokenizer, seed: int) -> None:
    """Leave Ctrl-C to the parent, and end with it: a parent that was killed cannot tell its workers to stop."""
    global _worker  # noqa: PLW0603  # what a process pool's initializer is for
    _worker = tokenizer, seed
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_in_worker(documents: list[Document]) -> _Batch:
    return _encode_batch(documents, *_worker)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.content)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _limited(batches: Iterable[_Batch], max_tokens: int | None, title: str) -> Iterator[_Batch]:
    """Pass on whole documents up to `max_tokens`, and show how far it is."""
    with tqdm(desc=title, total=max_tokens, unit="tok", unit_scale=True) as progress:
        for batch in batches:
            fit = len(batch.lengths)
            if max_tokens is not None:
                fit = int(np.searchsorted(np.cumsum(batch.lengths), max_tokens - progress.n, side="right"))
            tokens = sum(batch.lengths[:fit])
            yield _Batch(batch.ids[:tokens], batch.lengths[:fit], batch.languages[:fit])
            progress.update(tokens)
            if fit < len(batch.lengths):
                return


class _ChunkWriter:
    """Cuts a stream of tokens into files of `size` tokens each.

    A file is what `litdata.optimize` makes of a single array: 1, 12 and the file's size as uint32 (one item, from byte
    12 to the end), then the ids.
    """

    def __init__(self, folder: Path, dtype: np.dtype[Any], size: int) -> None:
        self._folder = folder
        self._dtype = dtype
        self._room = self._size = size
        self._parts: list[NDArray[Any]] = []
        self._chunks: list[Chunk] = []

    def append(self, ids: NDArray[Any]) -> None:
        while len(ids):
            part, ids = ids[: self._room], ids[self._room :]
            self._parts.append(part)
            self._room -= len(part)
            if self._room == 0:
                self._flush()

    def finish(self) -> list[Chunk]:
        """Write what is left, and the index that litdata reads."""
        if self._parts:
            self._flush()
        index = {
            "chunks": [
                {"filename": chunk.filename, "chunk_bytes": chunk.size, "chunk_size": 1, "dim": chunk.tokens}
                for chunk in self._chunks
            ],
            "config": _LITDATA_CONFIG | {"chunk_size": self._size, "data_format": [_LITDATA_TYPES[self._dtype.name]]},
            # A time stamp in litdata's own files; it only asks whether it is still the same.
            "updated_at": hashlib.sha256("".join(chunk.sha256 for chunk in self._chunks).encode()).hexdigest()[:16],
        }
        (self._folder / "index.json").write_text(json.dumps(index, sort_keys=True) + "\n")
        return self._chunks

    def _flush(self) -> None:
        path = self._folder / f"chunk-0-{len(self._chunks)}.bin"
        tokens = self._size - self._room
        header = np.array([1, 12, 12 + tokens * self._dtype.itemsize], dtype=np.uint32)
        with path.open("wb") as file:
            for part in (header, *self._parts):
                file.write(part.data)
        self._chunks.append(Chunk(path.name, tokens, path.stat().st_size, sha256(path)))
        self._parts, self._room = [], self._size
