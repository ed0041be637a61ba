"""The tables of templates as they are written: a place in brackets, then its rows, each with its split."""

import re

from starcoder.pii.plant.sides import Split

Table = dict[str, dict[Split, tuple[str, ...]]]


def parse(text: str) -> Table:
    """The table in `text`: place → split → templates, with line breaks in place of ¶.

    A line of the table that starts with blanks and ¶ continues the row above.
    """
    table: Table = {}
    rows: dict[Split, tuple[str, ...]] = {}
    for line in re.sub(r"\n +¶", "¶", text.strip()).splitlines():
        if line.startswith("["):
            rows = table[line.strip("[]")] = {"train": (), "test": ()}
            continue
        split, _, template = line.partition(" ")
        rows["test" if split == "test" else "train"] += (template.replace("¶", "\n"),)
    return table
