"""A trace as people read it, and as programs do."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from starcoder.attribution.trace import Match, Similar, Source, Trace
from starcoder.attribution.verdict import TITLES, Verdict, spoken
from starcoder.text import visible

SCHEMA = 1
"""Version of the JSON report; a change that a reader would notice counts it up."""
_AROUND = 2  # lines that are shown around a marked one
_MOST = 3  # sources shown of a match
_ALIKE = 0.05  # overlap of a document that is shown: any code has some with any other
_WIDTH = 100


def as_json(trace: Trace, verdict: Verdict, frequency: str) -> str:
    """The report for programs: everything that was found, but for the text itself."""
    found = asdict(trace)
    del found["text"]
    for key in ("matches", "aside"):
        for row, match in zip(found[key], getattr(trace, key), strict=True):
            row["score"] = match.score
    content = {"schema": SCHEMA, "verdict": asdict(verdict), "calibration": frequency, **found}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def as_text(trace: Trace, verdict: Verdict, frequency: str) -> str:
    """The report for reading: the verdict, the marked text, the sources below, and what is owed to whom."""
    parts = [[f"{TITLES[verdict.level]}: {verdict.reason}", f"  {frequency}"]]
    weighty = trace.matches[: verdict.weighty]
    if weighty:
        parts.append(list(_marked(trace.text, weighty)))
        parts += [list(_match(number, match)) for number, match in enumerate(weighty, 1)]
    parts.append(list(_rest(trace, verdict)))
    similar = [each for each in trace.similar[:_MOST] if each.overlap >= _ALIKE]
    if not weighty and similar:
        parts.append(["similar documents:", *(f"  {_similar(each)}" for each in similar)])
    if verdict.owed:
        parts.append(list(_owed(verdict)))
    return "\n\n".join("\n".join(lines) for lines in parts if lines) + "\n"


def _marked(text: str, matches: Sequence[Match]) -> Iterator[str]:
    """The lines of the text in which matches stand and some around them, numbered, with the matches' numbers."""
    lines = text.split("\n")
    marks: dict[int, list[int]] = {}
    for number, match in enumerate(matches, 1):
        for line in range(match.lines[0], match.lines[1] + 1):
            marks.setdefault(line, []).append(number)
    shown = {line for mark in marks for line in range(mark - _AROUND, mark + _AROUND + 1) if 1 <= line <= len(lines)}
    labels = {line: "[" + ",".join(map(str, sorted(numbers))) + "]" for line, numbers in marks.items()}
    width, gutter = len(str(max(shown))), max(map(len, labels.values()))
    before = 0
    for line in sorted(shown):
        if line != before + 1:
            yield f"  {'':{width}} {'':{gutter}} ⋮"
        bar = "┃" if line in marks else " "
        yield f"  {line:>{width}} {labels.get(line, ''):<{gutter}} {bar} {_cut(lines[line - 1])}".rstrip()
        before = line
    if before < len(lines):
        yield f"  {'':{width}} {'':{gutter}} ⋮"


def _match(number: int, match: Match) -> Iterator[str]:
    places = "one place" if match.count == 1 else f"{match.count:,} places"
    model = "" if match.to_model is None else f"; {match.to_model:,.0f} bits to the model"
    yield (
        f"[{number}] {spoken(match.lines)}: {match.tokens:,} tokens, {match.surprise:,.0f} bits of surprise × "
        f"{match.rarity:.2f} rarity = {match.score:,.0f}; at {places}{model}"
    )
    yield from (f"    {_source(source)}" for source in match.sources[:_MOST])
    if len(match.sources) > _MOST:
        yield f"    and {len(match.sources) - _MOST:,} more"


def _source(source: Source) -> str:
    first, last = source.lines
    place = f"{source.repository}/{source.path}:{first}" + (f"-{last}" if last != first else "")
    notes = [f"{source.copies - 1:,} duplicates of it were left out"] if source.copies > 1 else []
    if source.opted_out is not None:
        notes.append("OPTED OUT" if source.opted_out else "not opted out")
    return visible(f"{_licenses(source)}  {place}") + (f"  ({'; '.join(notes)})" if notes else "")


def _licenses(source: Source) -> str:
    return " AND ".join(source.licenses) or "no licence known"


def _rest(trace: Trace, verdict: Verdict) -> Iterator[str]:
    """What else was seen: what was set aside, what is too light, and the membership test's chains."""
    light = len(trace.matches) - verdict.weighty
    if light:
        yield f"not counted: {light:,} {'match' if light == 1 else 'matches'} too short or too common to tell anything"
    for match in trace.aside:
        yield f"set aside: {spoken(match.lines)}, {match.aside}"
    if trace.chains:
        lines = ", ".join(spoken(chain.lines) for chain in trace.chains[:5])
        more = f" and {len(trace.chains) - 5:,} more" if len(trace.chains) > 5 else ""
        count = "1 chain" if len(trace.chains) == 1 else f"{len(trace.chains):,} chains"
        yield f"membership test: {count} of known windows, at {lines}{more}"
    else:
        yield "membership test: no window of 50 characters is known"
    if trace.matches:
        own = any(match.to_model is not None for match in trace.matches)
        model = "; to the model by its own probabilities, and what it recites has few bits" if own else ""
        yield f"surprise: by how often the corpus has each token after the one before{model}"


def _similar(similar: Similar) -> str:
    source = similar.source
    return visible(f"{similar.overlap:.0%} overlap  {_licenses(source)}  {source.repository}/{source.path}")


def _owed(verdict: Verdict) -> Iterator[str]:
    yield "To ship this text you owe attribution to"
    for owed in verdict.owed:
        source = owed.source
        at = f" at {source.commit[:12]}" if source.commit else ""
        places = ", ".join(map(spoken, owed.lines))
        yield visible(f"  {source.repository}{at} ({_licenses(source)}): {source.path}, {places}")
        if source.opted_out:
            yield "    its owner opted out: do not ship it"
        yield from _asked(owed.asks.items())


def _asked(asks: Iterable[tuple[str, str]]) -> Iterator[str]:
    rows = list(asks)
    for license_id, words in rows:
        yield visible(f"    {f'{license_id}: ' if len(rows) > 1 else ''}{words}")
    if not rows:
        yield "    no licence is known: ask its author"


def _cut(line: str) -> str:
    line = visible(line.expandtabs(4).rstrip())
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
