"""Texts of strangers and paths, made fit to be shown."""

from pathlib import Path


def visible(text: str, keep: str = "") -> str:
    """`text` with every character that does not print, but for those in `keep`, written as its escape.

    A control character in a stranger's text could move the cursor or turn the reading direction.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def shown(path: Path) -> Path:
    """`path` as seen from the working directory, if it lies in there: shorter, and silent about whose machine it is."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
