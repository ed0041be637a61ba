"""`starcoder trace calibrate`: how often code that people wrote by themselves triggers each level of the verdict.

The measure of a verdict is what it says of the innocent. The corpus holds whole repositories out for validation, and
none of their files is a near-duplicate of a training document: snippets of them are traced like any other text. Half of
these repositories, by a hash of their names, is not measured but left to whoever chooses `Thresholds`: a measure on
what they were fitted to would flatter them.
"""

import hashlib
import json
from bisect import insort
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

from tqdm import tqdm

from starcoder.attribution.corpus import Corpus
from starcoder.attribution.index import Index
from starcoder.attribution.tracer import Tracer
from starcoder.attribution.verdict import LEVELS, Level, Thresholds, judge
from starcoder.corpus.document import Document, read_documents
from starcoder.corpus.sampling import random_key
from starcoder.errors import UserError, one_line
from starcoder.storage import atomic_file
from starcoder.text import shown

FILE = "calibration.json"
FORMAT = 2
LENGTHS = (300, 1000, 3000)
"""Characters of snippets; a longer text has more chances to hold somebody's words."""
_ANY = ""


@dataclass(frozen=True)
class Row:
    """What snippets of a language and a length came to.

    Attributes:
        language: Key of the language table; empty for all languages together.
        characters: Length that the snippets have at least; they end with a line.
        levels: How many came to each level.
    """

    language: str
    characters: int
    levels: Mapping[Level, int]

    @property
    def snippets(self) -> int:
        """How many there are."""
        return sum(self.levels.values())

    def reaching(self, level: Level) -> int:
        """How many came to a level or a higher one."""
        return sum(self.levels.get(each, 0) for each in LEVELS[LEVELS.index(level) :])


@dataclass(frozen=True)
class Calibration:
    """The content of `calibration.json`.

    Attributes:
        index: Digest of the index's version, which it was measured with.
        thresholds: Those of the levels.
        chosen: How snippets were chosen: the most of a kind, the least for a row, and the seed.
        repositories: How many the snippets are from.
        rows: One for each language and length, and for each length.
    """

    index: str
    thresholds: Thresholds
    chosen: tuple[int, int, int]
    repositories: int
    rows: tuple[Row, ...]

    def frequency(self, level: Level, language: str | None, characters: int) -> str:
        """How often people's own code comes to a level, for a text of this language and length, in words."""
        row = self._row(language, characters)
        longer = " (longer ones were not measured)" if characters > 2 * row.characters else ""
        kind = f"human {row.language or 'code'} snippets of about {row.characters:,} characters{longer}"
        held_out = f"of {row.snippets:,} from {self.repositories:,} repositories held out"
        if level == "nothing":
            return f"in {row.levels.get(level, 0):,} {held_out}, {kind}, nothing was found either"
        count = row.reaching(level)
        if not count:
            return f"no {kind} came to this level (0 {held_out})"
        return f"1 in {row.snippets / count:.3g} {kind} comes to this level ({count:,} {held_out})"

    def _row(self, language: str | None, characters: int) -> Row:
        """That of the language, if it was measured, and of the nearest length."""
        rows = [row for row in self.rows if row.language == language] or [r for r in self.rows if r.language == _ANY]
        return min(rows, key=lambda row: max(row.characters, characters) / max(1, min(row.characters, characters)))

    def write(self, folder: Path) -> None:
        """Write it into the folder of its index."""
        with atomic_file(folder / FILE) as partial:
            partial.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, index: Index) -> Self | None:
        """That of an index; None when there is none, or one of another state of the index or of other thresholds.

        Raises:
            UserError: It is damaged.
        """
        path = index.folder / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                return None
            rows = tuple(Row(**row) for row in content.pop("rows"))
            thresholds, chosen = Thresholds(**content.pop("thresholds")), tuple(content.pop("chosen"))
            calibration = cls(rows=rows, thresholds=thresholds, chosen=chosen, **content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{shown(path)} is damaged ({one_line(error)}): {_again(index.folder)}") from None
        current = calibration.index == _digest(index) and calibration.thresholds == Thresholds()
        return calibration if current else None


def frequency(index: Index, level: Level, language: str | None, characters: int) -> str:
    """What `Calibration.frequency` says, or that there is no calibration of the index."""
    calibration = Calibration.read(index)
    if calibration is None:
        return f"how often human code comes to this level is not measured: {_again(index.folder)}"
    return calibration.frequency(level, language, characters)


def calibrate(index: Path = Path("build/trace"), snippets: int = 40, least: int = 10, seed: int = 0) -> None:
    """Measure how often code of held-out repositories triggers each level, and keep it in the index.

    What was measured so, and of this state of the index, is printed without measuring it again.

    Args:
        index: Folder that `starcoder trace index` wrote.
        snippets: Most snippets of one language and length; no file gives two of the same length.
        least: A language of fewer snippets has no row of its own; they count among all.
        seed: Seed of the choice of files and places.

    Raises:
        UserError: There is no index, it is stale, or the corpus holds no repository out.
    """
    if snippets < 1 or least < 1:
        raise UserError("--snippets and --least are at least 1")
    opened = Index.open(index)
    earlier = _earlier(opened)
    if earlier and earlier.chosen == (snippets, least, seed):
        print(table(earlier))
        return
    chosen = _chosen(opened.corpus, snippets, seed)
    if not chosen:
        folder = shown(opened.corpus.folder)
        raise UserError(f"{folder} holds no repository out that is measured: build it with a larger --validation_share")
    calibration = Calibration(
        _digest(opened),
        Thresholds(),
        (snippets, least, seed),
        len({each.repository for each in chosen}),
        tuple(_rows(_levels(opened, chosen), least)),
    )
    calibration.write(index)
    print(table(calibration))


def _earlier(index: Index) -> Calibration | None:
    """The calibration of an index; None when it is damaged, too."""
    with suppress(UserError):
        return Calibration.read(index)
    return None


def table(calibration: Calibration) -> str:
    """The rows as text: the share of snippets that come to each level or a higher one."""
    lines = [f"{'language':<16} {'characters':>10} {'snippets':>8} {'similar':>8} {'partial':>8} {'verbatim':>8}"]
    for row in calibration.rows:
        shares = " ".join(f"{row.reaching(level) / row.snippets:>8.1%}" for level in LEVELS[1:])
        lines.append(f"{row.language or 'all':<16} {row.characters:>10,} {row.snippets:>8,} {shares}")
    return "\n".join(lines)


class _Snippet(NamedTuple):
    """A snippet of a document, before all with a greater key."""

    key: bytes
    name: str
    repository: str
    language: str
    length: int
    text: str


def measured(repository: str) -> bool:
    """Whether a repository is in the half that is measured; on the other one thresholds may be chosen."""
    return random_key(0, repository)[-1] % 2 == 0


def _chosen(corpus: Corpus, most: int, seed: int) -> list[_Snippet]:
    """The snippets of random files, so many for each language and length; no more of them are in memory."""
    found: dict[tuple[str, int], list[_Snippet]] = defaultdict(list)
    known = corpus.repositories  # of a corpus of one repository, files are held out
    for document in read_documents(corpus.folder, "validation"):
        if document.repository in known or not measured(document.repository):
            continue
        key = random_key(seed, document.name)
        for length in LENGTHS if document.kind == "code" else ():
            taken = found[document.language, length]
            if (len(taken) < most or key < taken[-1].key) and (text := snippet(document, length, seed)):
                insort(taken, _Snippet(key, document.name, document.repository, document.language, length, text))
                del taken[most:]
    return [each for taken in found.values() for each in taken]


def snippet(document: Document, length: int, seed: int) -> str:
    """Lines of a document from a random one on, of at least so many characters together; empty if it is shorter."""
    lines = document.content.splitlines(keepends=True)
    starts, reached = [], 0
    for number in range(len(lines) - 1, -1, -1):
        reached += len(lines[number])
        if reached >= length:
            starts.append(number)
    if not starts:
        return ""
    first = starts[int.from_bytes(random_key(seed, f"{length} {document.name}")) % len(starts)]
    text = ""
    for line in lines[first:]:
        text += line
        if len(text) >= length:
            break
    return text


def _levels(index: Index, chosen: Sequence[_Snippet]) -> Iterator[tuple[str, int, Level]]:
    tracer = Tracer(index)
    for each in tqdm(chosen, "snippets", disable=None):
        yield each.language, each.length, judge(tracer.trace(each.text)).level


def _rows(levels: Iterator[tuple[str, int, Level]], least: int) -> Iterator[Row]:
    counts: dict[tuple[str, int], dict[Level, int]] = defaultdict(lambda: dict.fromkeys(LEVELS, 0))
    for language, length, level in levels:
        for key in (language, _ANY):
            counts[key, length][level] += 1
    for language, length in sorted(counts):
        row = Row(language, length, counts[language, length])
        if language == _ANY or row.snippets >= least:
            yield row


def _digest(index: Index) -> str:
    return hashlib.sha256(index.manifest.made_of.encode()).hexdigest()


def _again(folder: Path) -> str:
    return f"run `starcoder trace calibrate {shown(folder)}`"
