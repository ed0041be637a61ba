"""Code that the model was not trained on: the validation split of a folder that `starcoder corpus build` wrote.

The folder of benchmark data holds it as `held-out`, a folder or a link. The paper holds code out by its licence: a
corpus of repositories under the GPL is held out from a model trained on permissive licences.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from starcoder.errors import UserError

if TYPE_CHECKING:
    from starcoder.corpus.document import Document

FOLDER = "held-out"
SOURCE = "a folder that `starcoder corpus build` wrote; its validation documents are read"

Item = TypeVar("Item")
_TITLES = {
    "c-sharp": "C#",
    "css": "CSS",
    "f-sharp": "F#",
    "html": "HTML",
    "javascript": "JavaScript",
    "php": "PHP",
    "sql": "SQL",
    "typescript": "TypeScript",
}


def read_code(folder: Path | None) -> "list[Document]":
    """The source files among the held-out documents, in the order of their names.

    Raises:
        UserError: when there are none.
    """
    if folder is None or not (folder / FOLDER).is_dir():
        where = folder / FOLDER if folder else f"a folder {FOLDER} in the folder of --data"
        raise UserError(f"held-out code is missing: make it with `starcoder corpus build … --output`, as {where}")
    from starcoder.corpus.document import read_documents

    found = [document for document in read_documents(folder / FOLDER, "validation") if document.kind == "code"]
    documents = sorted((document for document in found if document.content.strip()), key=lambda each: each.name)
    if not documents:
        raise UserError(f"{folder / FOLDER} holds no source files in its validation split: build a larger corpus")
    return documents


def title(language: str) -> str:
    """The name of a language of the corpus, as the paper's tables spell it."""
    return _TITLES.get(language, language.capitalize() or "Other")


def draw(seed: int, name: str) -> int:
    """A number of 64 bits that depends on nothing but the seed and the name."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{name}".encode()).digest()[:8])


def choose(
    items: Sequence[Item], count: int, seed: int, group: Callable[[Item], str], name: Callable[[Item], str]
) -> list[Item]:
    """At most `count` items of each group, drawn by their names, in the order in which they came."""
    rank: dict[str, list[int]] = {}
    for item in items:
        rank.setdefault(group(item), []).append(draw(seed, name(item)))
    limits = {key: sorted(draws)[:count][-1] for key, draws in rank.items()}
    return [item for item in items if draw(seed, name(item)) <= limits[group(item)]]
