"""Reading token shards: what `metadata.json` promises is checked, and litdata gives random access to the windows.

A window is `length` tokens in a row of one chunk. An epoch visits every window once, in an order that depends on the
seed and the epoch alone: chunks are shuffled, then the windows of each 16 chunks in a row. It is the order of the whole
job, of which every rank takes its part. litdata's own order depends on the number of ranks and workers, and after a
resume its next epoch is another one (0.2.76 under Lightning 2.6.6).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starcoder.errors import UserError, one_line
from starcoder.storage import atomic_file, sha256
from starcoder.tokenizer import Tokenizer

FILE = "metadata.json"
INDEX = "documents.parquet"
SHUFFLED_CHUNKS = 16
_HASHED_BYTES = 2**28
_NEVER_EVICT = 10**18


@dataclass(frozen=True)
class Chunk:
    """One file of tokens: its name, number of tokens, size in bytes and SHA-256."""

    filename: str
    tokens: int
    size: int
    sha256: str


@dataclass(frozen=True)
class ShardsMetadata:
    """What `metadata.json` says.

    Attributes:
        tokenizer: digest of the tokenizer that made the ids.
        vocab_size: number of its tokens.
        dtype: type of one id on disk.
        seed: seed of the choice of metadata fields.
        sources: what was read.
        mix: how often documents of each language or kind were taken.
        languages: number of documents and tokens of each language.
        chunks: the files, in order.
        stale: why they must not be used any more; empty while they may.
    """

    tokenizer: str
    vocab_size: int
    dtype: str
    seed: int
    sources: list[dict[str, Any]]
    mix: dict[str, float]
    languages: dict[str, dict[str, int]]
    chunks: list[Chunk]
    stale: str = ""


@dataclass(frozen=True)
class Shards:
    """Token shards that were checked and can be read.

    Attributes:
        location: their folder or URL.
        metadata: what is in them.
        cache: folder that keeps the chunks of a URL.
    """

    location: str
    metadata: ShardsMetadata
    cache: Path

    @property
    def digest(self) -> str:
        """Hash that tells these tokens, in this order, from all others."""
        return hashlib.sha256("".join(chunk.sha256 for chunk in self.metadata.chunks).encode()).hexdigest()

    @property
    def n_tokens(self) -> int:
        """Number of tokens in all chunks."""
        return sum(chunk.tokens for chunk in self.metadata.chunks)

    def windows(self, length: int) -> list[int]:
        """Number of whole windows of `length` tokens in each chunk; they are numbered through, chunk by chunk."""
        return [chunk.tokens // length for chunk in self.metadata.chunks]

    def stream(self, length: int) -> Any:
        """A `litdata.StreamingDataset` whose item i is window i: (length,) ids, mapped from disk or fetched by chunk.

        Chunks of a URL stay in `cache`, which must have room for all of them: litdata's eviction fails under random
        access.
        """
        litdata = import_litdata()
        loader = litdata.TokensLoader(length)
        loader.pre_load_chunk = _map_nothing
        return litdata.StreamingDataset(
            self.location,
            cache_dir=str(self.cache),
            item_loader=loader,
            max_pre_download=SHUFFLED_CHUNKS,
            max_cache_size=_NEVER_EVICT,
        )


def open_shards(location: Path | str, tokenizer: Tokenizer | None = None, cache: Path = Path("build/cache")) -> Shards:
    """Open the token shards in a folder, or at a URL that litdata reads (s3://, gs://, r2://, azure://, hf://).

    The size of every file in a folder is checked, and its hash if all files together have at most 256 MiB. Files behind
    a URL are not checked.

    Args:
        location: folder or URL.
        tokenizer: the one that must have made the shards; any by default.
        cache: folder that keeps the chunks of a URL; not used for a folder.

    Raises:
        UserError: when there are no shards, a file is damaged, or another tokenizer made them.
    """
    location = str(location)
    remote = "://" in location or location.startswith("local:")
    metadata = _parse_metadata(_fetch(location, cache) if remote else _read(location), location)
    if metadata.stale:
        raise UserError(f"the shards {location} are stale: {metadata.stale}; run `starcoder tokenize` again")
    if not remote:
        _check_files(Path(location), metadata)
    if tokenizer is not None and tokenizer.digest != metadata.tokenizer:
        raise UserError(f"the shards {location} were made with another tokenizer; run `starcoder tokenize` again")
    return Shards(location, metadata, cache)


def find_repositories(folder: Path) -> set[str]:
    """The repositories whose documents are in the token shards in `folder`.

    Raises:
        UserError: when there are no shards, or their index of documents is missing.
    """
    import pyarrow.parquet as pq

    _read(str(folder))
    try:
        column = pq.read_table(folder / INDEX, columns=["repository"])["repository"]
    except OSError as error:
        raise UserError(f"{folder / INDEX} cannot be read ({one_line(error)}); make the shards again") from None
    return set(map(str, column.unique().to_pylist()))


def mark_stale(folder: Path, reason: str) -> None:
    """Make the token shards in `folder` say why they must not be trained on any more; `open_shards` then refuses."""
    metadata = _parse_metadata(_read(str(folder)), str(folder))
    with atomic_file(folder / FILE) as partial:
        partial.write_text(json.dumps(asdict(replace(metadata, stale=reason)), indent=1) + "\n")


def chunk_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch visits `count` chunks; the windows of each `SHUFFLED_CHUNKS` in a row are mixed."""
    return np.random.default_rng((seed, epoch, 1)).permutation(count)


def window_order(windows: Sequence[int], seed: int | None, epoch: int, start: int = 0) -> Iterator[int]:
    """The global indices of an epoch's windows, from position `start` on.

    Args:
        windows: number of windows in each chunk.
        seed: seed of the shuffling; None keeps the order of the shards.
        epoch: which pass over the data.
        start: how many windows to skip.
    """
    first = np.cumsum([0, *windows])
    if seed is None:
        yield from range(start, int(first[-1]))
        return
    chunks = chunk_order(len(windows), seed, epoch)
    for group in range(0, len(chunks), SHUFFLED_CHUNKS):
        indices = np.concatenate([np.arange(first[c], first[c + 1]) for c in chunks[group : group + SHUFFLED_CHUNKS]])
        if start < len(indices):
            yield from np.random.default_rng((seed, epoch, 2, group)).permutation(indices)[start:].tolist()
        start = max(0, start - len(indices))


def _map_nothing(_chunk_index: int, _path: str) -> None:
    """Leave mapping a chunk to the thread that reads it: litdata's downloading thread, doing it too, breaks it."""


def _read(folder: str) -> bytes:
    try:
        return (Path(folder) / FILE).read_bytes()
    except OSError as error:
        raise UserError(
            f"no token shards in {folder} ({error.strerror}); make them with `starcoder tokenize`"
        ) from None


def _fetch(url: str, cache: Path) -> bytes:
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache) as folder:
        path = Path(folder) / FILE
        try:
            downloader = import_litdata().streaming.downloader.get_downloader(url, folder, [])
            downloader.download_file(f"{url}/{FILE}", str(path))
            return path.read_bytes()
        except Exception as error:  # every store raises its own
            raise UserError(f"cannot read {url}/{FILE}: {one_line(error)}") from None


def _parse_metadata(content: bytes, location: str) -> ShardsMetadata:
    try:
        fields = json.loads(content)
        chunks = [Chunk(**chunk) for chunk in fields.pop("chunks")]
        return ShardsMetadata(**fields, chunks=chunks)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{location}/{FILE} is damaged: {one_line(error)}; make the shards again") from None


def _check_files(folder: Path, metadata: ShardsMetadata) -> None:
    try:
        index = json.loads((folder / "index.json").read_bytes())
        listed = [(chunk["filename"], chunk["dim"]) for chunk in index["chunks"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/index.json is damaged: {one_line(error)}; make the shards again") from None
    if listed != [(chunk.filename, chunk.tokens) for chunk in metadata.chunks]:
        raise UserError(f"index.json and metadata.json in {folder} contradict each other; make the shards again")
    hashed = sum(chunk.size for chunk in metadata.chunks) <= _HASHED_BYTES
    for chunk in metadata.chunks:
        path = folder / chunk.filename
        size = path.stat().st_size if path.exists() else 0
        if size != chunk.size:
            raise UserError(f"{path} is damaged: {size:,} of {chunk.size:,} bytes; make the shards again")
        if hashed and sha256(path) != chunk.sha256:
            raise UserError(f"{path} is damaged: its hash is wrong; make the shards again")


def import_litdata() -> Any:
    """litdata, which imports torch: not for the processes that only tokenize."""
    import litdata  # type: ignore[import-untyped]  # ships no types

    return litdata
