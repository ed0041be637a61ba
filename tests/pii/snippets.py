"""360 snippets of the packages that the lock installs, labelled by hand by the rules of `labels.md`.

`labels.jsonl` names each snippet by distribution, path, lines and hash, and holds its labels, not its text: that is
read from the installed packages. `python -m tests.pii.snippets FILE` draws the sample anew: strata by words that a line
holds, so that there is something to label; no detector has a say in it.
"""

import hashlib
import json
import random
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, distributions
from itertools import islice
from pathlib import Path
from typing import Any

LABELS = Path(__file__).with_name("labels.jsonl")
LINES = 30
CPYTHON = "cpython"
_STRATA = {
    "address": (r"\w@\w", 50),
    "number": (r"\d+\.\d+\.\d+\.\d+|[0-9a-f]{1,4}::?[0-9a-f]{1,4}:", 40),
    "secret": (r"(?i)password|passwd|\bpwd\b|secret|api_?key|credential|auth_token", 55),
    "author": (r"(?i)author|copyright|maintainer|contributed|thanks to|written by|patch by", 50),
    "long": (r"[A-Za-z0-9+/_=-]{32,}", 30),
    "user": (r"(?i)user_?name|login|/home/|/Users/|owner", 25),
    "any": (r"", 50),
}
_RARE = {  # drawn after them, or else keys and passwords would be too few to judge anything by
    "assigned": (r"(?i)(password|passwd|pwd|secret|token|api_?key)\w*[\"']?\s*[:=]\s*[\"'][^\"']{3,}[\"']", 40),
    "credential": (r"://[^/\s:@]+:[^/\s@]+@|\bAKIA|\bgh[pousr]_\w|\beyJ|BEGIN [A-Z ]*PRIVATE KEY|\bsk[-_]\w{9}", 20),
}
_LEFT_OUT = {"starcoder-kit", "pip", "setuptools"}  # ourselves, and what the lock does not name
_SUFFIX = re.compile(
    r"\.(c|cfg|css|h|html|ini|js|json|md|pem|ps1|pyi?|rst|sh|sql|toml|ts|txt|xml|ya?ml)", re.IGNORECASE
)
_MOST_OF_ONE = {CPYTHON: 60}  # snippets of a distribution; of others 8
_MOST_CHARACTERS = 3_000


@dataclass(frozen=True)
class Snippet:
    """A labelled text: `fragments` as in the public PII data set, each with a category and a position."""

    id: int
    text: str
    language: str
    fragments: list[dict[str, Any]]


def load() -> tuple[list[Snippet], list[int]]:
    """The labelled snippets that the installed packages still have, and the ids of those that they lack."""
    found, missing = [], []
    for line in LABELS.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        text = _locate(row)
        if text is None:
            missing.append(row["id"])
        else:
            found.append(Snippet(row["id"], text, row["language"], row["fragments"]))
    return found, missing


def _locate(row: dict[str, Any]) -> str | None:
    """The text of a row; in another version of its file it may have moved."""
    root = _root(row["distribution"])
    try:
        lines = (root / row["path"]).read_text(encoding="utf-8").splitlines(keepends=True) if root else []
    except (OSError, UnicodeDecodeError):
        return None
    places = sorted(range(len(lines)), key=lambda place: abs(place - row["line"] + 1))
    texts = ("".join(lines[place : place + row["lines"]]) for place in places)
    return next((text for text in texts if _digest(text) == row["sha256"]), None)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _root(name: str) -> Path | None:
    if name == CPYTHON:
        return Path(sysconfig.get_path("stdlib"))
    try:
        return Path(str(distribution(name).locate_file("")))
    except PackageNotFoundError:
        return None


def draw(seed: int = 7) -> list[dict[str, Any]]:
    """The sample: rows without labels, in random order."""
    rng = random.Random(seed)
    files = sorted(_files())
    rng.shuffle(files)
    taken: Counter[str] = Counter()
    drawn: dict[str, dict[str, Any]] = {}
    for strata in (_STRATA, _RARE):
        rows: dict[str, dict[str, Any]] = {}
        for stratum, (words, count) in strata.items():
            matching = _matching(files, re.compile(words), taken, rng)
            for row in islice((row for row in matching if row["sha256"] not in drawn | rows), count):
                taken[row["distribution"]] += 1
                rows[row["sha256"]] = row | {"stratum": stratum}
        shuffled = list(rows)
        rng.shuffle(shuffled)
        drawn |= {name: rows[name] for name in shuffled}
    return [{"id": number} | row for number, row in enumerate(drawn.values())]


def _files() -> Iterator[tuple[str, str]]:
    for found in distributions():
        for path in found.files or ():
            if _SUFFIX.fullmatch(path.suffix) and ".." not in path.parts and found.name not in _LEFT_OUT:
                yield found.name, str(path)
    root = Path(sysconfig.get_path("stdlib"))
    for file in root.rglob("*"):
        if _SUFFIX.fullmatch(file.suffix) and "site-packages" not in file.parts:
            yield CPYTHON, str(file.relative_to(root))


def _matching(
    files: list[tuple[str, str]], words: re.Pattern[str], taken: Counter[str], rng: random.Random
) -> Iterator[dict[str, Any]]:
    for name, path in rng.sample(files, len(files)):
        root = _root(name)
        if root is None or taken[name] >= _MOST_OF_ONE.get(name, 8):
            continue
        try:
            lines = (root / path).read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, UnicodeDecodeError):
            continue
        hits = [number for number, line in enumerate(lines) if words.search(line)]
        if not hits:
            continue
        start = max(0, rng.choice(hits) - rng.randrange(LINES))
        text = "".join(lines[start : start + LINES])
        if 200 <= len(text) <= _MOST_CHARACTERS:
            count = len(lines[start : start + LINES])
            place = {"distribution": name, "path": path, "line": start + 1, "lines": count, "sha256": _digest(text)}
            yield place | {"language": Path(path).suffix[1:].lower()}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("".join(json.dumps(row) + "\n" for row in draw()), encoding="utf-8")
