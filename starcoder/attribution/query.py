"""`starcoder trace query`: which files of the corpus a text comes from, and what it takes to ship it (paper §8)."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Literal

from starcoder.attribution.calibration import frequency
from starcoder.attribution.index import Index
from starcoder.attribution.report import as_json, as_text
from starcoder.attribution.trace import Match
from starcoder.attribution.tracer import LONGEST, Tracer
from starcoder.attribution.verdict import LEVELS, judge
from starcoder.corpus.document import Rejection
from starcoder.corpus.filters import decode
from starcoder.corpus.languages import THRESHOLDS, language_of
from starcoder.corpus.licenses import accepted_licenses
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError
from starcoder.storage import atomic_file
from starcoder.text import shown

_MOST_BYTES = 4 * LONGEST  # of UTF-8


class Copied(UserError):  # noqa: N818  # nobody has erred
    """The verdict is at the level that was asked about: the exit code tells hooks and CI so."""

    code = 1


def query(
    file: Path,
    index: Path = Path("build/trace"),
    format: Literal["text", "json"] = "text",
    output: Path | None = None,
    html: Path | None = None,
    language: str | None = None,
    license: str | None = None,
    repository: str | None = None,
    k: int = 10,
    opt_out: Path | None = None,
    fail_on: Literal["verbatim", "partial"] | None = None,
) -> None:
    """Trace a text back to files, repositories and licences of the corpus, and tell what is owed for it.

    Args:
        file: The text, UTF-8; `-` reads it from standard input.
        index: Folder that `starcoder trace index` wrote.
        format: How to report: for reading, or for programs.
        output: File to write the report to, instead of the terminal.
        html: File to write the report to as a page for the browser, too; it needs no server.
        language: Look at documents in this language alone, such as python or c++.
        license: Look at documents under this SPDX id alone.
        repository: Look at this repository alone.
        k: Documents that search proposes for each part of the text, by each of the index's analysers.
        opt_out: A list of owners and repositories; sources that are on it are marked.
        fail_on: Exit with 1 when the verdict is at this level or above, for CI.

    Raises:
        UserError: The text is none, or too long, or the index cannot answer.
        Copied: The verdict is at the level of `fail_on`.
    """
    text = read_text(file)
    opened = Index.open(index)
    _check_filters(opened, language, license, repository)
    listed = OptOut.read(opt_out) if opt_out else None
    trace = Tracer(opened, k, language, license, repository, listed).trace(text)
    verdict = judge(trace)
    stated = language or (language_of(file.name) or (None,))[0]
    told = frequency(opened, verdict.level, stated, len(text))
    if html:
        from starcoder.playground.page import write_page
        from starcoder.playground.tracing import as_found

        write_page(as_found(trace, verdict, told), html)
        print(f"wrote {html}", file=sys.stderr)
    _write({"text": as_text, "json": as_json}[format](trace, verdict, told), output)
    if fail_on and LEVELS.index(verdict.level) >= LEVELS.index(fail_on):
        raise Copied(f"{file}: {verdict.reason}")


def tell(index: Index, text: str, model: Sequence[tuple[int, float]] | None = None) -> str:
    """The report on a text that a model has written.

    The verdict is by the surprise of the corpus, as it was calibrated. What a model has learned by heart does not
    surprise it at all: that is told besides.

    Args:
        index: What to trace it in.
        text: The text.
        model: Of each of the model's tokens the character of the text at which it begins, and the natural logarithm of
            the probability that the model gave it; none where these are not known.
    """
    if not text.strip():
        return "nothing to trace\n"
    trace = Tracer(index).trace(text)
    if model is not None:
        trace = replace(trace, matches=tuple(replace(match, to_model=_bits(match, model)) for match in trace.matches))
    verdict = judge(trace)
    return as_text(trace, verdict, frequency(index, verdict.level, None, len(text)))


def _bits(match: Match, model: Sequence[tuple[int, float]]) -> float:
    """What the tokens that begin in a match were to the model."""
    return sum(-logprob for start, logprob in model if match.start <= start < match.end) / log(2)


def read_text(file: Path) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        UserError: It cannot be read, or is no text.
    """
    name = "the standard input" if file == Path("-") else str(file)
    try:
        with sys.stdin.buffer if file == Path("-") else file.open("rb") as source:
            data = source.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > _MOST_BYTES:
        raise UserError(f"{name} has more than {_MOST_BYTES:,} bytes: trace at most {LONGEST:,} characters at a time")
    text = decode(data)
    if isinstance(text, Rejection):
        raise UserError(f"{name} is {text.reason}{f' ({text.detail})' if text.detail else ''}: name a text in UTF-8")
    return text


def _check_filters(index: Index, language: str | None, license: str | None, repository: str | None) -> None:
    """Refuse what no document can have: a slip of the pen would find nothing, and let everything pass."""
    if language is not None and language not in {name for name, _ in THRESHOLDS}:
        raise UserError(f"no language {language!r}: name one as corpora do, such as python or c++")
    if license is not None:
        accepted_licenses([license])
    if repository is not None and repository not in index.corpus.repositories:
        raise UserError(f"nothing of {repository!r} is in {shown(index.corpus.folder)}: spell it as reports do")


def _write(report: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(report)
        return
    with atomic_file(output) as partial:
        partial.write_text(report, encoding="utf-8")
    print(f"wrote {output}")
