"""Fill-in-the-middle (paper §5.3; arXiv 2207.14255): half of the documents are cut in three and put in another order.

    PSM     <fim_prefix> prefix <fim_suffix> suffix <fim_middle> middle
    SPMv2   <fim_prefix> <fim_suffix> suffix <fim_middle> prefix middle

It happens when a packed window is read, to each piece between two <|endoftext|>, at two random *characters*. The
released training code drew from one random stream per worker and decoded with loss. Here the draws depend on the seed,
the epoch and the sample alone, so that they survive a resume, and no byte and no control token is lost: in the text of
a piece a byte of half a character is a lone surrogate U+DC80 … U+DCFF, a control token a lone surrogate U+D800 + id.
Neither occurs in decoded text, so a control token stays one, and text that merely looks like one stays text.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PAD, FIM_PREFIX, FIM_SUFFIX, SENTINELS, Tokenizer

Tokens = NDArray[np.integer[Any]]

_FIRST_MARK = 0xD800
_MARK = re.compile(f"([{chr(_FIRST_MARK)}-{chr(_FIRST_MARK + len(SENTINELS) - 1)}])")


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Random numbers of one sample: the same on any rank, in any worker, after any resume.

    Philox is a counter-based generator: (seed, epoch) is its key, and each sample has its own 2^192 counter values.

    Args:
        seed: the run's seed.
        epoch: which pass over the data.
        index: global index of the sample in its data set.
    """
    key = np.array([seed, epoch], dtype=np.uint64)
    counter = np.array([0, 0, 0, index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def fim_permute(
    tokens: Tokens,
    rng: np.random.Generator,
    tokenizer: Tokenizer,
    *,
    rate: float = 0.5,
    spm_rate: float = 0.5,
    length: int | None = None,
) -> Tokens:
    """Permute the pieces of one packed window, then cut it on the right or fill it up with <fim_pad>.

    Empty pieces, between two <|endoftext|> in a row, are dropped. A piece that the window's edge cuts off counts as a
    whole one.

    Args:
        tokens: (T,) documents back to back, each ending in <|endoftext|>.
        rng: generator of this sample, see `sample_rng`.
        tokenizer: the one that made `tokens`.
        rate: probability that a piece is permuted; at 0 the window stays as it is.
        spm_rate: probability that a permuted piece is in SPMv2 order, otherwise PSM.
        length: length of the result; by default that of `tokens`.

    Returns:
        (length,) in the type of `tokens`.
    """
    length = len(tokens) if length is None else length
    if rate == 0:
        return _fit(tokens, length)
    parts, start = [tokens[:0]], 0
    for end in [*np.flatnonzero(tokens == EOD).tolist(), len(tokens)]:
        if end > start:
            piece = tokens[start:end]
            parts.append(_permute_piece(piece, rng, tokenizer, spm_rate) if rng.random() < rate else piece)
            parts.append(tokens[end : end + 1])  # its <|endoftext|>, which the last piece may lack
        start = end + 1
    return _fit(np.concatenate(parts), length)


def fim_restore(piece: Tokens) -> Tokens:
    """Put a permuted piece back in order: (T,) -> (T - 3,) that decode to the text before it was cut.

    One rule serves both orders: what follows <fim_prefix>, then what follows <fim_middle>, then what follows
    <fim_suffix>; SPMv2 has nothing in the first place and prefix and middle in the second. An <|endoftext|> at the end
    stays there. A piece that is not permuted is returned as it is.
    """
    if len(piece) == 0 or piece[0] != FIM_PREFIX:
        return piece
    suffix = int(np.flatnonzero(piece == FIM_SUFFIX)[0])
    middle = int(np.flatnonzero(piece == FIM_MIDDLE)[0])
    end = len(piece) - int(piece[-1] == EOD)
    return np.concatenate([piece[1:suffix], piece[middle + 1 : end], piece[suffix + 1 : middle], piece[end:]])


def _permute_piece(piece: Tokens, rng: np.random.Generator, tokenizer: Tokenizer, spm_rate: float) -> Tokens:
    text = _to_text(piece, tokenizer)
    low, high = sorted(rng.integers(0, len(text), size=2, endpoint=True).tolist())
    prefix, middle, suffix = (_to_ids(part, tokenizer) for part in (text[:low], text[low:high], text[high:]))
    if rng.random() < spm_rate:
        ids = [FIM_PREFIX, FIM_SUFFIX, *suffix, FIM_MIDDLE, *prefix, *middle]
    else:
        ids = [FIM_PREFIX, *prefix, FIM_SUFFIX, *suffix, FIM_MIDDLE, *middle]
    return np.array(ids, dtype=piece.dtype)


def _to_text(piece: Tokens, tokenizer: Tokenizer) -> str:
    """Decode without loss: stray bytes and control tokens become lone surrogates."""
    text, start = "", 0
    for mark in np.flatnonzero(piece < len(SENTINELS)).tolist():
        text += tokenizer.decode(piece[start:mark].tolist(), errors="surrogateescape") + chr(
            _FIRST_MARK + int(piece[mark])
        )
        start = mark + 1
    return text + tokenizer.decode(piece[start:].tolist(), errors="surrogateescape")


def _to_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Encode what `_to_text` decoded."""
    ids: list[int] = []
    for i, part in enumerate(_MARK.split(text)):
        ids += [ord(part) - _FIRST_MARK] if i % 2 else tokenizer.encode(part)
    return ids


def _fit(tokens: Tokens, length: int) -> Tokens:
    """Cut on the right, or fill up with <fim_pad>: (T,) -> (length,)."""
    padding = np.full(max(0, length - len(tokens)), FIM_PAD, dtype=tokens.dtype)
    return np.concatenate([tokens[:length], padding])
