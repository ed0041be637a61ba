"""Jupyter notebooks, which any source may hold, as scripts and as text-code-output triplets (paper §3.2).

    cells.ipynb ─┬─► notebook-script   markdown as comments, in the notebook's language
                 └─► notebook          <jupyter_start> <jupyter_text>… <jupyter_code>… <jupyter_output>… <jupyter_text>…

The authors guessed the language of the notebooks that do not name one with Guesslang, which is no longer installable;
here they are left out.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from starcoder.corpus.document import Document, Mark, Rejection
from starcoder.corpus.formatting import structured
from starcoder.corpus.languages import language_of
from starcoder.tokenizer import Sentinel

LONGEST_OUTPUT = 1000
"""Characters of an output that are kept; a longer one goes on with "[...]"."""
_UNKNOWN = Rejection("notebook language unknown")
_HTML_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell that is not blank; `output` is that of a code cell, if it printed any."""

    kind: str
    source: str
    output: str = ""


def documents_of(document: Document, data: bytes) -> Iterator[Document]:
    """Yield the two documents of an .ipynb file, "notebook-script" and "notebook", each with its content or rejection.

    Args:
        document: The file as its source found it; both keep its path and all that is declared about it.
        data: The bytes of the file.
    """
    notebook = _parse(data)
    if isinstance(notebook, Rejection):
        script: tuple[str, str] | Rejection = notebook
        triplets: tuple[str, tuple[Mark, ...]] | Rejection = notebook
    else:
        script, triplets = to_script(notebook), to_triplets(notebook)
    yield _script_document(replace(document, kind="notebook-script"), script)
    yield _triplets_document(replace(document, kind="notebook", language="jupyter"), triplets)


def to_script(notebook: dict[str, Any]) -> tuple[str, str] | Rejection:
    """Return the notebook as a script in its own language, and the script's extension (lower-case, without dot).

    The language is the one whose file extension the notebook's metadata names; if Jupytext cannot write that one,
    Python where the kernel is one.
    """
    cells = _cells(notebook)
    if isinstance(cells, Rejection):
        return cells
    named = str(_mapping(_metadata(notebook, "language_info")).get("file_extension", ""))
    for extension in (named, ".py" if "py" in json.dumps(_metadata(notebook, "kernelspec")) else ""):
        text = _write_script(cells, notebook, extension)
        if text is not None:
            return (text, extension[1:].lower()) if text.strip() else Rejection("empty")
    return _UNKNOWN


def to_triplets(notebook: dict[str, Any]) -> tuple[str, tuple[Mark, ...]] | Rejection:
    """Return content and marks of a Python notebook: each run of text cells with the code after it and its output."""
    cells = _cells(notebook)
    if isinstance(cells, Rejection):
        return cells
    # The authors looked for "py" in all of the metadata, where it may stand for no more than "jupyter".
    if "py" not in json.dumps([_metadata(notebook, "kernelspec"), _metadata(notebook, "language_info")]):
        return Rejection("notebook not in Python")
    groups = _alternating([cell for cell in cells if cell.kind in ("markdown", "code")])
    if not groups:
        return Rejection("notebook without text before code")
    parts: list[Sentinel | str] = [Sentinel.JUPYTER_START]
    for text, code in zip(groups[::2], groups[1::2], strict=True):
        parts += [Sentinel.JUPYTER_TEXT, _plain_text(text)]
        parts += [Sentinel.JUPYTER_CODE, "\n".join(cell.source for cell in code)]
        parts += [Sentinel.JUPYTER_OUTPUT, _shortened(code[-1].output) or Sentinel.EMPTY_OUTPUT]
    return structured(parts)


def _parse(data: bytes) -> dict[str, Any] | Rejection:
    try:
        notebook = json.loads(data)
    except (ValueError, RecursionError) as error:
        return Rejection("notebook is not JSON", str(error))
    return notebook if isinstance(notebook, dict) else Rejection("notebook without cells")


def _script_document(document: Document, script: tuple[str, str] | Rejection) -> Document:
    if isinstance(script, Rejection):
        return document.reject(script.reason, script.detail)
    text, extension = script
    language, _ = language_of(f"script.{extension}") or ("", "")
    return _filled(replace(document, language=language, extension=extension), text)


def _triplets_document(document: Document, triplets: tuple[str, tuple[Mark, ...]] | Rejection) -> Document:
    if isinstance(triplets, Rejection):
        return document.reject(triplets.reason, triplets.detail)
    content, marks = triplets
    return _filled(document, content, marks)


def _filled(document: Document, content: str, marks: tuple[Mark, ...] = ()) -> Document:
    try:
        size = len(content.encode())
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
        return document.reject("not UTF-8", f"character {error.start}")
    return replace(document, content=content, marks=marks, size=size)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _metadata(notebook: dict[str, Any], key: str) -> Any:
    return _mapping(notebook.get("metadata")).get(key, {})


def _joined(lines: Any) -> str:
    """A text of the notebook format: a string, or its lines with their line breaks."""
    return "".join(map(str, lines)) if isinstance(lines, list) else str(lines or "")


def _cells(notebook: dict[str, Any]) -> list[_Cell] | Rejection:
    found = notebook.get("cells")
    if not isinstance(found, list):
        return Rejection("notebook without cells")
    cells = (
        _Cell(str(cell.get("cell_type")), _joined(cell.get("source")), _first_output(cell))
        for cell in map(_mapping, found)
    )
    return [cell for cell in cells if cell.source.strip()] or Rejection("empty")


def _first_output(cell: dict[str, Any]) -> str:
    outputs = cell.get("outputs")
    return _joined(_mapping(outputs[0]).get("text")) if isinstance(outputs, list) and outputs else ""


def _write_script(cells: list[_Cell], notebook: dict[str, Any], extension: str) -> str | None:
    """Write the cells as a script, or return None if Jupytext knows no such scripts."""
    import jupytext  # type: ignore[import-untyped]  # it ships no annotations
    import nbformat

    if extension == ".ipynb":
        return None
    # The same header on every script would teach nothing, and it names the version of Jupytext.
    metadata: dict[str, Any] = {"jupytext": {"notebook_metadata_filter": "-all"}}
    name = _mapping(_metadata(notebook, "language_info")).get("name")
    if isinstance(name, str):
        metadata["language_info"] = {"name": name}
    plain = {
        "nbformat": 4,
        "nbformat_minor": 4,
        "metadata": metadata,
        "cells": [{"cell_type": cell.kind, "metadata": {}, "source": cell.source, "outputs": []} for cell in cells],
    }
    try:
        written = nbformat.from_dict(plain)  # type: ignore[no-untyped-call]  # annotated in part only
        return str(jupytext.writes(written, fmt={"extension": extension, "format_name": "light"}))
    except Exception:  # its parsers raise what they happen to meet, and no notebook may stop the corpus
        return None


def _alternating(cells: list[_Cell]) -> list[list[_Cell]]:
    """Runs of cells of one kind, from the first text to the last code, so that the two kinds alternate."""
    groups = [list(group) for _, group in groupby(cells, key=lambda cell: cell.kind)]
    if groups and groups[0][0].kind == "code":
        groups = groups[1:]
    if groups and groups[-1][0].kind == "markdown":
        groups = groups[:-1]
    return groups


def _plain_text(cells: list[_Cell]) -> str:
    """Markdown on one line, without HTML tags and heading signs."""
    plain = (_HTML_TAG.sub("", cell.source).replace("#", "") for cell in cells)
    return " ".join(line.strip() for text in plain for line in text.splitlines() if line.strip())


def _shortened(output: str) -> str:
    return f"{output[:LONGEST_OUTPUT]}[...]" if len(output) > LONGEST_OUTPUT else output
