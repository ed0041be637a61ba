"""`starcoder corpus inspect`: what a corpus holds, what became of a repository, whose a token is."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from starcoder.corpus.lookup import find_position, find_repository
from starcoder.corpus.redaction import describe
from starcoder.corpus.survey import Row, Survey, readable, survey
from starcoder.errors import UserError
from starcoder.text import visible

_ROWS = 15
_WIDTH = 60


def inspect(
    folder: Path = Path("build/corpus"),
    repo: str | None = None,
    shards: Path | None = None,
    position: int | None = None,
    html: Path | None = None,
    samples: int = 5,
    seed: int = 0,
) -> None:
    """Show what a corpus holds and what each stage left out, and write a page with samples to look at.

    With `repo`, say instead which files of a repository are in it, and why the others are not; with `shards` and
    `position`, which file a training token comes from.

    Args:
        folder: Folder of the corpus.
        repo: A repository ("owner/name", or a name without owner) or an owner; case does not matter.
        shards: Folder of token shards made of the corpus.
        position: Place of a token among all of `shards`, counted from 0.
        html: File of the page; by default `<folder>-report.html` beside the folder.
        samples: How many random files of each language, and of each reason to leave files out, the page shows.
        seed: Seed of their choice.

    Raises:
        UserError: The corpus, or the index of the shards, is missing, of another version or corrupt; no document has
            that token; or the options contradict each other.
    """
    _check_options(repo, shards, position, samples)
    if shards is not None and position is not None:
        _print(find_position(shards, position))
    elif repo is not None:
        _print(find_repository(folder, repo))
    else:
        _overview(folder, html or page_beside(folder), samples, seed)


def _check_options(repo: str | None, shards: Path | None, position: int | None, samples: int) -> None:
    problems = {
        "--shards and --position go together": (shards is None) != (position is None),
        "--repo and --position are two questions": repo is not None and position is not None,
        "--repo is empty": repo is not None and not repo.strip(" /"),
        "--samples must not be negative": samples < 0,
    }
    found = [problem for problem, holds in problems.items() if holds]
    if found:
        raise UserError("; ".join(found))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def page_beside(folder: Path) -> Path:
    """Where the page about the corpus in `folder` is written, when no other place is named."""
    return folder.resolve().with_name(f"{folder.resolve().name}-report.html")


def _overview(folder: Path, html: Path, samples: int, seed: int) -> None:
    from starcoder.corpus.page import write_page

    result = survey(folder)
    _print(overview(result))
    with readable(folder):
        write_page(html, result, samples, seed)
    print(f"page with samples: {html}")


def overview(result: Survey) -> Iterator[str]:
    """Yield the counts of a corpus as lines of text."""
    splits = result.splits
    train, validation = (f"{splits[name]['files']:,} files, {_mb(splits[name])} MB" for name in ("train", "validation"))
    yield f"to train on: {train}; held out: {validation}; left out: {splits['rejected']['files']:,} files"
    yield f"{describe(result.summary)}\n"
    funnel = [(r["stage"], r["files"], r["bytes"], r["left_files"], r["left_bytes"]) for r in result.stages]
    yield table(("stage", "files in", "MB in", "left out", "MB out"), funnel, len(funnel))
    yield table(("left out at", "because", "files", "MB"), _rows(result.reasons, "stage", "reason", "files", "bytes"))
    languages = _rows(result.languages, "language", "files", "bytes", "left_files", "left_bytes")
    yield table(("language", "files", "MB", "left out", "MB out"), languages)
    yield table(("licence", "files", "MB"), _rows(result.licenses, "license", "files", "bytes"))
    if result.unresolved:
        unresolved = _rows(result.unresolved, "reason", "detail", "files", "bytes")
        yield table(("unresolved licences", "stated", "files", "MB"), unresolved)
    labels, redacted = redactions(result.summary)
    if redacted:
        yield table(("redacted in", *labels), redacted)
    if result.clusters:
        clusters = _rows(result.clusters[:10], "name", "language", "copies")
        yield table(("biggest clusters: the file that stands for them", "language", "files"), clusters)
    yield from (f"note: {visible(message)}" for message in result.summary["messages"])


def redactions(summary: Row) -> tuple[list[str], list[list[object]]]:
    """The labels that were redacted; and rows of a language and the count of each label, most redacted first."""
    labels = list(summary.get("redacted", {}))
    languages = summary.get("redacted_languages", {})
    names = sorted(languages, key=lambda name: (-sum(languages[name].values()), name))
    return labels, [[name, *(languages[name].get(label, 0) for label in labels)] for name in names]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], shown: int = _ROWS) -> str:
    """Return the first `shown` of `rows` as a text table and add up the rest; a column "MB …" is given in bytes."""
    rest = rows[shown:]
    if rest:
        totals = [sum(column) if isinstance(column[0], int) else " " for column in zip(*rest, strict=True)]
        rows = [*rows[:shown], [f"({len(rest):,} more)", *totals[1:]]]
    cells = [[_cell(value, column) for value, column in zip(row, columns, strict=True)] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    texts = [isinstance(value, str) for value in rows[0]] if rows else [True] * len(columns)
    lines = [
        "  ".join(cell.ljust(n) if text else cell.rjust(n) for cell, n, text in zip(line, widths, texts, strict=True))
        for line in (columns, *cells)
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _cell(value: object, column: str) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value / 1e6:,.2f}" if column.startswith("MB") else f"{value:,}"
    text = visible(str(value)) or "(none)"
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _rows(rows: Sequence[Row], *keys: str) -> list[list[object]]:
    return [[row[key] for key in keys] for row in rows]


def _mb(row: Row) -> str:
    return f"{row['bytes'] / 1e6:,.2f}"
