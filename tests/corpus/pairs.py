"""Labelled pairs for near-deduplication: real files beside copies that were changed as people change them.

The label is the true Jaccard similarity, from Python's sets of tuples of words. A kind of change tells what was done to
the copy, not what it became: a few renamed identifiers can leave little of a file that is full of them.
"""

import keyword
import random
import re
import sysconfig
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from starcoder.corpus.dedup import shingles, signatures, stars

_PACKAGES = Path(sysconfig.get_path("purelib"))
_HEADER = """\
# This file belongs to a collection of small programs that were written to be read. Whoever finds it useful can take
# it, change it and pass it on, alone or inside of something larger, as long as these lines stay where they are and no
# one is told that we have checked the result. It comes as it is: nobody promises that it runs, that it goes on to run,
# or that it does what its name says; if it loses your data, your time or your good mood, then that is between you and
# your backup. Questions are welcome on the mailing list, where somebody usually answers within a week; patches are
# more welcome than questions, and a patch with a test is read first.
"""


@cache
def word_windows(text: str) -> frozenset[tuple[str, ...]]:
    """The reference: the set of windows of five words; a text of fewer words is its only member."""
    words = re.findall(r"[A-Za-z0-9_]+", text)
    return frozenset(tuple(words[n : n + 5]) for n in range(len(words) - 4)) or frozenset([(text,)])


def true_similarity(a: str, b: str) -> float:
    """The Jaccard similarity of two texts, by Python's sets."""
    return len(word_windows(a) & word_windows(b)) / len(word_windows(a) | word_windows(b))


@dataclass(frozen=True)
class Pair:
    """Two texts, and what was done to the second."""

    kind: str
    a: str
    b: str

    @cached_property
    def similarity(self) -> float:
        return true_similarity(self.a, self.b)


Change = Callable[[str, str, random.Random], tuple[str, str]]


def labelled_pairs(count: int) -> list[Pair]:
    """`count` pairs of each kind, the same ones each time; forks are as many as there are, up to `count`."""
    files = _files(count)
    pairs = list(_forks())[:count]
    for kind, change in CHANGES.items():
        for number, path in enumerate(files):
            draw = random.Random(f"{kind} {number}")
            other = draw.choice([file for file in files if file != path])
            pairs.append(Pair(kind, *change(path.read_text(), other.read_text(), draw)))
    return pairs + [Pair("neighbours", a.read_text(), b.read_text()) for a, b in _neighbours(count)]


def candidates(pairs: Sequence[Pair]) -> list[bool]:
    """Which pairs LSH alone calls duplicates: a band of their signatures is equal."""
    firsts, seconds = (signatures([shingles(text) for text in texts]) for texts in _columns(pairs))
    return [bool(equal) for equal in (firsts == seconds).all(axis=2).any(axis=1)]


def verified(pairs: Sequence[Pair]) -> list[bool]:
    """Which pairs are duplicates for us: candidates of which the star of one takes the other."""
    return [
        candidate and stars([shingles(pair.a), shingles(pair.b)])[1] is not None
        for pair, candidate in zip(pairs, candidates(pairs), strict=True)
    ]


def chains(texts: Sequence[str]) -> list[list[int]]:
    """The clusters of texts that LSH makes: whoever shares a band with one of them is in it."""
    cluster = list(range(len(texts)))
    members = {place: [place] for place in cluster}
    first: dict[tuple[int, bytes], int] = {}
    for place, bands in enumerate(signatures([shingles(text) for text in texts])):
        for number, band in enumerate(bands):
            a, b = cluster[place], cluster[first.setdefault((number, band.tobytes()), place)]
            if a != b:
                for moved in members[b]:
                    cluster[moved] = a
                members[a] += members.pop(b)
    return [sorted(places) for places in members.values()]


def _columns(pairs: Sequence[Pair]) -> tuple[list[str], list[str]]:
    return [pair.a for pair in pairs], [pair.b for pair in pairs]


def _files(count: int) -> list[Path]:
    """Python files of the installed packages, short enough to be compared quickly, in random order."""
    found = sorted(path for path in _PACKAGES.glob("*/*/*.py") if 2000 < path.stat().st_size < 15_000)
    random.Random(0).shuffle(found)
    readable = [path for path in found[: 2 * count] if _is_text(path)]
    return readable[:count]


def _is_text(path: Path) -> bool:
    try:
        return bool(path.read_text())
    except UnicodeDecodeError:
        return False


def _neighbours(count: int) -> Iterator[tuple[Path, Path]]:
    """Files of the same folder, a pair from each."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in _files(10 * count):
        folders[path.parent].append(path)
    yield from [(files[0], files[1]) for files in folders.values() if len(files) > 1][:count]


def _forks() -> Iterator[Pair]:
    """Real near-copies: two distributions that ship almost the same files."""
    a, b = _PACKAGES / "lightning/pytorch", _PACKAGES / "pytorch_lightning"
    for path in sorted(b.rglob("*.py")):
        twin = a / path.relative_to(b)
        if twin.is_file() and twin.stat().st_size > 500:
            yield Pair("forks", twin.read_text(), path.read_text())


def _identifiers(text: str) -> list[str]:
    return sorted(set(re.findall(r"\b[A-Za-z_]\w{3,}\b", text)) - set(keyword.kwlist))


def _rename(text: str, names: Sequence[str]) -> str:
    chosen = set(names)
    return re.sub(r"\w+", lambda found: f"my_{found[0]}" if found[0] in chosen else found[0], text)


def _rename_share(share: float) -> Change:
    def change(text: str, other: str, draw: random.Random) -> tuple[str, str]:
        names = _identifiers(text)
        return text, _rename(text, draw.sample(names, max(1, int(share * len(names)))))

    return change


def _rename_function(text: str, other: str, draw: random.Random) -> tuple[str, str]:
    functions = sorted(set(re.findall(r"def (\w+)\(", text))) or _identifiers(text)
    return text, _rename(text, [draw.choice(functions)])


def _reformat(text: str, other: str, draw: random.Random) -> tuple[str, str]:
    """Tabs, a line for each argument, and no spaces around operators."""
    tabs = re.sub(r"(?m)^(?:    )+", lambda found: "\t" * (len(found[0]) // 4), text)
    return text, re.sub(r" ([=+\-*/<>]+) ", r"\1", re.sub(r", (?=\w)", ",\n\t\t", tabs))


def _strip_comments(text: str, other: str, draw: random.Random) -> tuple[str, str]:
    return text, re.sub(r"(?m)^\s*#.*\n", "", text)


def _add_header(text: str, other: str, draw: random.Random) -> tuple[str, str]:
    return text, _HEADER + text


def _edit(text: str, other: str, draw: random.Random) -> tuple[str, str]:
    """Another program's line instead of one in forty."""
    lines, foreign = text.splitlines(), other.splitlines()
    for place in draw.sample(range(len(lines)), max(1, len(lines) // 40)):
        lines[place] = draw.choice(foreign)
    return text, "\n".join(lines)


def _append(text: str, other: str, draw: random.Random) -> tuple[str, str]:
    return text, "\n".join([text, *other.splitlines()[: draw.randint(1, 10)]])


def _mix_halves(text: str, other: str, draw: random.Random) -> tuple[str, str]:
    """The first half of one file and the second of another, by lines, beside the first file."""
    mine, theirs = text.splitlines(), other.splitlines()
    return text, "\n".join([*mine[: len(mine) // 2], *theirs[len(theirs) // 2 :]])


def _share_header(text: str, other: str, draw: random.Random) -> tuple[str, str]:
    """The same long header over few words of two files."""
    words = draw.randint(20, 120)
    a, b = (" ".join(body.split()[-words:]) for body in (text, other))
    return _HEADER + a, _HEADER + b


CHANGES: dict[str, Change] = {
    "copied": lambda text, other, draw: (text, text),
    "reformatted": _reformat,
    "comments stripped": _strip_comments,
    "header added": _add_header,
    "lines appended": _append,
    "lines edited": _edit,
    "function renamed": _rename_function,
    "2 % renamed": _rename_share(0.02),
    "5 % renamed": _rename_share(0.05),
    "40 % renamed": _rename_share(0.4),
    "halves mixed": _mix_halves,
    "header shared": _share_header,
}
KINDS = ("forks", *CHANGES, "neighbours")
