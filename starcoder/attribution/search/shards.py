"""The shards of a corpus in its search index, in a folder or on a cluster: those alone are read that it lacks.

The index itself notes which shards it holds, by number and fingerprint, each when it is committed: one whose commit was
not noted because the process was killed is added again, in place of itself. What an engine removes may lie in its files
for long: when somebody has opted out the index is made anew, unless nothing does.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from starcoder.attribution.corpus import Corpus
from starcoder.attribution.manifest import Manifest
from starcoder.attribution.search.base import ANALYZERS, Search
from starcoder.attribution.search.clients import Missing
from starcoder.attribution.search.cluster import ClusterSearch
from starcoder.attribution.search.embedded import TantivySearch
from starcoder.errors import UserError

FOLDER = "search"
"""Of the documents, in that of the index."""


class Shards:
    """The search index of a corpus.

    Args:
        folder: Of the whole index.
        manifest: What that says of itself: its shards are wanted here, in its folder or on its cluster.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest
        self._cluster = manifest.parameters.cluster
        self._analyzers = ANALYZERS if manifest.parameters.trigrams else ANALYZERS[:1]
        self._mended = Missing if self._cluster.url else UserError  # what is on a cluster is not ours to replace

    def open(self) -> Search:
        """The index to search in, of just those shards.

        Raises:
            Missing: There is none, or one of other shards.
            UserError: It cannot be used.
        """
        where = self._cluster if self._cluster.url else f"the search index in {self._folder}"
        again = self._manifest.again(self._folder)
        try:
            search = self._open()
        except Missing as error:
            raise Missing(f"{where} is not there: {again}") from error
        if search.notes() != self._notes(self._wanted):
            search.close()
            raise Missing(f"{where} is of another version of the corpus: {again}")
        return search

    def is_current(self) -> bool:
        """Whether there is an index of just those shards.

        Raises:
            UserError: There is a cluster, and it cannot be used.
        """
        with suppress(self._mended):
            self.open().close()
            return True
        return False

    def update(self, corpus: Corpus) -> set[int]:
        """Add the shards that are new or have changed, and take out those that are gone; return the former's numbers.

        Raises:
            UserError: The corpus cannot be read, or the index cannot be written.
        """
        if self._cluster.url:
            shutil.rmtree(self._folder / FOLDER, ignore_errors=True)  # of a run without a cluster
        with self._go_on() as search:
            read = set(self._fill(search, corpus))
            kept = search.notes()["opt_out"] != self._opt_out and search.holds_removed()
            if not kept:
                search.note(self._notes(self._wanted))
                return read
        with self._make() as search:
            return set(self._fill(search, corpus))

    def remove(self) -> None:
        """Remove the index, if there is one.

        Raises:
            UserError: It is on a cluster that cannot be used, or belongs to another folder.
        """
        shutil.rmtree(self._folder / FOLDER, ignore_errors=True)
        if self._cluster.url:
            with suppress(Missing):
                ClusterSearch.open(self._cluster, self._manifest.id).remove()

    @property
    def _wanted(self) -> dict[str, str]:
        """The fingerprints of the shards, by their numbers as JSON has them."""
        return {str(number): each for number, each in enumerate(self._manifest.shards.values())}

    @property
    def _opt_out(self) -> list[str]:
        return list(self._manifest.opt_out)

    def _notes(self, shards: dict[str, str]) -> dict[str, Any]:
        return {"shards": shards, "opt_out": self._opt_out}

    def _open(self) -> Search:
        if self._cluster.url:
            return ClusterSearch.open(self._cluster, self._manifest.id)
        return TantivySearch.open(self._folder / FOLDER)

    def _go_on(self) -> Search:
        """The index that is there; a new one if there is none, or one that is damaged or of another kind."""
        with suppress(self._mended):
            search = self._open()
            same = self._cluster.url or tuple(search.analyzers) == self._analyzers
            if same and search.notes().keys() == self._notes({}).keys():
                return search
            search.close()
        return self._make()

    def _make(self) -> Search:
        """An empty index in place of one that is there."""
        self.remove()
        search: Search
        if self._cluster.url:
            search = ClusterSearch.create(self._cluster, self._manifest.id)
        else:
            search = TantivySearch.create(self._folder / FOLDER, analyzers=self._analyzers)
        search.note(self._notes({}))
        return search

    def _fill(self, search: Search, corpus: Corpus) -> Iterator[int]:
        """Yield the number of each shard that is read."""
        for key, fingerprint in tqdm(self._wanted.items(), "search", disable=None):
            if search.notes()["shards"].get(key) != fingerprint:
                self._forget(search, {key})  # what it holds of this one is not certain from here on
                search.add(int(key), corpus.documents(int(key)))
                search.commit()
                search.note(search.notes() | {"shards": search.notes()["shards"] | {key: fingerprint}})
                yield int(key)
        gone = search.notes()["shards"].keys() - self._wanted.keys()
        for key in gone:
            search.remove_shard(int(key))
        search.commit()
        self._forget(search, gone)

    def _forget(self, search: Search, keys: set[str]) -> None:
        noted = search.notes()["shards"]
        if noted.keys() & keys:
            search.note(search.notes() | {"shards": {key: each for key, each in noted.items() if key not in keys}})
