"""The tables of templates as they are written: a place in brackets, then its rows, each with its split."""

from starcoder.pii.plant.sides import Split

Table = dict[str, dict[Split, tuple[str, ...]]]


def parse(text: str) -> Table:
    """The table in `text`: place → split → templates, line breaks in place of ¶."""
    table: Table = {}
    rows: dict[Split, tuple[str, ...]] = {}
    for line in text.strip().splitlines():
        if line.startswith("["):
            rows = table[line.strip("[]")] = {"train": (), "test": ()}
            continue
        split, _, template = line.partition(" ")
        rows["test" if split == "test" else "train"] += (template.replace("¶", "\n"),)
    return table
