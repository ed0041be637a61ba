"""How likely tokens were, as OpenAI's completions tell it."""

import codecs
from collections.abc import Iterable
from typing import Any

from starcoder.sampling import Logprob
from starcoder.tokenizer import Tokenizer

Block = dict[str, list[Any]]
"""`tokens`, `token_logprobs`, `top_logprobs` and `text_offset`, each with an entry for every token."""

_LOWEST = -9999.0  # JSON knows no infinity


class Teller:
    """Tells of one completion's tokens in their order: how they are spelled, how likely they were, where they begin.

    Args:
        tokenizer: what spells the tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def block(self, tokens: Iterable[tuple[int, Logprob | None]]) -> Block:
        """What is told of the tokens that follow; of one without a probability, such as a prompt's first, null."""
        block: Block = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token, told in tokens:
            block["tokens"].append(self._name(token))
            block["token_logprobs"].append(told and max(told.logprob, _LOWEST))
            block["top_logprobs"].append(told and self._likeliest(told))
            block["text_offset"].append(self._begin(self._bytes(token)))
        return block

    def _begin(self, spelling: bytes) -> int:
        """Where the character begins that a token begins or goes on with; what cannot go on is a character itself."""
        if not 0x80 <= spelling[0] < 0xC0:
            self._offset += len(self._characters.decode(b"", final=True))
        begin = self._offset
        self._offset += len(self._characters.decode(spelling))
        return begin

    def _likeliest(self, told: Logprob) -> dict[str, float]:
        """The likeliest tokens, and the one that is told of."""
        each = [*told.likeliest, (told.token, told.logprob)]
        return {self._name(token): max(logprob, _LOWEST) for token, logprob in each}

    def _name(self, token: int) -> str:
        """The token's text; that of a part of a character is its bytes, so that no two tokens are of a name."""
        spelling = self._bytes(token)
        try:
            return spelling.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelling)

    def _bytes(self, token: int) -> bytes:
        return self._tokenizer.decode([token], errors="surrogateescape").encode(errors="surrogateescape")


def joined(first: Block | None, more: Block | None) -> Block | None:
    """The first block, to which another is appended in place; None where nothing is told."""
    if first is None or more is None:
        return first or more
    for name, values in more.items():
        first[name] += values
    return first
