"""Text that comes a token at a time: never half a character, never the beginning of a stop string."""

import codecs
from collections.abc import Sequence

from starcoder.generation import cut
from starcoder.tokenizer import Tokenizer


class TextStream:
    """The text of one completion, as far as it is certain.

    Bytes that may go on as a character are held back, and so is text that may go on as a stop string. All that `push`
    and `finish` return, joined, is what `cut` leaves of the decoded tokens.

    Args:
        tokenizer: what spells the tokens.
        stop: texts that end the completion and are cut from it.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._ended = False

    def push(self, token: int) -> str:
        """The text that is certain with `token`, and was not before."""
        spelling = self._tokenizer.decode([token], errors="surrogateescape").encode(errors="surrogateescape")
        return self._release(self._characters.decode(spelling))

    def finish(self) -> str:
        """The rest, when no token follows."""
        text = self._release(self._characters.decode(b"", final=True))
        rest, self._held = self._held, ""
        return text + rest

    def _release(self, more: str) -> str:
        if self._ended:
            return ""
        text = self._held + more
        kept = cut(text, self._stop)
        self._ended = len(kept) < len(text)
        held = 0 if self._ended else _begun(text, self._stop)
        self._held = kept[len(kept) - held :]
        return kept[: len(kept) - held]


def _begun(text: str, stop: Sequence[str]) -> int:
    """Length of the longest end of `text` that a text of `stop` begins with."""
    lengths = (n for mark in stop for n in range(1, min(len(mark), len(text) + 1)) if text.endswith(mark[:n]))
    return max(lengths, default=0)
