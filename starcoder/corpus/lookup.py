"""Two questions to a finished corpus: what became of a repository's files, and whose file a training token is."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from starcoder.corpus.optout import OptOut, bare_name
from starcoder.corpus.survey import KEPT, Row, collect, readable, scan
from starcoder.errors import UserError
from starcoder.text import visible

INDEX = "documents.parquet"
_FACTS = ("name", "repository", "split", "kind", "language", "licenses", "evidence", "copies", "size")
_LEFT_OUT = ("stage", "reason", "detail", "original")


def find_repository(folder: Path, name: str) -> Iterator[str]:
    """Yield the lines that say which files of a repository, or of an owner's repositories, are in a corpus, and why.

    Args:
        folder: Folder of the corpus.
        name: "owner/repository", an owner, or a name without owner; an address will do. Case does not matter. What is
            found is what the opt-out of that name would take out.

    Raises:
        UserError: The corpus is missing, corrupt or of another version.
    """
    documents, wanted = scan(folder), bare_name(name)
    asked, repository = OptOut(frozenset({wanted})), pl.col("repository")
    with readable(folder):
        names = [row["repository"] for row in collect(documents.select(repository.unique().sort()))]
        found = documents.filter(repository.is_in([each for each in names if each in asked]))
        mine = collect(found.select(*_FACTS, *_LEFT_OUT).sort("name", "kind"))
        if mine:
            yield from _answer(folder, mine, _others(documents, mine))
        else:
            yield from _unseen(folder, name, [each for each in names if wanted in each.lower()])


def find_position(folder: Path, position: int) -> Iterator[str]:
    """Yield the lines that say which document a token of token shards belongs to.

    Args:
        folder: Folder of token shards, with the index of their documents.
        position: Place of the token among all of them, counted from 0.

    Raises:
        UserError: There is no index, it is damaged, or no document has that token.
    """
    path = folder / INDEX
    if not path.is_file():
        raise UserError(f"no {INDEX} in {folder}: write the shards with `starcoder tokenize --output {folder}`")
    index, start, end = pl.scan_parquet(path, glob=False), pl.col("start"), pl.col("start") + pl.col("tokens")
    with readable(folder):
        rows = collect(index.filter((start <= position) & (position < end)))
        total = collect(index.select(end=end.max()))[0]["end"] or 0
        if not rows:
            raise UserError(f"no document has token {position:,} of {folder}, which holds {total:,} counted from 0")
        yield from _describe(folder, rows[0], position)


def _unseen(folder: Path, name: str, alike: Sequence[str]) -> Iterator[str]:
    yield f"nothing called {visible(name)} was seen: {folder} has neither kept nor left out a file of such a repository"
    if alike:
        yield f"names that contain it: {', '.join(map(visible, alike[:10]))}"


def _answer(folder: Path, mine: Sequence[Row], others: dict[tuple[str, str], Row]) -> Iterator[str]:
    kept = [row for row in mine if row["split"] != "rejected"]
    left = [row for row in mine if row["split"] == "rejected"]
    repositories = sorted({row["repository"] for row in mine})
    names = visible(", ".join(repositories)) if len(repositories) < 4 else f"{len(repositories)} repositories"
    yield f"{names} in {folder}: {_total(kept)} kept, {_total(left)} left out"
    if kept:
        yield "\nkept"
        yield from (f"  {visible(row['name'])}  {_facts(row)}" for row in kept)
    if left:
        yield "\nleft out"
        yield from (f"  {visible(row['name'])}  {_why(row)}" for row in left)
    twins = [(row, _stands_for(row, others)) for row in left if row["original"] is not None]
    foreign = [(row, twin) for row, twin in twins if twin and twin["repository"] not in repositories]
    if foreign:
        yield "\nleft out as a copy of another's file, which stands for it"
        yield from (f"  {visible(row['name'])}  {visible(twin['name'])}: {_state(twin)}" for row, twin in foreign)


def _total(rows: Sequence[Row]) -> str:
    files = f"{len(rows):,} file{'' if len(rows) == 1 else 's'}"
    return f"{files} ({sum(row['size'] for row in rows) / 1e6:.2f} MB)" if rows else "nothing"


def _facts(row: Row) -> str:
    license = " AND ".join(row["licenses"]) or "no licence"
    evidence = f" ({row['evidence']})" if row["evidence"] else ""
    copies = f"; stands for {row['copies']:,} files" if row["copies"] > 1 else ""
    return visible(f"{row['split']}; {row['language'] or row['kind']}; {license}{evidence}{copies}")


def _why(row: Row) -> str:
    detail = f" ({row['detail']})" if row["detail"] else ""
    return visible(f"{row['stage']}: {row['reason']}{detail}")


def _state(row: Row) -> str:
    return _facts(row) if row["split"] != "rejected" else f"left out itself, {_why(row)}"


def _others(documents: pl.LazyFrame, mine: Sequence[Row]) -> dict[tuple[str, str], Row]:
    """The documents that stand for duplicates among `mine`, and those that stand for them, by kind and name."""
    found: dict[tuple[str, str], Row] = {}
    asked: set[str] = set()
    wanted = {row["original"] for row in mine} - {None}
    while wanted:
        asked |= wanted
        named = documents.filter(pl.col("name").is_in(sorted(wanted))).select(*_FACTS, *_LEFT_OUT)
        rows = collect(named.sort(KEPT, "name", "kind"))  # what is kept wins over its namesake in another source
        found |= {(row["kind"], row["name"]): row for row in rows}
        wanted = {row["original"] for row in rows} - asked - {None}
    return found


def _stands_for(row: Row, others: dict[tuple[str, str], Row]) -> Row | None:
    """The document at the end of the chain of duplicates that begins with `row`; None when it is not there."""
    passed: set[str] = set()
    last: Row | None = None
    while row["original"] is not None and row["original"] not in passed:
        passed.add(row["original"])
        last = others.get((row["kind"], row["original"]))
        if last is None:
            return None
        row = last
    return last


def _describe(folder: Path, row: Row, position: int) -> Iterator[str]:
    place, last = position - row["start"], row["start"] + row["tokens"] - 1
    yield visible(f"{row['repository']}/{row['path']}")
    yield f"  its token {place:,} of {row['tokens']:,}, counted from 0: {row['start']:,} to {last:,} of {folder}"
    facts = {
        "licence": " AND ".join(row["licenses"]) or "none",
        "kind": row["kind"],
        "language": row["language"],
        "source": row["source"],
        "commit": row["commit"],
        "stars": row["stars"],
        "sha256": row["sha256"],
        "stands for": f"{row['copies']:,} files" if row["copies"] > 1 else None,
    }
    yield from (f"  {key:<10}  {visible(str(value))}" for key, value in facts.items() if value not in (None, ""))
