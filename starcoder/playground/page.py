"""The page, and the page to keep: a trace as one HTML file that needs neither server nor network.

Both have the same template, look and view of a trace. Texts and names of a corpus come from strangers: scripts write
them into the page as text only, what does not print is written as its escape, and no script but the page's own can run:
the server names its origin, the file to keep its hash.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from starcoder.errors import UserError, needing
from starcoder.storage import atomic_file
from starcoder.text import visible

Found = dict[str, Any]
"""A trace as JSON: the report of `starcoder trace query` with `text`, and where the caller knows which parts of it a
model wrote with `generated`, a list of {start, end}."""

VIEW = "trace.js"
"""The script that both pages have."""
STATIC = {"playground.css": "text/css", "playground.js": "text/javascript", VIEW: "text/javascript"}
_PLACED = ("matches", "aside", "generated")


def write_page(found: Found, path: Path) -> None:
    """Write a trace as a page to keep.

    Args:
        found: The trace, see `Found`.
        path: The HTML file.

    Raises:
        UserError: `found` is no trace.
    """
    page = kept_page(found)
    with atomic_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def kept_page(found: Found) -> str:
    """A trace as the HTML of a page to keep; the parameter and errors are those of `write_page`."""
    check(found)
    script, style = static(VIEW), static("playground.css")
    return _render(found=found, script=script, style=style, script_hash=_hash(script), style_hash=_hash(style))


def live_page(facts: dict[str, Any]) -> str:
    """The HTML of the playground.

    Args:
        facts: What its script must know of the server: model, context, max_tokens, traces.
    """
    return _render(facts=facts)


@cache
def static(name: str) -> str:
    """The text of a file of the page."""
    return files("starcoder.playground").joinpath("static", name).read_text(encoding="utf-8")


def check(found: Found) -> None:
    """Refuse what is no trace.

    Raises:
        UserError: Something is missing, or not within the text.
    """
    try:
        length = len(found["text"])
        sound = all(0 <= row["start"] < row["end"] <= length for key in _PLACED for row in found.get(key, []))
        sound &= isinstance(found["text"], str) and {"level", "reason", "owed"} <= found["verdict"].keys()
        sources = [source for row in found["matches"] for source in row["sources"]]
        sound &= all(row["sources"] for row in found["matches"])
        sources += [row["source"] | {"lines": lines} for row in found["verdict"]["owed"] for lines in row["lines"]]
        sources += [row["source"] for row in found["similar"]]
        sound &= all(len(source["lines"]) == 2 and source["repository"] and source["path"] for source in sources)
        sound &= all(
            isinstance(row["score"] + row["surprise"] + row["rarity"], int | float) for row in found["matches"]
        )
    except (AttributeError, KeyError, TypeError):
        sound = False
    if not sound:
        raise UserError("this is no trace: give the JSON report of `starcoder trace query`, and its text")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _render(**names: Any) -> str:
    with needing("serve"):
        from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("starcoder.playground"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = visible
    return environment.get_template("playground.html").render(**names)
