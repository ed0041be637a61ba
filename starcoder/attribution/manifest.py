"""What an attribution index says of itself: of which corpus it was made, with what, and whether it is whole."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from starcoder.attribution.corpus import Corpus
from starcoder.attribution.search.clients import NOWHERE, Cluster
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError
from starcoder.storage import atomic_file
from starcoder.text import shown

FILE = "manifest.json"
FORMAT = 3
_KIND = "starcoder attribution index"


class OtherVersion(UserError):  # noqa: N818  # the user has not erred
    """The index was made by another version of this program."""


@dataclass(frozen=True)
class Parameters:
    """What an index is made with; with others it is made anew.

    Attributes:
        rate: False positives of the membership test, as a share of the windows that are asked for.
        trigrams: Whether documents are searched for by character 3-grams besides code tokens.
        exact: Absolute path of the tokenizer with which the suffix arrays of the corpus are made; empty without them.
        cluster: Where documents are searched, if not in the folder of the index.
    """

    rate: float = 1e-6
    trigrams: bool = False
    exact: str = ""
    cluster: Cluster = NOWHERE


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        corpus: Absolute path of the corpus.
        shards: Its training shards, by name, with their fingerprints, in their order.
        opt_out: Digests of the opt-out lists that were applied to the corpus, at its build and later.
        parameters: What the index was made with.
        id: A name that no other index has; on a cluster, its documents belong to it.
        complete: Whether it is whole; it is not while `starcoder trace index` works on it, or was killed.
        counts: Documents, characters, tokens and windows of the corpus.
        files: Size in bytes of each file of the index but this one.
        seconds: How long the last run took.
        made: Shards that it had to read.
        false_positives: Share of random windows that the membership test took for known when it was made.
    """

    corpus: str
    shards: dict[str, str]
    opt_out: tuple[str, ...]
    parameters: Parameters
    id: str = field(default_factory=lambda: uuid4().hex)
    complete: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    made: int = 0
    false_positives: float = 0.0

    @classmethod
    def of(cls, corpus: Corpus, options: dict[str, Any], parameters: Parameters) -> Self:
        """That of an index of a corpus, which has these options in its `corpus.json`, before it is made."""
        shards = dict(zip([path.name for path in corpus.shards], corpus.fingerprints, strict=True))
        nobody = OptOut.none().digest
        lists = [options[key] for key in ("opt_out", "opted_out_later") if options.get(key, nobody) != nobody]
        return cls(str(corpus.folder.resolve()), shards, tuple(lists), parameters)

    @property
    def made_of(self) -> str:
        """What differs between indexes of different corpora or parameters."""
        return json.dumps([self.corpus, self.shards, self.opt_out, asdict(self.parameters)])

    def write(self, folder: Path) -> None:
        """Write it into the folder of its index."""
        with atomic_file(folder / FILE) as partial:
            partial.write_text(
                json.dumps({"kind": _KIND, "format": FORMAT, **asdict(self)}, indent=2) + "\n", encoding="utf-8"
            )

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read that of the index in `folder`, which may be unfinished.

        Raises:
            UserError: There is none, or it is damaged or of another version.
        """
        try:
            content = json.loads((folder / FILE).read_text(encoding="utf-8"))
            if content.pop("kind") != _KIND:
                raise UserError(f"{folder} holds something else than an index: name another folder")
            if content.pop("format") != FORMAT:
                raise OtherVersion(f"the index in {folder} is of another version: {_again(folder, content)}")
            cluster = Cluster(**content["parameters"].pop("cluster"))
            content["parameters"] = Parameters(**content["parameters"], cluster=cluster)
            content["opt_out"] = tuple(content["opt_out"])
            return cls(**content)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"no index in {folder}: make one with `starcoder trace index CORPUS --output {folder}`"
            ) from None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{folder / FILE} is damaged ({error}): remove {folder} and make the index again") from None

    def check_whole(self, folder: Path) -> None:
        """Refuse an index that is unfinished, or lacks a part.

        Raises:
            UserError: Which it is.
        """
        if not self.complete:
            raise UserError(f"the index in {folder} is unfinished: {self.again(folder)}, which goes on where it was")
        if problem := self.problem(folder):
            raise UserError(f"the index in {folder} is damaged, {problem}: {self.again(folder)}")

    def problem(self, folder: Path) -> str:
        """What is wrong with the files of the index in `folder`, as far as their sizes tell; empty if nothing is."""
        for name, size in self.files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} of its {size:,} bytes"
        return ""

    def check_current(self, folder: Path, corpus: Corpus) -> None:
        """Refuse an index of what the corpus does not hold any more, or does not hold alone.

        Raises:
            UserError: Which shard is another one.
        """
        now = dict(zip([path.name for path in corpus.shards], corpus.fingerprints, strict=True))
        if now != self.shards:
            changed = _changed(self.shards, now)
            raise UserError(
                f"{shown(corpus.folder)} has changed since it was indexed ({changed}): {self.again(folder)}"
            )

    def again(self, folder: Path) -> str:
        """The command that makes or mends the index."""
        return _again(folder, asdict(self))


def _again(folder: Path, content: dict[str, Any]) -> str:
    parameters = content.get("parameters", {})
    options = " --trigrams" if parameters.get("trigrams") else ""
    options += f" --exact {shown(Path(parameters['exact']))}" if parameters.get("exact") else ""
    cluster = {name: each for name, each in parameters.get("cluster", {}).items() if each != vars(NOWHERE).get(name)}
    options += "".join(f" --cluster.{name} {shlex.quote(str(each))}" for name, each in cluster.items())
    return f"run `starcoder trace index {shown(Path(content.get('corpus', 'CORPUS')))} --output {folder}{options}`"


def _changed(before: dict[str, str], now: dict[str, str]) -> str:
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return _listed(names)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
