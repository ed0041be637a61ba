"""The corpus pipeline (paper §3, §5.1) as datatrove stages; every arrow is a folder of files in the work folder.

    plan ─► read ─► documents/ ─► match ─► cluster ─► compare ─► star ─► verdicts/ ─► split ─► finish ─► seal ─► corpus
              │      signatures/   (datatrove's MinHash stages 2, 3)                             │
              └────► rejected/ ─────────────────────────────────────────────────────────────────┘

A document is known by its place: the task that read it, its shard, and its row there. Content is read again only by
tasks that each have one shard in memory, or the shingles of a part of the clusters; all else works on columns.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from typing_extensions import override

from starcoder.corpus import dedup
from starcoder.corpus.clusters import Cluster, Compare, Match, Sign, Star
from starcoder.corpus.document import Document, open_shard, read_shard, shard_name, write_shard
from starcoder.corpus.plan import Plan
from starcoder.corpus.redaction import redact_documents, total
from starcoder.corpus.sampling import held_out, random_key
from starcoder.corpus.step import Step
from starcoder.corpus.summary import seal
from starcoder.errors import UserError
from starcoder.executors import Stage, Work
from starcoder.pii.redaction import Redacted
from starcoder.storage import atomic_file, replace_folder

_TASKS_A_PARTITION = 8
_SHOWN = 8  # left-out documents of a task and reason that keep an excerpt
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


class Read(Step):
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


class Write(Step):
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


class Split(Step):
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
            why = self._most_left_out()
            self.work.clear()
            raise UserError(f"fewer than two {what} to keep, one to train and another to validate; {why}")
        chosen = held_out(sizes, self.plan.validation_share, self.plan.seed)
        with atomic_file(self.plan.work / "split.json") as partial:
            partial.write_text(json.dumps({"files": alone, "held_out": sorted(chosen)}))

    def _most_left_out(self) -> str:
        """What became of the files that are not kept; read before the work folder is cleared."""
        rejected = pl.concat(
            [pl.scan_parquet(self.plan.work / name / "*.parquet") for name in ("rejected", "documents")]
        )
        reason = pl.col("rejection").struct.field("reason").fill_null("duplicates")
        counts = rejected.group_by(reason.alias("reason")).len().sort("len", "reason", descending=[True, False])
        return "left out: " + ", ".join(f"{count} {reason}" for reason, count in counts.head(3).collect().iter_rows())

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


class Finish(Step):
    """Applies the verdicts and the opinions, redacts, and writes a shard of each split."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        split = json.loads((self.plan.work / "split.json").read_text())
        held = frozenset(split["held_out"])
        rejected = _Rejected(self.plan, read_shard(self.path("rejected", rank)))
        kept: list[Document] = []
        verdicts = self._verdicts(rank)
        for row, document in enumerate(read_shard(self.path("documents", rank))):
            judged = self._judge(document, verdicts.get(row))
            if judged.rejection:
                rejected.add(judged, document, bool(row in verdicts and verdicts[row]["shown"]))
            else:
                kept.append(judged)
        redacted = redact_documents(kept, self.plan.redactor)
        splits: dict[str, list[Document]] = {"train": [], "validation": []}
        for document, _ in redacted:
            apart = (document.name if split["files"] else document.repository) in held
            splits["validation" if apart else "train"].append(document)
        count = len(self.plan.tasks)
        for name, documents in splits.items():
            documents.sort(key=lambda document: random_key(self.plan.seed, f"{document.name}\0{document.source}"))
            write_shard(self.plan.result / shard_name(name, rank, count), documents)
        write_shard(self.plan.result / shard_name("rejected", rank, count), rejected.documents())
        with atomic_file(self.path("redacted", rank, ".json")) as partial:
            partial.write_text(json.dumps(_tally(redacted), sort_keys=True))

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


def _tally(redacted: Iterable[tuple[Document, Redacted]]) -> dict[str, dict[str, Counter[str]]]:
    """For each language how many entities of each label were replaced in its documents, and how many were left."""
    counts: dict[str, dict[str, Counter[str]]] = {"redacted": defaultdict(Counter), "unredacted": defaultdict(Counter)}
    for document, result in redacted:
        for kind, labels in (("redacted", result.counts), ("unredacted", result.left)):
            if labels:
                counts[kind][document.language].update(labels)
    return counts


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
        languages = [self._documents[place].language for place in excerpts]
        redacted = self._plan.redactor.redact_all(list(excerpts.values()), languages)
        for place, excerpt in zip(excerpts, redacted, strict=True):
            self._documents[place] = replace(self._documents[place], content=excerpt.text[:_EXCERPT])
        return sorted(self._documents, key=lambda document: (document.name, document.source, document.kind))


class Seal(Step):
    """Counts what the corpus holds, puts it in its place, and clears the work folder."""

    @override
    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        if self.plan.result.exists():  # or else it was put there just before a kill
            languages = self._languages("redacted")
            left = total(self._languages("unredacted").values())
            facts = {"redacted_languages": languages, "unredacted": dict(sorted(left.items()))}
            seal(self.plan.result, {**self.plan.facts, **facts}, total(languages.values()))
            replace_folder(self.plan.result, self.plan.output)
        self.work.clear()

    def _languages(self, kind: str) -> dict[str, dict[str, int]]:
        """The tally of all tasks: labels and their counts for each language."""
        tasks = range(len(self.plan.tasks))
        tallies = [json.loads(self.path("redacted", task, ".json").read_text())[kind] for task in tasks]
        names = sorted({name for tally in tallies for name in tally})
        return {name: dict(sorted(total(tally.get(name, {}) for tally in tallies).items())) for name in names}
