"""The one interface of both engines, the embedded one and the clusters."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from starcoder.attribution.corpus import Address
from starcoder.corpus.document import Document
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError

Analyzer = Literal["trigrams", "tokens"]
ANALYZERS: tuple[Analyzer, ...] = ("tokens", "trigrams")


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that looks like what was asked for.

    Attributes:
        address: Where it is in the corpus.
        score: BM25, which compares hits of one query and nothing else.
        repository: Name of the repository that it comes from.
        path: Its path there.
        language: Key of the language table.
        licenses: SPDX ids; all of them apply.
    """

    address: Address
    score: float
    repository: str
    path: str
    language: str
    licenses: tuple[str, ...]


class Search(ABC):
    """Documents that are found by what they look like.

    What is added and removed is seen after `commit`. Used as a context manager, it is closed at the end.
    """

    analyzers: Sequence[Analyzer] = ANALYZERS
    """The views of a text that can be searched, the one that finds most first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def add(self, shard: int, documents: Iterable[tuple[int, Document]]) -> int:
        """Add the rows and documents of a shard in place of what was added of it before.

        Args:
            shard: Its number.
            documents: As `Corpus.documents` yields them; they are not kept in memory.

        Returns:
            How many there were.
        """

    @abstractmethod
    def remove_shard(self, shard: int) -> None:
        """Take the documents of a shard out."""

    @abstractmethod
    def remove_repositories(self, opt_out: OptOut) -> list[str]:
        """Take the documents of all repositories out that a list names; return those that there were, in order."""

    @abstractmethod
    def commit(self) -> None:
        """Make what was added and removed visible and lasting."""

    @abstractmethod
    def notes(self) -> dict[str, Any]:
        """What was noted last; nothing of an index that is new."""

    @abstractmethod
    def note(self, notes: Mapping[str, Any]) -> None:
        """Keep something about the index in it, in place of what was noted before: at once, and lasting.

        Args:
            notes: What JSON can tell.

        Raises:
            UserError: Another program has noted something since the index was opened.
        """

    @abstractmethod
    def holds_removed(self) -> bool:
        """Whether bytes of what was removed are still kept, though never found."""

    @abstractmethod
    def count(self) -> int:
        """Number of documents that can be found."""

    @abstractmethod
    def texts(self, addresses: Sequence[Address]) -> list[str]:
        """The contents of documents, in the order asked for.

        Raises:
            UserError: One of them is not here.
        """

    @abstractmethod
    def find(
        self,
        text: str,
        k: int = 10,
        language: str | None = None,
        license: str | None = None,
        repository: str | None = None,
        analyzer: Analyzer | None = None,
    ) -> list[Hit]:
        """The documents that are most like a text.

        Args:
            text: Code of any length; nothing in it is a query language. A text without terms finds nothing.
            k: Number of documents, at most.
            language: Only documents of this language.
            license: Only documents with this SPDX id among their licences.
            repository: Only documents of this repository, as the corpus spells it.
            analyzer: The view of the text that is compared; the first of `analyzers` unless said.

        Returns:
            The best first.

        Raises:
            UserError: There is no such analyser here, `k` is not positive, or the index cannot be read.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held; what is not committed is lost."""

    def checked(self, analyzer: Analyzer | None, k: int) -> Analyzer:
        """The analyser that is meant.

        Raises:
            UserError: There is none of this name here, or no document is asked for.
        """
        if k < 1:
            raise UserError(f"{k} documents cannot be searched for: ask for 1 or more")
        if analyzer is not None and analyzer not in self.analyzers:
            raise UserError(f"no analyser {analyzer!r} here: use one of {', '.join(self.analyzers)}")
        return analyzer or self.analyzers[0]
