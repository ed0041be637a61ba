"""The corpus pipeline (paper §3, §5.1) as datatrove stages; every arrow is a folder of files in the work folder.

    plan ─► read ─► documents/ ─► match ─► cluster ─► compare ─► star ─► verdicts/ ─► split ─► finish ─► seal ─► corpus
              │      signatures/   (datatrove's MinHash stages 2, 3)                             │
              └────► rejected/ ─────────────────────────────────────────────────────────────────┘

A document is known by its place: the task that read it, its shard, and its row there. Content is read again only by
tasks that each have one shard in memory, or the shingles of a part of the clusters; all else works on columns.
"""

import json
import resource
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets, MinhashDedupCluster
from datatrove.utils.hashing import HashConfig
from typing_extensions import override

from starcoder.corpus import dedup
from starcoder.corpus.document import Document, open_shard, read_shard, shard_name, write_shard
from starcoder.corpus.plan import Plan
from starcoder.corpus.redaction import redact_document
from starcoder.corpus.sampling import held_out, random_key
from starcoder.corpus.summary import seal
from starcoder.errors import UserError
from starcoder.executors import Stage, Work, job_of
from starcoder.storage import atomic_file, replace_folder

_TASKS_A_PARTITION = 8
_BUFFERED = 1000  # signatures of each shard that a match task has in memory
_SIGNED_HASHES = 2**19  # shingles in memory for one call of the signature function
_SHOWN = 8  # left-out documents of a task and reason that keep an excerpt
_SHOWN_CLUSTERS = 20
_SHOWN_COPIES = 3
_EXCERPT = 20_000  # characters


def pipeline(work: Work, tasks: int) -> list[Stage]:
    """The stages that make a corpus of the plan in `work`, in order.

    Args:
        work: Work folder, prepared with a `Plan`.
        tasks: Number of the plan's tasks.
    """
    partitions = -(-tasks // _TASKS_A_PARTITION)
    return [
        Stage("read", [Read(work), Write(work), Sign(work)], tasks),
        Stage("match", [Match(work)], min(tasks, dedup.BANDS)),
        Stage("cluster", [Cluster(work)]),
        Stage("compare", [Compare(work, partitions)], tasks),
        Stage("star", [Star(work)], partitions),
        Stage("split", [Split(work)]),
        Stage("finish", [Finish(work)], tasks),
        Stage("seal", [Seal(work)]),
    ]


class _Step(PipelineStep):  # type: ignore[misc]  # datatrove ships no annotations
    """A step that knows the plan."""

    type = "corpus"

    def __init__(self, work: Work) -> None:
        self.name = type(self).__name__.lower()
        super().__init__()
        self.work = work

    @property
    def plan(self) -> Plan:
        """The plan, which a process reads once."""
        plan: Plan = job_of(self.work)
        return plan

    def path(self, folder: str, number: int, suffix: str = ".parquet") -> Path:
        """The file of a shard or partition in the work folder."""
        return self.plan.work / folder / f"{number:05d}{suffix}"


class Read(_Step):
    """Yields the documents of a task's units, kept and rejected."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        ingest = self.plan.ingest
        for piece in self.plan.tasks[rank]:
            chosen = self.plan.chosen(piece)
            for candidate in self.plan.sources[piece.source].candidates(piece.unit):
                listed = ingest.listed(candidate)
                if chosen is not None and not listed.rejection and listed.name not in chosen:
                    yield listed.reject("over its repository's share", "", "budget")
                else:
                    yield from ingest.documents(candidate, listed)


class Write(_Step):
    """Writes what has content to one file, what has none to another, and yields the former."""

    @override
    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        rejected: list[Document] = []
        with open_shard(self.path("documents", rank)) as append:
            for document in data:
                if document.content:
                    append(document)
                    yield document
                else:
                    rejected.append(document)
        write_shard(self.path("rejected", rank), rejected)


class Sign(_Step):
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


class Match(_Step):
    """datatrove's second stage, one band after another: pairs of documents that share it."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a band has a file of every shard open
        folders = (str(self.plan.work / name) for name in ("signatures", "pairs"))
        match = MinhashDedupBuckets(*folders, config=_MINHASH, lines_to_buffer=_BUFFERED)
        for band in range(rank, dedup.BANDS, world_size):
            match.run(None, band, dedup.BANDS)


class Cluster(_Step):
    """datatrove's third stage: the ids of all documents that have a partner are in memory, none of their text."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        folders = (str(self.plan.work / name) for name in ("pairs", "clusters"))
        with redirect_stderr(StringIO()):  # its progress bar
            MinhashDedupCluster(*folders, config=_MINHASH, save_cluster_id=True).run()


class Compare(_Step):
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


class Star(_Step):
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


class Split(_Step):
    """Decides which repositories are held out, from the sizes of what will probably be kept.

    If one repository is all there is, single files are held out.
    """

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        repositories: Counter[str] = Counter()
        files: Counter[str] = Counter()
        removed = self._removed()
        for shard in range(len(self.plan.tasks)):
            gone = set(removed.get(shard, ()))
            for row, (repository, path, size) in _kept_sizes(self.path("documents", shard)):
                if row not in gone:
                    repositories[repository] += size
                    if len(repositories) == 1:
                        files[f"{repository}/{path}"] += size
        alone = len(repositories) == 1
        sizes = files if alone else repositories
        if len(sizes) < 2:
            what = "files" if alone else "repositories have files"
            self.work.clear()  # the same plan ends here every time
            raise UserError(f"fewer than two {what} to keep: one is needed to train, another to validate")
        chosen = held_out(sizes, self.plan.validation_share, self.plan.seed)
        with atomic_file(self.plan.work / "split.json") as partial:
            partial.write_text(json.dumps({"files": alone, "held_out": sorted(chosen)}))

    def _removed(self) -> dict[int, list[int]]:
        """The rows of each shard that are duplicates; numbers only."""
        verdicts = pl.scan_parquet(self.plan.work / "verdicts" / "*.parquet").filter(pl.col("kept").is_not_null())
        return dict(verdicts.group_by("shard").agg("row").collect().iter_rows())


def _kept_sizes(path: Path) -> Iterator[tuple[int, tuple[str, str, int]]]:
    columns = ["repository", "path", "size"]
    opinion = pl.col("rejection").struct.field("reason").is_null().alias("kept")
    frame = pl.scan_parquet(path).select(*columns, opinion).with_row_index("row").filter("kept").collect()
    for row, *rest in frame.select("row", *columns).iter_rows():
        yield row, (rest[0], rest[1], rest[2])


class Finish(_Step):
    """Applies the verdicts and the opinions, redacts, and writes a shard of each split."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        split = json.loads((self.plan.work / "split.json").read_text())
        held = frozenset(split["held_out"])
        rejected = _Rejected(self.plan, read_shard(self.path("rejected", rank)))
        kept: dict[str, list[Document]] = {"train": [], "validation": []}
        redacted: Counter[str] = Counter()
        verdicts = self._verdicts(rank)
        for row, document in enumerate(read_shard(self.path("documents", rank))):
            judged = self._judge(document, verdicts.get(row))
            if judged.rejection:
                rejected.add(judged, document, bool(row in verdicts and verdicts[row]["shown"]))
                continue
            final, counts = redact_document(judged, self.plan.redactor)
            redacted.update(counts)
            kept["validation" if (final.name if split["files"] else final.repository) in held else "train"].append(
                final
            )
        count = len(self.plan.tasks)
        for name, documents in kept.items():
            documents.sort(key=lambda document: random_key(self.plan.seed, f"{document.name}\0{document.source}"))
            write_shard(self.plan.result / shard_name(name, rank, count), documents)
        write_shard(self.plan.result / shard_name("rejected", rank, count), rejected.documents())
        with atomic_file(self.path("redacted", rank, ".json")) as partial:
            partial.write_text(json.dumps(redacted, sort_keys=True))

    def _verdicts(self, shard: int) -> dict[int, dict[str, Any]]:
        """What the comparison of clusters says about the documents of a shard, by row."""
        files = sorted((self.plan.work / "verdicts").glob("*.parquet"))
        rows = [row for file in files for row in pq.read_table(file, filters=[("shard", "=", shard)]).to_pylist()]
        return {row["row"]: row for row in rows}

    def _judge(self, document: Document, verdict: Mapping[str, Any] | None) -> Document:
        if verdict and verdict["kept"]:
            if verdict["exact"]:
                return document.reject("exact duplicate", verdict["kept"], "exact duplicates")
            detail = f"{verdict['kept']}, Jaccard {verdict['similarity']:.2f}"
            return document.reject("near-duplicate", detail, "near-duplicates")
        if document.rejection:
            return document.reject(document.rejection.reason, document.rejection.detail, document.rejection.stage)
        return replace(document, copies=verdict["copies"]) if verdict else document


class _Rejected:
    """The left-out documents of a shard; a random few of each reason keep an excerpt to look at, redacted as well."""

    def __init__(self, plan: Plan, documents: Iterable[Document]) -> None:
        self._plan = plan
        self._documents = list(documents)
        self._shown: dict[int, str] = {}
        self._drawn: dict[str, dict[bytes, tuple[int, str]]] = defaultdict(dict)

    def add(self, rejected: Document, original: Document, shown: bool) -> None:
        assert rejected.rejection is not None
        place, text = len(self._documents), original.content
        self._documents.append(rejected)
        if shown:
            self._shown[place] = text
            return
        drawn = self._drawn[rejected.rejection.reason]
        drawn[random_key(self._plan.seed, rejected.name)] = (place, text)
        if len(drawn) > _SHOWN:
            del drawn[max(drawn)]

    def documents(self) -> list[Document]:
        excerpts = self._shown | dict(pair for drawn in self._drawn.values() for pair in drawn.values())
        for place, text in excerpts.items():
            excerpt = self._plan.redactor.redact(text).text[:_EXCERPT]
            self._documents[place] = replace(self._documents[place], content=excerpt)
        return sorted(self._documents, key=lambda document: (document.name, document.source, document.kind))


class Seal(_Step):
    """Counts what the corpus holds, puts it in its place, and clears the work folder."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        if self.plan.result.exists():  # or else it was put there just before a kill
            redacted: Counter[str] = Counter()
            for task in range(len(self.plan.tasks)):
                redacted.update(json.loads(self.path("redacted", task, ".json").read_text()))
            seal(self.plan.result, self.plan.facts, redacted)
            replace_folder(self.plan.result, self.plan.output)
        self.work.clear()
