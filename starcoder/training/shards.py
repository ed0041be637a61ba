"""Token shards: a corpus as one flat stream of token ids, in chunks that litdata streams (paper §5.2-5.3).

    documents ─► mix ─► [<reponame>R <filename>P <gh_stars>S ⏎] content <|endoftext|> ─► chunk-0-0.bin  chunk-0-1.bin  …
                                                                  index.json  metadata.json  documents.parquet

Each shard of the corpus is a task that writes its own chunks: the bytes follow from corpus, tokenizer and options,
whatever executor ran them and however often it was killed. `documents.parquet` leads from a token back to its file.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray
from typing_extensions import override

from starcoder.corpus.document import Document, read_shard, shards
from starcoder.corpus.formatting import segments
from starcoder.corpus.mix import MIXES, Mix, mix_key, rates, times
from starcoder.errors import UserError
from starcoder.executors import HERE, Execution, Stage, Work, code_digest, job_of, run_stages
from starcoder.storage import atomic_file, check_replaceable, replace_folder
from starcoder.text import shown
from starcoder.tokenizer import Sentinel, Tokenizer, load
from starcoder.training.chunks import ChunkWriter, IndexWriter, join_indices, write_litdata_index
from starcoder.training.stream import FILE, INDEX, Chunk, ShardsMetadata

_NOTHING = "nothing"  # left in the work folder when there was no document to write


def tokenize(
    corpus: Path,
    tokenizer: Path,
    output: Path,
    split: str = "train",
    language: str | None = None,
    mix: Literal["paper", "natural"] | Mix = "natural",
    max_tokens: int | None = None,
    seed: int = 1234,
    chunk_tokens: int = 2**25,
    execution: Execution = HERE,
) -> None:
    """Write the documents of a corpus as token shards.

    Args:
        corpus: folder of the corpus.
        tokenizer: folder of the tokenizer.
        output: folder to write the shards to; an older one is replaced when the new one is complete.
        split: which documents of the corpus, "train" or "validation".
        language: only the documents of this language, such as "python"; all of them by default.
        mix: how often documents of each language are taken: as they are, as in the paper, or by weights and caps.
        max_tokens: most tokens to write; each shard of the corpus stops before the document that exceeds its share.
        seed: seed of the mix, and of the choice of metadata (repository, path, stars) that precedes a document.
        chunk_tokens: tokens in a file. The tail of each file, less than a window, is not trained on: few are better.
        execution: where the tasks run, and how many at a time.

    Raises:
        UserError: when corpus or tokenizer are missing or damaged, or no document is left to write.
    """
    if chunk_tokens < 1 or (max_tokens is not None and max_tokens < 1):
        raise UserError("chunk_tokens and max_tokens must be at least 1")
    execution.check()
    encoder = load(tokenizer)
    check_replaceable(output, "chunk-0-0.bin")
    files = shards(corpus, split)
    volumes = [_volumes(file, language) for file in files]
    total = sum(volumes, Counter[str]())
    if not total:
        raise UserError(f"{corpus} has no {_which(split, language)}")
    rate = rates(total, MIXES[mix] if isinstance(mix, str) else mix)
    source = {"corpus": corpus.name, "split": split, "language": language, "weight": 1.0}
    metadata = ShardsMetadata(encoder.digest, encoder.vocab_size, _dtype(encoder).name, seed, [source], rate, {}, [])
    job = _Job(
        output.resolve(),
        tuple(str(file.resolve()) for file in files),
        _shares([_expected(volume, rate) for volume in volumes], max_tokens),
        str(tokenizer.resolve() if tokenizer.is_dir() else tokenizer),
        language,
        chunk_tokens,
        metadata,
    )
    work = Work(job.output, job.digest)
    with work.claim():
        work.prepare(job)
        stages = [Stage("tokenize", [_Tokenize(work)], len(files)), Stage("seal", [_Seal(work)])]
        run_stages(stages, work.logs, execution)
        nothing = (work.path / _NOTHING).exists()
    if execution.executor == "slurm":
        print(f"tokenize: submitted; {output} appears when the last job has ended, logs are in {shown(work.logs)}")
        return
    if nothing:
        raise UserError(f"{corpus} has no {_which(split, language)} of at most {max_tokens} tokens")


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


def _dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)


def _which(split: str, language: str | None) -> str:
    return f"{split} documents" if language is None else f"{split} documents in {language}"


def _volumes(shard: Path, language: str | None) -> Counter[str]:
    """Bytes of the documents to take from a shard, and one for the end of each, by key of the mix."""
    frame = pl.scan_parquet(shard).group_by("language", "kind").agg(pl.col("size").sum() + pl.len())
    volumes: Counter[str] = Counter()
    for name, kind, size in frame.collect().iter_rows():
        if language in (None, name):
            volumes[mix_key(name, kind)] += size
    return volumes


def _expected(volumes: Mapping[str, int], rate: Mapping[str, float]) -> float:
    return sum(volume * rate[key] for key, volume in volumes.items())


def _shares(sizes: list[float], max_tokens: int | None) -> tuple[int | None, ...]:
    """Most tokens of each shard: in proportion to its size, `max_tokens` together."""
    if max_tokens is None:
        return (None,) * len(sizes)
    borders = np.floor(np.cumsum([0.0, *sizes]) / sum(sizes) * max_tokens)
    return tuple(int(share) for share in np.diff(borders))


@dataclass(frozen=True)
class _Job:
    """What the tasks need to know; picklable.

    Attributes:
        output: folder of the shards.
        files: shards of the corpus, a task each.
        limits: most tokens of each task.
        tokenizer: its folder or repository.
        language: the only language to take.
        chunk_tokens: tokens in a file.
        metadata: all but what the tasks count.
    """

    output: Path
    files: tuple[str, ...]
    limits: tuple[int | None, ...]
    tokenizer: str
    language: str | None
    chunk_tokens: int
    metadata: ShardsMetadata

    @property
    def digest(self) -> str:
        """Changes with whatever the shards depend on."""
        states = [(file, Path(file).stat().st_size, Path(file).stat().st_mtime_ns) for file in self.files]
        options = [self.limits, self.language, self.chunk_tokens, asdict(self.metadata)]
        return hashlib.sha256(json.dumps([states, options, code_digest()]).encode()).hexdigest()


class _Step(PipelineStep):  # type: ignore[misc]  # datatrove ships no annotations
    type = "token shards"

    def __init__(self, work: Work) -> None:
        self.name = type(self).__name__.strip("_").lower()
        super().__init__()
        self.work = work

    @property
    def job(self) -> _Job:
        job: _Job = job_of(self.work)
        return job

    def path(self, rank: int, suffix: str) -> Path:
        return self.work.path / "chunks" / f"{rank:05d}{suffix}"


class _Tokenize(_Step):
    """Writes the chunks of one shard of the corpus, the index of its documents, and what they add up to."""

    @cached_property
    def _encoder(self) -> Tokenizer:
        return _load(self.job.tokenizer)

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        folder = self.path(rank, "")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        writer = ChunkWriter(folder, np.dtype(self.job.metadata.dtype), self.job.chunk_tokens)
        counts: dict[str, Counter[str]] = {}
        with IndexWriter(self.path(rank, ".parquet")) as index:
            for document, ids in self._encoded(rank):
                writer.append(ids)
                index.append(document, len(ids))
                key = mix_key(document.language, document.kind)
                counts.setdefault(key, Counter()).update(documents=1, tokens=len(ids))
        with atomic_file(self.path(rank, ".json")) as partial:
            partial.write_text(json.dumps({"counts": counts, "chunks": [asdict(c) for c in writer.finish()]}))

    def _encoded(self, rank: int) -> Iterator[tuple[Document, NDArray[Any]]]:
        """Whole documents up to the task's limit."""
        left = self.job.limits[rank]
        for document in self._mixed(Path(self.job.files[rank])):
            ids = encode_document(document, self._encoder, self.job.metadata.seed)
            if left is not None:
                left -= len(ids)
                if left < 0:
                    return
            yield document, ids

    def _mixed(self, file: Path) -> Iterator[Document]:
        """The documents of a shard as often as the mix takes them: a second time after all have been there once."""
        rate, seed = self.job.metadata.mix, self.job.metadata.seed
        for turn in range(1 + int(max(rate.values()))):
            for document in read_shard(file):
                if self.job.language in (None, document.language):
                    key = mix_key(document.language, document.kind)
                    if times(document, rate[key], seed) > turn:
                        yield document


@lru_cache(maxsize=1)
def _load(tokenizer: str) -> Tokenizer:
    """The tokenizer, read once in a process."""
    return load(tokenizer)


class _Seal(_Step):
    """Numbers the chunks of all tasks through, writes the indices, and puts the folder in its place."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        result = self.work.path / "shards"
        tasks = range(len(self.job.files))
        parts = [json.loads(self.path(task, ".json").read_text()) for task in tasks]
        if not any(part["chunks"] for part in parts):
            self.work.clear()
            (self.work.path / _NOTHING).touch()
            return
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        chunks: list[Chunk] = []
        for task, part in zip(tasks, parts, strict=True):
            for chunk in part["chunks"]:
                name = f"chunk-0-{len(chunks)}.bin"
                (result / name).hardlink_to(self.path(task, "") / chunk["filename"])
                chunks.append(Chunk(**chunk | {"filename": name}))
        counts: dict[str, Counter[str]] = {}
        for part in parts:
            for key, count in part["counts"].items():
                counts.setdefault(key, Counter()).update(count)
        languages = {key: dict(counts[key]) for key in sorted(counts)}
        metadata = replace(self.job.metadata, languages=languages, chunks=chunks)
        (result / FILE).write_text(json.dumps(asdict(metadata), indent=1) + "\n")
        write_litdata_index(result, chunks, np.dtype(metadata.dtype), self.job.chunk_tokens)
        join_indices([self.path(task, ".parquet") for task in tasks], result / INDEX)
        replace_folder(result, self.job.output)
        self.work.clear()
