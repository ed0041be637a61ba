"""The steps that find duplicates (paper §5.1): signatures, datatrove's MinHash stages 2 and 3, stars of clusters.

    documents/ ─► Sign ─► signatures/ ─► Match ─► pairs/ ─► Cluster ─► clusters/
         └──────► Compare ◄─────────────────────────────────────────────┘
                     └─► members/ ─► Star ─► verdicts/

A document is known by its place: the task that read it, its shard, and its row there. `Match` and `Cluster` see numbers
alone; `Compare` reads a shard again for the shingles of its candidates, and `Star` has those of a part of the clusters.
"""

import json
import resource
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from io import StringIO
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster
from datatrove.utils.hashing import HashConfig
from typing_extensions import override

from starcoder.corpus import dedup
from starcoder.corpus.document import Document, read_shard
from starcoder.corpus.step import Step
from starcoder.executors import Work
from starcoder.storage import atomic_file

_BUFFERED = 1000  # signatures of each shard that a match task has in memory
_SIGNED_HASHES = 2**19  # shingles in memory for one call of the signature function
_SHOWN_CLUSTERS = 20
_SHOWN_COPIES = 3


class Sign(Step):
    """Writes MinHash signatures as datatrove's second stage reads them: for each band, sorted, with the rows."""

    @override
    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> None:
        parts = [dedup.signatures([])]
        waiting: list[dedup.Hashes] = []
        size = 0
        for document in data:
            waiting.append(dedup.windows(document.content, document.kind))
            size += len(waiting[-1])
            if size >= _SIGNED_HASHES:
                parts.append(dedup.signatures(waiting))
                waiting, size = [], 0
        signatures = np.concatenate([*parts, dedup.signatures(waiting)])
        rows = np.arange(len(signatures), dtype=np.uint32)[:, None]
        for band in range(dedup.BANDS):
            records = np.concatenate([signatures[:, band], rows], axis=1)
            path = self.plan.work / "signatures" / f"bucket_{band:03d}" / f"{rank:05d}.minhash.sig"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(records[np.lexsort(records.T[::-1])].astype("<u4").tobytes())


_MINHASH = MinhashConfig(
    num_buckets=dedup.BANDS,
    hashes_per_bucket=dedup.ROWS,
    hash_config=HashConfig(hash_fc="sha1", precision=32),  # the type of the signatures; nothing is hashed by it
)


class Match(Step):
    """datatrove's second stage, one band after another: pairs of documents that share it."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a band has a file of every shard open
        folders = (str(self.plan.work / name) for name in ("signatures", "pairs"))
        match = MinhashDedupBuckets(*folders, config=_MINHASH, lines_to_buffer=_BUFFERED)
        for band in range(rank, dedup.BANDS, world_size):
            match.run(None, band, dedup.BANDS)


class Cluster(Step):
    """datatrove's third stage: the ids of all documents that have a partner are in memory, none of their text."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        folders = (str(self.plan.work / name) for name in ("pairs", "clusters"))
        with redirect_stderr(StringIO()):  # its progress bar
            MinhashDedupCluster(*folders, config=_MINHASH, save_cluster_id=True).run()


class Compare(Step):
    """Writes the shingles of a shard's candidates, for those who compare the clusters."""

    def __init__(self, work: Work, partitions: int) -> None:
        super().__init__(work)
        self.partitions = partitions

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        clusters = self._clusters(rank)
        rows = [
            _member(document, rank, row, clusters[row], self.partitions)
            for row, document in enumerate(read_shard(self.path("documents", rank)))
            if row in clusters
        ]
        table = pa.Table.from_pylist(rows, schema=_MEMBERS).sort_by("partition")
        with atomic_file(self.path("members", rank)) as partial:
            pq.write_table(table, partial, compression="zstd", row_group_size=_MEMBER_GROUP)

    def _clusters(self, rank: int) -> dict[int, int]:
        path = self.plan.work / "clusters" / f"{rank:06d}.clusters"  # absent when nothing in the shard is a candidate
        pairs = np.frombuffer(path.read_bytes() if path.exists() else b"", "<u4").reshape(-1, 2)
        return dict(pairs.tolist())


_MEMBER_GROUP = 2000
_MEMBERS_TYPES: dict[str, pa.DataType] = {
    "partition": pa.int64(),
    "cluster": pa.int64(),
    "shard": pa.int64(),
    "row": pa.int64(),
    "name": pa.string(),
    "sha256": pa.string(),
    "preference": pa.string(),
    "shingles": pa.list_(pa.uint64()),
}
_MEMBERS = pa.schema(_MEMBERS_TYPES)
_VERDICTS_TYPES: dict[str, pa.DataType] = {
    "shard": pa.int64(),
    "row": pa.int64(),
    "kept": pa.string(),
    "exact": pa.bool_(),
    "similarity": pa.float64(),
    "copies": pa.int64(),
    "shown": pa.bool_(),
}
_VERDICTS = pa.schema(_VERDICTS_TYPES)


def _member(document: Document, shard: int, row: int, cluster: int, partitions: int) -> dict[str, Any]:
    return {
        "partition": cluster % partitions,
        "cluster": cluster,
        "shard": shard,
        "row": row,
        "name": document.name,
        "sha256": document.sha256,
        "preference": json.dumps(dedup.preference(document)),
        "shingles": dedup.shingles(document.content, document.kind),
    }


class Star(Step):
    """Cuts the clusters of a partition into stars, and writes a verdict for each document that has copies or is one."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        files = [self.path("members", shard) for shard in range(len(self.plan.tasks))]
        mine = [pq.read_table(file, filters=[("partition", "=", rank)]) for file in files]
        table = pa.concat_tables(mine).combine_chunks()
        shingles = _lists(table["shingles"])
        clusters: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for place, member in enumerate(table.drop_columns("shingles").to_pylist()):
            clusters[member["cluster"]].append(member | {"place": place})
        verdicts = [verdict for members in clusters.values() for verdict in self._verdicts(members, shingles)]
        _show_largest(verdicts)
        with atomic_file(self.path("verdicts", rank)) as partial:
            pq.write_table(pa.Table.from_pylist(verdicts, schema=_VERDICTS), partial, compression="zstd")

    def _verdicts(self, members: list[dict[str, Any]], shingles: list[dedup.Hashes]) -> Iterator[dict[str, Any]]:
        members.sort(key=lambda member: json.loads(member["preference"]))
        matches = dedup.stars([shingles[member["place"]] for member in members], self.plan.similarity)
        copies = Counter(match.kept for match in matches if match)
        for place, (member, match) in enumerate(zip(members, matches, strict=True)):
            verdict = {name: member[name] for name in ("shard", "row")} | {"copies": 1 + copies[place], "shown": False}
            if match:
                kept = members[match.kept]
                yield verdict | {
                    "kept": kept["name"],
                    "exact": kept["sha256"] == member["sha256"],
                    "similarity": match.similarity,
                }
            elif copies[place]:
                yield verdict


def _lists(column: "pa.ChunkedArray[Any]") -> list[dedup.Hashes]:
    """The rows of a column of lists, as views of its chunks."""
    views = []
    chunk: Any
    for chunk in column.chunks:
        values = np.asarray(chunk.values)
        views += [values[start:end] for start, end in pairwise(np.asarray(chunk.offsets))]
    return views


def _show_largest(verdicts: list[dict[str, Any]]) -> None:
    """Mark a few near-duplicates of the largest clusters, whose text is kept to be looked at."""
    copies: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.get("kept") and not verdict["exact"]:
            copies[verdict["kept"]].append(verdict)
    for kept in sorted(copies, key=lambda name: (-len(copies[name]), name))[:_SHOWN_CLUSTERS]:
        for verdict in copies[kept][:_SHOWN_COPIES]:
            verdict["shown"] = True
