"""What an index keeps of each shard of a corpus, apart from all others, so that one that changes costs no other work.

A part is a folder that is called like the fingerprint of its shard: whatever has that name is whole, and is of exactly
these documents. The membership filter, which cannot forget, and the counts of the whole corpus are made of the parts.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from starcoder.attribution.corpus import Corpus
from starcoder.attribution.membership import Membership
from starcoder.attribution.surprise import Frequencies
from starcoder.attribution.windows import WINDOW, Hashes, hashes
from starcoder.storage import atomic_folder

_WINDOWS, _FREQUENCIES, _COUNTS = "windows.npy", "frequencies.npz", "counts.json"


def make(corpus: Corpus, shard: int, folder: Path) -> None:
    """Make the part of a shard; the folder appears when it is whole."""
    frequencies = Frequencies()
    windows: list[Hashes] = [np.empty(0, np.uint64)]
    counted = {"documents": 0, "characters": 0}
    for _, document in corpus.documents(shard):
        windows += hashes(" ".join(document.content.split()), WINDOW)
        frequencies.add(document.content, document.repository)
        counted["documents"] += 1
        counted["characters"] += len(document.content)
    with atomic_folder(folder, marker=_COUNTS) as partial:
        different = np.unique(np.concatenate(windows))
        np.save(partial / _WINDOWS, different)
        (partial / _COUNTS).write_text(json.dumps(counted | {"windows": len(different)}) + "\n")
        frequencies.save(partial / _FREQUENCIES)


def membership(folders: list[Path], rate: float) -> Membership:
    """The filter of the windows of some parts."""
    files = [folder / _WINDOWS for folder in folders]
    made = Membership.create(max(1, sum(len(np.load(file, mmap_mode="r")) for file in files)), rate)
    for file in files:
        made.add_hashes(_blocks(np.load(file, mmap_mode="r")))
    return made


def frequencies(folders: list[Path]) -> Frequencies:
    """The counts of some parts together."""
    made = Frequencies()
    for folder in folders:
        made.merge(Frequencies.open(folder / _FREQUENCIES))
    return made


def counts(folders: list[Path]) -> dict[str, int]:
    """Documents, characters and windows of some parts together; a window counts once for each of them."""
    total: Counter[str] = Counter()
    for folder in folders:
        total.update(json.loads((folder / _COUNTS).read_text()))
    return dict(total)


def _blocks(windows: Hashes, size: int = 2**20) -> Iterator[Hashes]:
    """So many hashes at a time: as Python's integers they take four times the memory."""
    return (windows[start : start + size] for start in range(0, len(windows), size))
