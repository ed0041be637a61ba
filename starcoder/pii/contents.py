"""Contents of files and rows, in bytes, redacted together and counted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from starcoder.pii.redaction import PYTHON, Redactor

CLEAN, CHANGED = "without findings", "redacted"
BINARY, ENCODING, TOO_LARGE, NULL = "binary", "not UTF-8", "too large", "null"
PYTHON_FILES = (".py", ".pyi", ".pyw")


@dataclass(frozen=True, slots=True)
class NoText:
    """Why something is not looked at."""

    reason: str


@dataclass
class Tally:
    """What became of contents.

    Attributes:
        outcomes: How many were redacted, were without findings, or were not looked at for each reason.
        redacted: How many entities of each label were replaced.
        left: How many of each label were left as they are; see `starcoder.pii.redaction.Redacted`.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Count what `other` counts too."""
        self.outcomes.update(other.outcomes)
        self.redacted.update(other.redacted)
        self.left.update(other.left)


def decode(content: bytes | NoText, limit: int) -> str | NoText:
    """The text of a content of up to `limit` bytes, or why it is none; encoded again it has the same bytes."""
    if isinstance(content, NoText):
        return content
    if len(content) > limit:
        return NoText(TOO_LARGE)
    if b"\0" in content:
        return NoText(BINARY)
    try:
        return content.decode()
    except UnicodeDecodeError:
        return NoText(ENCODING)


def redact_contents(
    redactor: Redactor, contents: Sequence[bytes | NoText], languages: Sequence[str], limit: int
) -> tuple[list[bytes | None], Tally]:
    """Redact contents together; of each return the new bytes, or None when it stays as it is.

    Args:
        redactor: What redacts.
        contents: Bytes of files or rows.
        languages: The programming language of each.
        limit: Bytes of the largest one to look at.
    """
    texts = [decode(content, limit) for content in contents]
    tally = Tally(Counter(text.reason for text in texts if isinstance(text, NoText)))
    readable = [(number, text) for number, text in enumerate(texts) if isinstance(text, str)]
    results = redactor.redact_all([text for _, text in readable], [languages[number] for number, _ in readable])
    changed: list[bytes | None] = [None] * len(contents)
    for (number, _), result in zip(readable, results, strict=True):
        tally.add(Tally(Counter([CHANGED if result.counts else CLEAN]), Counter(result.counts), Counter(result.left)))
        if result.counts:
            changed[number] = result.text.encode()
    return changed, tally


def language_of(name: str, content: bytes | NoText) -> str:
    """`PYTHON` for what the name of a file or its first line says to be that; else nothing is known."""
    if name.lower().endswith(PYTHON_FILES):
        return PYTHON
    first = b"" if isinstance(content, NoText) or "." in name else content[:100].split(b"\n", 1)[0]
    return PYTHON if first.startswith(b"#!") and b"python" in first else ""
