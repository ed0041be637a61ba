"""The verdict on a traced text: how much of it is somebody's, and what one owes them for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from starcoder.attribution.obligations import asks
from starcoder.attribution.trace import Match, Source, Trace

Level = Literal["nothing", "similar", "partial", "verbatim"]
LEVELS: tuple[Level, ...] = ("nothing", "similar", "partial", "verbatim")
"""From the least to the most."""
TITLES: Mapping[Level, str] = {
    "nothing": "NOTHING FOUND",
    "similar": "ONLY SIMILAR",
    "partial": "PARTIAL",
    "verbatim": "VERBATIM AND RARE",
}


@dataclass(frozen=True)
class Thresholds:
    """What each level takes at least.

    The bits are the least multiples of 50 at which, of a corpus of installed packages, no more than 1 in 45 snippets of
    300 and of 1,000 characters come to "verbatim" and no more than 3 in 45 to "partial" or above; the snippets are of
    the half of the held-out repositories that `starcoder trace calibrate` does not measure. Some come that far though
    nobody copied from the corpus: code is vendored and ported back, and what the same program generates stands in many
    a repository of which the corpus has one. Of snippets that the corpus itself has, 300 characters at any place, 8 in
    10 come to "verbatim" and 9 in 10 to "partial"; the others are imports, headers, and what is generated or plain.

    Attributes:
        verbatim: Bits of one match, surprise × rarity.
        verbatim_tokens: Tokens of the same match.
        partial: Bits of one match.
        similar: Overlap of one document.
    """

    verbatim: float = 300.0
    verbatim_tokens: int = 30
    partial: float = 150.0
    similar: float = 0.5


@dataclass(frozen=True)
class Owed:
    """What the use of one document takes.

    Attributes:
        source: The document, with the lines of its first match.
        lines: All lines of it that stand in the text: first and last of each stretch, in their order.
        asks: What each of its licences asks for, by SPDX id.
    """

    source: Source
    lines: tuple[tuple[int, int], ...]
    asks: dict[str, str]


@dataclass(frozen=True)
class Verdict:
    """The verdict.

    Attributes:
        level: How much of the text is somebody's.
        reason: The finding that decides it, in words.
        weighty: How many of the trace's matches, which are in the order of their weight, count.
        share: Share of the text's characters that they cover, 0 to 1.
        owed: What to do before the text is shipped; nothing for the two lower levels.
    """

    level: Level
    reason: str
    weighty: int
    share: float
    owed: tuple[Owed, ...]


def judge(trace: Trace, thresholds: Thresholds | None = None) -> Verdict:
    """The verdict on a trace.

    Every match of at least the bits of "partial" is owed for: of each, one source, and that of another match if it has
    that, too, so that as few documents as possible explain the text.
    """
    limits = thresholds or Thresholds()
    heavy = [match for match in trace.matches if match.score >= limits.partial]
    whole = [match for match in heavy if match.score >= limits.verbatim and match.tokens >= limits.verbatim_tokens]
    if heavy:
        level: Level = "verbatim" if whole else "partial"
        return Verdict(level, _reason((whole or heavy)[0]), len(heavy), _share(trace.text, heavy), _owed(heavy))
    if trace.similar and trace.similar[0].overlap >= limits.similar:
        best = trace.similar[0]
        return Verdict("similar", f"{best.overlap:.0%} of its short runs of tokens stand in one document", 0, 0.0, ())
    return Verdict("nothing", f"no part of it that is long and rare stands in {trace.scope}", 0, 0.0, ())


def _reason(match: Match) -> str:
    repositories = len({source.repository for source in match.sources})
    least = "at least " if match.count > len(match.sources) else ""
    where = least + ("one repository" if repositories == 1 else f"{repositories} repositories")
    lines = spoken(match.lines)
    return f"{lines}, {match.tokens:,} tokens and {match.score:,.0f} bits, stand word for word in {where}"


def _share(text: str, matches: Sequence[Match]) -> float:
    covered = reached = 0
    for match in sorted(matches, key=lambda match: match.start):
        covered += max(0, match.end - max(reached, match.start))
        reached = max(reached, match.end)
    return covered / len(text)


def spoken(lines: tuple[int, int]) -> str:
    """Lines in words."""
    return f"line {lines[0]}" if lines[0] == lines[1] else f"lines {lines[0]}-{lines[1]}"


def _owed(matches: Sequence[Match]) -> tuple[Owed, ...]:
    """Each source once, in the order of the matches, with all lines that are taken from it."""
    chosen: dict[tuple[str, str], Source] = {}
    lines: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for match in matches:
        known = [source for source in match.sources if _key(source) in chosen]
        for source in (known or match.sources)[:1]:
            chosen.setdefault(_key(source), source)
            lines.setdefault(_key(source), set()).add(source.lines)
    return tuple(
        Owed(source, _joined(lines[key]), {name: asks(name) for name in source.licenses})
        for key, source in chosen.items()
    )


def _key(source: Source) -> tuple[str, str]:
    return source.repository, source.path


def _joined(stretches: set[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Stretches of lines, those that touch or overlap as one."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(stretches):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return tuple(joined)
