"""The search index of a corpus while it is made: which shards it holds, so that only others are read again."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from starcoder.attribution.corpus import Corpus
from starcoder.attribution.search.base import Analyzer
from starcoder.attribution.search.embedded import TantivySearch
from starcoder.errors import UserError
from starcoder.storage import atomic_file


class Shards:
    """A search index and the file that says what is in it: the fingerprint of each shard by its number.

    A shard is noted when it is committed: one whose commit was not noted because the process was killed is added again,
    in place of itself. What the engine removes may lie in its files for long: when somebody has opted out it is made
    anew, unless nothing does.
    """

    def __init__(self, folder: Path, noted: Path, analyzers: Sequence[Analyzer]) -> None:
        self._folder, self._noted, self._analyzers = folder, noted, tuple(analyzers)

    def update(self, corpus: Corpus, fingerprints: Sequence[str], opt_out: Sequence[str]) -> set[int]:
        """Add the shards that are new or have changed, and take out those that are gone; return the former's numbers.

        Args:
            corpus: The corpus.
            fingerprints: Those of its shards, in their order.
            opt_out: Digests of the opt-out lists that were applied to it.
        """
        before = self._read()
        with self._open() as search:
            read = set(self._add(search, corpus, fingerprints))
            self._cut(search, len(fingerprints))
        if before and before["opt_out"] != list(opt_out) and search.holds_removed():
            self._noted.unlink()
            with self._open() as search:
                read = set(self._add(search, corpus, fingerprints))
        self._write(opt_out=list(opt_out))
        return read

    def _open(self) -> TantivySearch:
        if self._read():
            with suppress(UserError):  # it is damaged, or of another version
                search = TantivySearch.open(self._folder)
                if search.analyzers == self._analyzers:
                    return search
        shutil.rmtree(self._folder, ignore_errors=True)
        search = TantivySearch.create(self._folder, analyzers=self._analyzers)
        self._write(shards={}, opt_out=[])
        return search

    def _add(self, search: TantivySearch, corpus: Corpus, fingerprints: Sequence[str]) -> Iterator[int]:
        for number, fingerprint in enumerate(tqdm(fingerprints, "search", disable=None)):
            shards = self._read()["shards"]
            if shards.get(str(number)) != fingerprint:
                others = {key: each for key, each in shards.items() if key != str(number)}
                self._write(shards=others)  # what it holds of this one is not certain from here on
                search.add(number, corpus.documents(number))
                search.commit()
                self._write(shards=others | {str(number): fingerprint})
                yield number

    def _cut(self, search: TantivySearch, count: int) -> None:
        """Take out the shards from the number `count` on."""
        shards = self._read()["shards"]
        for number in shards:
            if int(number) >= count:
                search.remove_shard(int(number))
        search.commit()
        self._write(shards={number: each for number, each in shards.items() if int(number) < count})

    def _read(self) -> dict[str, Any]:
        """What is noted; nothing, so that the search index is made anew, when that is damaged."""
        try:
            noted = json.loads(self._noted.read_text())
            return noted if noted.keys() == {"shards", "opt_out"} else {}
        except (OSError, ValueError, AttributeError):
            return {}

    def _write(self, **changes: Any) -> None:
        content = self._read() | changes
        with atomic_file(self._noted) as partial:
            partial.write_text(json.dumps(content) + "\n")
