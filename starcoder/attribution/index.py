"""`starcoder trace index`: what attribution needs to know of a corpus, in one folder (paper §8).

    corpus ──► parts/FINGERPRINT   window hashes and token counts of one shard; never changes, made once
           ──► search              its documents, a shard at a time; or on a cluster
    parts  ──► membership, frequencies   of all shards together

Every step leaves something whole behind, named after the fingerprint of its shard: a run that was killed, or comes
after the corpus has changed, does what is missing and takes out what is gone. `manifest.json` says "complete" last.
"""

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tqdm import tqdm

from starcoder.attribution import parts
from starcoder.attribution.corpus import Corpus
from starcoder.attribution.manifest import FILE, Manifest, OtherVersion, Parameters
from starcoder.attribution.membership import Membership
from starcoder.attribution.search.base import Search
from starcoder.attribution.search.clients import NOWHERE, Cluster
from starcoder.attribution.search.shards import Shards
from starcoder.attribution.surprise import Frequencies
from starcoder.attribution.windows import WINDOW
from starcoder.corpus.summary import read_summary
from starcoder.errors import UserError
from starcoder.storage import check_replaceable

if TYPE_CHECKING:
    from starcoder.attribution.suffixes import Suffixes
    from starcoder.tokenizer import Tokenizer

_MEMBERSHIP, _FREQUENCIES, _SUFFIXES, _PARTS = "membership", "frequencies.npz", "suffixes", "parts"
_LOCK = "trace.lock"
_MEASURED = 200_000  # windows


class Index:
    """A finished index; its parts are opened when they are asked for.

    Attributes:
        folder: Where it is.
        corpus: What it is of.
        manifest: What it says of itself.
    """

    def __init__(self, folder: Path, corpus: Corpus, manifest: Manifest) -> None:
        self.folder, self.corpus, self.manifest = folder, corpus, manifest
        self._seen = self._state()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The index in a folder.

        Raises:
            UserError: There is none, it is unfinished, damaged or of another version, or its corpus has changed.
        """
        manifest = Manifest.read(folder)
        manifest.check_whole(folder)
        corpus = _corpus_of(folder, manifest)
        manifest.check_current(folder, corpus)
        return cls(folder, corpus, manifest)

    def check(self) -> None:
        """Refuse to answer from what has changed since it was opened; quick, for programs that keep an index open.

        Raises:
            UserError: The corpus or the index is not what it was.
        """
        if self._state() != self._seen:
            Index.open(self.folder)
            raise UserError(f"the index in {self.folder} has been made again since it was opened: start again")

    @cached_property
    def search(self) -> Search:
        """Its documents, to search in."""
        return Shards(self.folder, self.manifest).open()

    @cached_property
    def membership(self) -> Membership:
        """The windows of the corpus."""
        return Membership.open(self.folder / _MEMBERSHIP)

    @cached_property
    def frequencies(self) -> Frequencies:
        """How often its tokens occur."""
        return Frequencies.open(self.folder / _FREQUENCIES)

    @cached_property
    def suffixes(self) -> "Suffixes | None":
        """Its suffix arrays; None without them."""
        if not self.manifest.parameters.exact:
            return None
        from starcoder.attribution.suffixes import Suffixes

        return Suffixes.open(self.folder / _SUFFIXES, self.corpus)

    def _state(self) -> list[tuple[int, int]]:
        """Sizes and times of the files that tell whether anything has changed; a missing one is (0, 0)."""
        files = [self.folder / FILE, *self.corpus.shards]
        return [_stat(path) for path in files]


def index(
    corpus: Path,
    output: Path = Path("build/trace"),
    rate: float = 1e-6,
    trigrams: bool = False,
    exact: Path | None = None,
    cluster: Cluster = NOWHERE,
    fresh: bool = False,
) -> None:
    """Index a corpus for attribution: search, membership test, token counts.

    Killed at any moment, the same command goes on where it was. Run again after the corpus has changed, such as by
    `starcoder corpus opt-out`, it reads the shards that are new or another, and takes out what is gone.

    Args:
        corpus: Folder that `starcoder corpus build` wrote.
        output: Folder of the index.
        rate: Share of windows that the membership test takes for known by chance; 1e-6 takes 28.8 bits a window.
        trigrams: Search by character 3-grams, too, as the paper does; that takes more than twice the time to index.
        exact: Folder of a tokenizer, or of a model with its own: add suffix arrays of the corpus in its tokens, by
            which the longest spans of a text are found wherever they stand, and counted; of the documents that have
            one, 20 are looked at. Queries for one language, license or repository alone go on to search by BM25.
            They take 6 bytes a token, and Linux on x86-64.
        cluster: Put the documents on a cluster, where they are searched by 3-grams alone, and everything else into the
            folder. Who logs in says so in the environment, here and wherever the index is used: by
            STARCODER_CLUSTER_USER and STARCODER_CLUSTER_PASSWORD, or STARCODER_CLUSTER_API_KEY in base64.
        fresh: Remove an index that is there, and start over.

    Raises:
        UserError: There is no corpus, the folder holds something else, another run is at work in it, or the cluster
            cannot be used.
    """
    if not 0 < rate < 1:
        raise UserError(f"--rate is {rate:g}: it is a share of windows, above 0 and below 1")
    begin = time.perf_counter()
    source = Corpus.open(corpus)
    parameters = Parameters(rate, trigrams, _absolute(exact), _resolved(cluster))
    manifest = Manifest.of(source, read_summary(corpus)["options"], parameters)
    tokenizer = _tokenizer(exact) if exact else None
    with _claimed(output):
        earlier = _clear(output, fresh)
        manifest = replace(manifest, id=earlier.id) if earlier else manifest
        is_made = Shards(output, manifest).is_current()  # of a cluster that cannot be used, nothing is begun
        if earlier and earlier.complete and earlier.made_of == manifest.made_of and is_made:
            print(f"{output}: nothing has changed")
            return
        manifest.write(output)
        made = _make(source, output, manifest)
        _sort(source, output / _SUFFIXES, tokenizer)
        sealed = _seal(output, manifest)
        files = {str(path.relative_to(output)): path.stat().st_size for path in _files(output)}
        seconds = round(time.perf_counter() - begin, 2)
        manifest = replace(sealed, complete=True, files=files, seconds=seconds, made=made)
        manifest.write(output)
    print(_told(output, manifest))
    if earlier and (left := earlier.parameters.cluster).url and str(left) != str(cluster):
        print(f"the documents are in {left}, too, unless that is the same: remove it if you do not need it")


def _make(corpus: Corpus, folder: Path, manifest: Manifest) -> int:
    """Index the shards that are not, and forget those that are gone; return how many there were to read."""
    wanted = list(manifest.shards.values())
    made = set()
    for number, fingerprint in enumerate(tqdm(wanted, "parts", disable=None)):
        part = folder / _PARTS / fingerprint
        if not part.is_dir():
            parts.make(corpus, number, part)
            made.add(number)
    for path in (folder / _PARTS).iterdir():
        if path.name not in wanted:
            shutil.rmtree(path)
    return len(made | Shards(folder, manifest).update(corpus))


def _sort(corpus: Corpus, folder: Path, tokenizer: "Tokenizer | None") -> None:
    """Make the suffix arrays, or remove those that are not wanted."""
    if tokenizer is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    from starcoder.attribution.suffixes import build_suffixes

    shards = corpus.shards
    for _ in tqdm(build_suffixes(corpus, tokenizer, folder), "suffixes", total=len(shards), disable=None):
        pass
    for path in folder.glob("[0-9]*"):
        if int(path.name) >= len(shards):
            shutil.rmtree(path)


def _tokenizer(folder: Path) -> "Tokenizer":
    from starcoder import tokenizer
    from starcoder.attribution.suffixes import check_engine

    check_engine()
    return tokenizer.load(folder)


def _seal(folder: Path, manifest: Manifest) -> Manifest:
    """Put the parts together; return the manifest with what they hold."""
    found = [folder / _PARTS / fingerprint for fingerprint in manifest.shards.values()]
    membership = parts.membership(found, manifest.parameters.rate)
    membership.save(folder / _MEMBERSHIP)
    frequencies = parts.frequencies(found)
    frequencies.save(folder / _FREQUENCIES)
    return replace(manifest, counts=dict(parts.counts(found)), false_positives=membership.measured_rate(_MEASURED))


def _clear(folder: Path, fresh: bool) -> Manifest | None:
    """Remove what nobody can go on from, an index that is damaged or of another version; or any, if that is wanted.

    Returns:
        What the index said of itself that is to be gone on from.
    """
    if not (folder / FILE).exists():
        return None
    try:
        found = Manifest.read(folder)
    except OtherVersion:
        _remove(folder)
        return None
    if fresh:
        Shards(folder, found).remove()
        _remove(folder)
        return None
    if found.complete and found.problem(folder):
        _remove(folder)
        return replace(found, complete=False)
    return found


def _remove(folder: Path) -> None:
    last = folder / FILE  # what is removed half way is recognised, and damaged
    for path in sorted(folder.iterdir(), key=lambda path: path == last):
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _resolved(cluster: Cluster) -> Cluster:
    """The cluster, fit to be used from another working directory."""
    if cluster != NOWHERE and not cluster.url:
        raise UserError("there are settings of a cluster, and no cluster: say where it is with --cluster.url")
    return replace(cluster, ca_certs=_absolute(Path(cluster.ca_certs) if cluster.ca_certs else None))


def _absolute(path: Path | None) -> str:
    return str(path.resolve()) if path else ""


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep other runs away from a folder."""
    if not (folder / _LOCK).exists():
        check_replaceable(folder, FILE)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is at work in {folder}: wait for it, or name another output") from None
        yield


def _corpus_of(folder: Path, manifest: Manifest) -> Corpus:
    try:
        return Corpus.open(Path(manifest.corpus))
    except UserError as error:
        moved = f"if it has moved, run `starcoder trace index CORPUS --output {folder}` with its new place"
        raise UserError(f"the corpus of the index in {folder} cannot be used, {error}; {moved}") from None


def _files(folder: Path) -> Iterator[Path]:
    """The files that an index is made of, in their order."""
    apart = {FILE, _LOCK, "calibration.json"}  # the last changes when it is measured
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in apart)


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _told(folder: Path, manifest: Manifest) -> str:
    shards = len(manifest.shards)
    counts = ", ".join(f"{count:,} {what}" for what, count in manifest.counts.items())
    size = sum(size for name, size in manifest.files.items() if name.startswith(f"{_MEMBERSHIP}/"))
    known = f"took a share of {manifest.false_positives:.2g} of {_MEASURED:,} random windows for known"
    return (
        f"{folder}: {counts}; {manifest.made:,} of {shards:,} shards read, {manifest.seconds:,.0f} s\n"
        f"membership test: {size / 1e6:,.1f} MB, {known}, made for {manifest.parameters.rate:.2g}; "
        f"finds every copy of at least {2 * WINDOW - 1} characters, white space squeezed"
    )
