"""Examples with known people and secrets: real code, and templates of real places planted in it.

Nothing is on both sides of the split: the repositories of the code, the wording of the templates, the names, words and
domains; some shapes of keys and styles of passwords are in the test alone.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count as counting
from pathlib import Path
from random import Random

from starcoder.errors import UserError
from starcoder.pii.examples import Example
from starcoder.pii.plant import layout
from starcoder.pii.plant.fill import SLOT, Filler, labels_of
from starcoder.pii.plant.hosts import Hosts
from starcoder.pii.plant.sides import Split
from starcoder.pii.plant.stretch import Stretch
from starcoder.pii.plant.table import chosen, table

# How often a label is asked for; a template that has it brings others along.
_WANTED = {
    "NAME": 14,
    "NAME_LICENSE": 8,
    "EMAIL": 14,
    "EMAIL_LICENSE": 3,
    "USERNAME": 14,
    "USERNAME_LICENSE": 1,
    "KEY": 18,
    "PASSWORD": 18,
    "IP_ADDRESS": 14,
    "NAME_EXAMPLE": 2,
    "EMAIL_EXAMPLE": 3,
    "USERNAME_EXAMPLE": 2,
    "ID": 1,
    "AMBIGUOUS": 1,
}
_MOST = 6
_NOTHING = 0.33
_SHEET = 0.08
_WORD = re.compile(r"\b[a-z]{4,10}(?=\b|_)")


@dataclass(frozen=True)
class Template:
    """A row of a table.

    Attributes:
        place: Kind of place.
        number: Row among those of its place and split.
        text: With its slots.
        labels: Categories of what it plants, all choices together.
    """

    place: str
    number: int
    text: str
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as "comment-12"; "no-comment-3" plants nothing."""
        return f"{self.place}-{self.number}" if self.labels else f"no-{self.place}-{self.number}"


def generate(corpus: Path, split: Split, count: int, seed: int = 0) -> Iterator[Example]:
    """Yield `count` examples of `split`, the same for the same arguments.

    Each is 15 to 60 lines of one file with what was planted; a third of them has only what looks like it. In about one
    of twelve the lines are 8 to 20 of a configuration file, a log or a list of commits instead.

    Args:
        corpus: A corpus folder; its training documents are planted in.
        split: "train" or "test".
        count: Examples.
        seed: Of all that is drawn.

    Raises:
        UserError: The corpus has too little code of this split, or `count` is negative.
    """
    if count < 0:
        raise UserError(f"cannot make {count} examples: give a number of 0 or more")
    hosts = Hosts(corpus, split)
    for number in range(count):
        random = Random(f"{split} {seed} {number}")
        yield _Planting(split, random).example(hosts, number)


@cache
def templates(split: Split) -> dict[str, dict[str, tuple[Template, ...]]]:
    """Kind of place → category → the templates that plant it; those that plant nothing are under the category ""."""
    found: dict[str, dict[str, tuple[Template, ...]]] = defaultdict(lambda: defaultdict(tuple))
    for place, rows in table(split).items():
        numbers = {True: counting(1), False: counting(1)}
        for text in rows:
            labels = labels_of(text)
            template = Template(place, next(numbers[bool(labels)]), text, labels)
            for label in sorted({*labels}) or [""]:
                found[place][label] += (template,)
    return found


class _Planting:
    """One example in the making."""

    def __init__(self, split: Split, random: Random) -> None:
        self._split: Split = split
        self._random = random
        self._templates = templates(split)
        self._names: list[str] = []
        self._room = 0 if random.random() < _NOTHING else random.choices(range(1, _MOST + 1), [4, 6, 5, 4, 2, 2])[0]

    def example(self, hosts: Hosts, number: int) -> Example:
        words: tuple[str, ...] = ()
        if self._random.random() < _SHEET:
            language = self._random.choice(layout.SHEETS)
            text = "\n".join(self._rows(language, self._random.randint(8, 20), self._room))
        else:
            host = hosts.stretch(self._random)
            language, text = host.language, self._planted(host)
            words = tuple(sorted({*_WORD.findall("\n".join(host.lines))}))
        filled, found = Filler(self._split, self._random, words).fill(text)
        return Example(filled, found, language, "+".join(sorted({*self._names})), number)

    def _planted(self, host: Stretch) -> str:
        """The text of `host` with templates in it."""
        lines = list(host.lines)
        above: dict[int, str] = {}
        places = self._places(host)
        for _ in range(self._random.randint(0 if self._room else 1, 3)):
            self._plant(host, lines, above, places, 0)
        tries = 8
        while self._room and tries:
            self._plant(host, lines, above, places, self._room)
            tries -= 1
        return "\n".join(f"{above[n]}\n{line}" if n in above else line for n, line in enumerate(lines))

    def _places(self, host: Stretch) -> dict[str, int]:
        """Where something can be planted, and how often it should be."""
        comments = host.language in layout.COMMENTS
        weights = {
            "header": 45 if host.top and comments else 0,
            "comment": 30 if comments else 0,
            "tail": 6 if host.tails and comments else 0,
            "note": 8 if host.notes else 0,
            "docstring": 15 if host.docstrings else 0,
            "sheet": 8 if host.language in ("python", "markdown") else 0,
        }
        if statement := layout.STATEMENTS.get(host.language):
            weights[statement] = 60
        return {place: weight for place, weight in weights.items() if weight}

    def _plant(self, host: Stretch, lines: list[str], above: dict[int, str], places: dict[str, int], room: int) -> None:
        """Put one template into `lines` or above one of them; nowhere when it does not fit there."""
        place = self._random.choices(list(places), list(places.values()))[0]
        template = None if place == "sheet" else self._draw(place, room)
        points = [point for point in host.points if layout.fits(template.text if template else "", place, point)]
        if not points or (template is None and place != "sheet") or (template and template.name in self._names):
            return
        point = self._random.choice(points)
        options = {"header": [0], "docstring": list(host.docstrings), "tail": host.tails, "note": host.notes}
        at = self._random.choice(options.get(place, [point.line]))
        if at in above or lines[at] != host.lines[at]:
            return
        if template is None:
            rows = self._rows(self._random.choice(layout.SHEETS), self._random.randint(2, 6), room)
            above[at] = layout.sheet(rows, host.language, point.indent, self._random)
            return
        text = self._instance(template)
        self._room -= len(template.labels)
        if place in ("tail", "note"):
            lines[at] = layout.tail(lines[at], text, host.language) if place == "tail" else lines[at] + text
        else:
            above[at] = self._laid(text, place, host, host.docstrings[at] if place == "docstring" else point.indent)

    def _laid(self, text: str, place: str, host: Stretch, indent: str) -> str:
        """The lines of a template in the syntax of `host`."""
        if place == "header":
            return layout.header(text, host, self._random)
        if place == "comment":
            return layout.commented(text, host.language, indent, self._random)
        return layout.indented(text, "" if text.startswith("#define") else indent)

    def _rows(self, kind: str, count: int, room: int) -> list[str]:
        """Rows of a sheet, some of which plant up to `room` things."""
        neutral = self._templates[kind][""]
        rows = [self._instance(row) for row in self._random.sample(neutral * 2, min(count, 2 * len(neutral)))]
        while room and (template := self._draw(kind, room)):
            room -= len(template.labels)
            self._room -= len(template.labels)
            rows.insert(self._random.randint(0, len(rows)), self._instance(template))
        return rows

    def _draw(self, place: str, room: int) -> Template | None:
        """A template of `place` that plants one to `room` things; one that plants nothing if there is no room."""
        labels = self._templates[place]
        if not room:
            return self._random.choice(labels[""])
        wanted = [label for label in labels if label]
        label = self._random.choices(wanted, [_WANTED[label] for label in wanted])[0]
        fitting = [template for template in labels[label] if len(template.labels) <= room]
        return self._random.choice(fitting) if fitting else None

    def _instance(self, template: Template) -> str:
        """Its text, with slots that speak of other people than another template's."""
        self._names.append(template.name)
        number = len(self._names)
        return SLOT.sub(lambda slot: f"{slot[0][:-1]}@{number}»", chosen(template.text, self._random))
