"""The tables of templates: where people and secrets stand in code, and what looks like them; a file a split.

    [comment]
    Author: «name» <«email»>
    ‹Based on|Adapted from› code of «name»¶‹see|cf.› https://«host»/«word»

A row is a template under the kind of place that it is for; one without a person or a secret is there to be left alone.
«slots» are filled by `starcoder.pii.plant.fill`: a digit tells people apart («name2», «email2»), and what follows a
colon names one shape of a key. One of ‹these|those› is chosen, perhaps an ‹|empty› one; ¶ is a line break. No wording
is in both splits, though bare syntax may be; both have rows for every place and label.
"""

import re
from functools import cache
from importlib.resources import files
from random import Random

from starcoder.pii.plant.sides import Split

_PLACE = re.compile(r"\[([a-z]+)\]")
_CHOICE = re.compile("‹([^‹›]*)›")


@cache
def table(split: Split) -> dict[str, tuple[str, ...]]:
    """Kind of place → the templates of a split."""
    text = files("starcoder.pii.plant").joinpath("templates", f"{split}.txt").read_text(encoding="utf-8")
    rows: dict[str, tuple[str, ...]] = {}
    place = ""
    for line in text.splitlines():
        if heading := _PLACE.fullmatch(line):
            place = heading[1]
            rows[place] = ()
        else:
            rows[place] += (line.replace("¶", "\n"),)
    return rows


def chosen(template: str, random: Random) -> str:
    """The template with one of each of its choices, the inner ones first."""
    while (text := _CHOICE.sub(lambda choice: random.choice(choice[1].split("|")), template)) != template:
        template = text
    return template
