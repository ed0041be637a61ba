"""What a source is: pieces that one task each reads from begin to end, and the candidates found in them (paper §3).

A source says what there is and what is declared about it; whether a candidate is kept is for the steps after it. It
never raises for what one file, repository or archive has wrong with it: that is a candidate with a rejection.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from starcoder.corpus.document import Document
from starcoder.corpus.licenses import Declaration


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of a source: a repository, a part of one, an archive, or a file of a data set.

    Attributes:
        name: Unique in its source; tells the source what to read.
        size: Bytes to read, about: tasks are made of about equal size.
        revision: Changes when the content does.
    """

    name: str
    size: int
    revision: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file or a text that may become a document.

    Attributes:
        document: Without licences; with content and marks when they are at hand. Its rejection, if the source has one,
            names a stage when it is a filter's, and none when the document is unusable.
        license: The licence expression that the repository, the nearest licence file or the data set declares.
        file: Path of the file that the document shows changes of; empty when the document is no such thing.
        texts: What the document shows parts of, and what it is judged by beside its content.
        read: Returns the bytes of the file; None when the document has its content. Raises OSError. To be called before
            the next candidate is asked for: an archive is read forwards.
    """

    document: Document
    license: Declaration
    read: Callable[[], bytes] | None = None
    file: str = ""
    texts: tuple[str, ...] = ()


class Source(Protocol):
    """Picklable; the same object on another machine finds the same."""

    @property
    def name(self) -> str:
        """Unique among the sources of a corpus."""

    def units(self) -> Sequence[Unit]:
        """The pieces, in an order that depends on their names alone.

        Raises:
            UserError: The source does not exist or cannot be understood.
        """

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        """What is in a piece, in an order that depends on the content alone."""
