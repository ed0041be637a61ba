"""What token shards are made of on disk: chunks of ids as litdata reads them, and the index of their documents."""

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from starcoder.corpus.document import Document
from starcoder.storage import atomic_file, sha256
from starcoder.training.stream import Chunk

_INDEX_ROWS = 100_000
_SCHEMA_TYPES: dict[str, pa.DataType] = {
    "start": pa.int64(),
    "tokens": pa.int64(),
    "repository": pa.string(),
    "path": pa.string(),
    "commit": pa.string(),
    "licenses": pa.list_(pa.string()),
    "stars": pa.int64(),
    "language": pa.string(),
    "kind": pa.string(),
    "sha256": pa.string(),
    "source": pa.string(),
    "copies": pa.int64(),
}
_SCHEMA = pa.schema(_SCHEMA_TYPES)
_COPIED = _SCHEMA.names[2:]
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


class IndexWriter:
    """Writes one row for each document of a shard: where its tokens begin, and what it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._start = 0

    def __enter__(self) -> Self:
        """Open the file."""
        self._stack = ExitStack()
        partial = self._stack.enter_context(atomic_file(self._path))
        self._file = self._stack.enter_context(pq.ParquetWriter(partial, _SCHEMA, compression="zstd"))
        return self

    def __exit__(self, *error: Any) -> None:
        """Write what is left, and close the file."""
        self._flush()
        self._stack.__exit__(*error)

    def append(self, document: Document, tokens: int) -> None:
        """Add a document that has this many tokens, after all those before it."""
        row = {name: getattr(document, name) for name in _COPIED}
        self._rows.append(row | {"start": self._start, "tokens": tokens})
        self._start += tokens
        if len(self._rows) == _INDEX_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=_SCHEMA))
        self._rows = []


def join_indices(parts: list[Path], output: Path) -> None:
    """Write the indices of all tasks as one, whose starts count from the first token of the first chunk."""
    start = 0
    with pq.ParquetWriter(output, _SCHEMA, compression="zstd") as file:
        for part in parts:
            tokens = 0
            for batch in pq.ParquetFile(part).iter_batches(_INDEX_ROWS):
                table = pa.Table.from_batches([batch])
                shifted = pa.array(np.asarray(table["start"]) + start)
                file.write_table(table.set_column(0, _SCHEMA.field("start"), shifted))
                tokens += int(np.asarray(table["tokens"]).sum())
            start += tokens


class ChunkWriter:
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
        """Add ids to the stream; a file is written as soon as it is full."""
        while len(ids):
            part, ids = ids[: self._room], ids[self._room :]
            self._parts.append(part)
            self._room -= len(part)
            if self._room == 0:
                self._flush()

    def finish(self) -> list[Chunk]:
        """Write what is left."""
        if self._parts:
            self._flush()
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


def write_litdata_index(folder: Path, chunks: list[Chunk], dtype: np.dtype[Any], chunk_tokens: int) -> None:
    """Write the index that litdata reads."""
    index = {
        "chunks": [
            {"filename": chunk.filename, "chunk_bytes": chunk.size, "chunk_size": 1, "dim": chunk.tokens}
            for chunk in chunks
        ],
        "config": _LITDATA_CONFIG | {"chunk_size": chunk_tokens, "data_format": [_LITDATA_TYPES[dtype.name]]},
        # A time stamp in litdata's own files; it only asks whether it is still the same.
        "updated_at": hashlib.sha256("".join(chunk.sha256 for chunk in chunks).encode()).hexdigest()[:16],
    }
    (folder / "index.json").write_text(json.dumps(index, sort_keys=True) + "\n")
