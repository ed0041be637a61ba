"""What an index keeps of each shard of a corpus, apart from all others, so that one that changes costs no other work.

A part is a folder that is called like the fingerprint of its shard: whatever has that name is whole and, unless it was
damaged, which its checksums tell, of exactly these documents. The membership filter, which cannot forget, and the
counts of the whole corpus are made of the parts.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from starcoder.attribution.corpus import Corpus
from starcoder.attribution.hashing import Hashes
from starcoder.attribution.membership import Membership
from starcoder.attribution.squeezed import squeezed
from starcoder.attribution.surprise import Frequencies
from starcoder.attribution.windows import WINDOW, hashes
from starcoder.errors import UserError
from starcoder.storage import atomic_folder

_WINDOWS, _FREQUENCIES, _COUNTS = "windows.npz", "frequencies.npz", "counts.json"


def make(corpus: Corpus, shard: int, folder: Path) -> None:
    """Make the part of a shard; the folder appears when it is whole."""
    frequencies = Frequencies()
    windows: list[Hashes] = [np.empty(0, np.uint64)]
    counted = {"documents": 0, "characters": 0}
    for _, document in corpus.documents(shard):
        windows += hashes(squeezed(document.content), WINDOW)
        frequencies.add(document.content)
        counted["documents"] += 1
        counted["characters"] += len(document.content)
    with atomic_folder(folder, marker=_COUNTS) as partial:
        different = np.unique(np.concatenate(windows))
        np.savez(partial / _WINDOWS, hashes=different)
        (partial / _COUNTS).write_text(json.dumps(counted | {"windows": len(different)}) + "\n")
        frequencies.save(partial / _FREQUENCIES)


def membership(folders: list[Path], rate: float) -> Membership:
    """The filter of the windows of some parts.

    Raises:
        UserError: One of them is damaged.
    """
    made = Membership.create(max(1, counts(folders)["windows"]), rate)
    for folder in folders:
        with _told(folder), np.load(folder / _WINDOWS) as file:
            made.add_hashes(_blocks(file["hashes"]))
    return made


def frequencies(folders: list[Path]) -> Frequencies:
    """The counts of some parts together.

    Raises:
        UserError: One of them is damaged.
    """
    made = Frequencies()
    for folder in folders:
        with _told(folder):
            made.merge(Frequencies.open(folder / _FREQUENCIES))
    return made


def counts(folders: list[Path]) -> Counter[str]:
    """Documents, characters and windows of some parts together; a window counts once for each of them.

    Raises:
        UserError: One of them is damaged.
    """
    total: Counter[str] = Counter()
    for folder in folders:
        with _told(folder):
            total.update(json.loads((folder / _COUNTS).read_text()))
    return total


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile, UserError) as error:
        raise UserError(f"{folder} is damaged: run the same command again with --fresh") from error


def _blocks(windows: Hashes, size: int = 2**20) -> Iterator[Hashes]:
    """So many hashes at a time: as Python's integers they take four times the memory."""
    return (windows[start : start + size] for start in range(0, len(windows), size))
