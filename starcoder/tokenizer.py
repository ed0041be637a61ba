"""StarCoder's tokenizer (paper §5.3): byte-level BPE whose first 19 ids are the sentinels.

Text is cut into words (GPT-2's rule, every digit a word of its own), a word into bytes, and bytes are merged by rank:

    0 … 18     sentinels, in the order of the paper's table
    19 … 274   the 256 bytes, so that every text can be encoded and comes back exactly
    275 …      one token a merge, in the order in which the merges were learned

`tokenizers` trains the vocabulary and defines what is right; `tiktoken` encodes with the same merges several times as
fast. They differ in one point: tiktoken joins any two neighbours whose concatenation is a token, `tokenizers` only the
pairs in the list of merges. The ids are the same if the vocabulary was really learned by BPE, which `_check_learned`
establishes for every vocabulary before it is used. (Their Unicode tables may be a year apart: a digit that the newest
Unicode added can change how the spaces before it are cut, never the text that comes back.)
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, pre_tokenizers, trainers

from starcoder.errors import UserError
from starcoder.hub import check_revision, fetching, is_repository
from starcoder.storage import atomic_file


class Sentinel(IntEnum):
    """The ids of the control tokens; all but the first are spelled as their names, `<fim_prefix>`."""

    EOD = 0
    FIM_PREFIX = 1
    FIM_MIDDLE = 2
    FIM_SUFFIX = 3
    FIM_PAD = 4
    FILENAME = 5
    GH_STARS = 6
    ISSUE_START = 7
    ISSUE_COMMENT = 8
    ISSUE_CLOSED = 9
    JUPYTER_START = 10
    JUPYTER_TEXT = 11
    JUPYTER_CODE = 12
    JUPYTER_OUTPUT = 13
    EMPTY_OUTPUT = 14
    COMMIT_BEFORE = 15
    COMMIT_MSG = 16
    COMMIT_AFTER = 17
    REPONAME = 18


SENTINELS: tuple[str, ...] = ("<|endoftext|>", *(f"<{sentinel.name.lower()}>" for sentinel in list(Sentinel)[1:]))

EOD = Sentinel.EOD.value
FIM_PREFIX = Sentinel.FIM_PREFIX.value
FIM_MIDDLE = Sentinel.FIM_MIDDLE.value
FIM_SUFFIX = Sentinel.FIM_SUFFIX.value
FIM_PAD = Sentinel.FIM_PAD.value

SMALLEST_VOCABULARY = len(SENTINELS) + 256

# GPT-2's rule applied between digits: a digit is a word, and whitespace before a digit ends as it does before the end.
_WORD = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++|\p{N}| ?[^\s\p{L}\p{N}]++|\s+(?![^\s\p{N}])|\s"
# tiktoken's regex engine gives up on a run of about a million blanks; `(?<!\s)` keeps this search linear.
_ENDLESS_BLANK = re.compile(r"(?<!\s)\s{500000}")
_SENTINEL = re.compile("(" + "|".join(map(re.escape, SENTINELS)) + ")")
_RAW_BYTES = re.compile("([\ud800-\udfff]+)")


class Tokenizer:
    """Encodes text to ids and back, losslessly: `decode(encode(text)) == text` for every Unicode string.

    A lone surrogate U+DC80 … U+DCFF stands for one byte that is not valid UTF-8, as in Python's "surrogateescape"; it
    becomes that byte's token. Any other lone surrogate is refused.

    The released StarCoder vocabulary has no symbol for 14 bytes. Only one of them, 0xF1, occurs in UTF-8: in the
    unassigned planes 4-7 (U+40000 … U+7FFFF). Encoding such a character is refused, where `tokenizers` would lose it.

    Raises:
        UserError: when the vocabulary is not a byte-level BPE of this kind, or a text cannot be encoded in it.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        self.backend.encode_special_tokens = True  # a sentinel's spelling in a text is text
        _check_layout(backend)
        vocab = backend.get_vocab()
        self.vocab_size = len(vocab)
        symbols = sorted(vocab, key=vocab.__getitem__)
        first = len(SENTINELS)
        self._bytes = [s.encode() for s in SENTINELS] + [_symbol_bytes(symbol) for symbol in symbols[first:]]
        ranks = {token: rank for rank, token in enumerate(self._bytes) if rank >= first}
        self._byte_ids = {byte: ranks[bytes([byte])] for byte in range(256) if bytes([byte]) in ranks}
        self._missing = sorted(set(range(256)) - self._byte_ids.keys())
        # `encode_array` needs one special token, which it never allows: with none, tiktoken's search for one is slow.
        special = {SENTINELS[EOD]: EOD}
        self._fast = tiktoken.Encoding("starcoder", pat_str=_WORD, mergeable_ranks=ranks, special_tokens=special)
        self.digest = hashlib.sha256("\n".join(symbols).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, in which nothing is a control token: a sentinel's spelling becomes ordinary tokens."""
        try:
            raw, encode = text.encode(), self._encode_unicode
        except UnicodeEncodeError:  # lone surrogates, which tiktoken would silently replace
            raw, encode = _raw_bytes(text), self._encode_raw
        for byte in self._missing:
            if byte in raw:
                raise UserError(f"a text needs byte 0x{byte:02X}, for which the vocabulary has no symbol: leave it out")
        return encode(text)

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """Ids as by `encode`, in an array: tiktoken fills it without a list, an eighth faster."""
        plain = text.isascii() or (not self._missing and not _RAW_BYTES.search(text))
        if not plain or (len(text) >= 500_000 and _ENDLESS_BLANK.search(text)):
            return np.array(self.encode(text), dtype=np.uint32)
        return self._fast.encode_to_numpy(text, disallowed_special=())

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """Ids of each text, on the calling thread: shards are written by processes, not threads."""
        return [self.encode(text) for text in texts]

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a prompt that its user wrote: here the spelling of a sentinel is the control token."""
        ids: list[int] = []
        for i, part in enumerate(_SENTINEL.split(text)):
            ids += [SENTINELS.index(part)] if i % 2 else self.encode(part)
        return ids

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Text of `ids`, sentinels spelled out.

        Args:
            ids: any ids of the vocabulary; they may begin or end inside a character.
            errors: what happens to bytes that are not UTF-8, as in `bytes.decode`; "surrogateescape" keeps them.
        """
        table = self._bytes
        return b"".join([table[i] for i in ids]).decode("utf-8", errors)

    def save(self, folder: Path) -> None:
        """Write the files that `AutoTokenizer.from_pretrained(folder)` reads, whatever its age; other files stay.

        Each file appears whole or not at all. `load` reads tokenizer.json alone, which is written last.
        """
        state = json.loads(self.backend.to_str())
        vocab, pairs = state["model"]["vocab"], state["model"]["merges"]
        merges = state["model"]["merges"] = [" ".join(pair) for pair in pairs]  # the spelling that old readers know
        special: dict[str, Any] = dict.fromkeys(("bos_token", "eos_token", "unk_token"), SENTINELS[EOD])
        special["additional_special_tokens"] = list(SENTINELS)
        config = special | {
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,  # older transformers drop spaces when they decode
            "model_max_length": 10**30,
            "model_input_names": ["input_ids", "attention_mask"],  # gpt_bigcode would embed token types
            "tokenizer_class": "PreTrainedTokenizerFast",  # transformers 5 would rebuild GPT2Tokenizer without digits
            "vocab_size": self.vocab_size,
        }
        _write(folder / "vocab.json", json.dumps(vocab, ensure_ascii=False))
        _write(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))
        _write(folder / "special_tokens_map.json", json.dumps(special, indent=2))
        _write(folder / "tokenizer_config.json", json.dumps(config, indent=2))
        _write(folder / "tokenizer.json", json.dumps(state, ensure_ascii=False, indent=2))

    def _encode_unicode(self, text: str) -> list[int]:
        if len(text) >= 500_000 and _ENDLESS_BLANK.search(text):
            return list(self.backend.encode(text, add_special_tokens=False).ids)
        return self._fast.encode_ordinary(text)

    def _encode_raw(self, text: str) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(_RAW_BYTES.split(text)):
            ids += [self._byte_ids[byte] for byte in _raw_bytes(part)] if i % 2 else self._encode_unicode(part)
        return ids


def train(texts: Iterable[str], vocab_size: int, progress: bool = False) -> Tokenizer:
    """Learn a vocabulary of exactly `vocab_size` tokens; the same texts in the same order give the same one.

    Sentinels spelled out in a text are cut out first, as the authors did, lest merges be spent on them.

    Args:
        texts: the sample.
        vocab_size: sentinels and bytes included; the paper's is 49,152.
        progress: whether to draw the trainer's progress bar on the terminal.

    Raises:
        UserError: when `vocab_size` has no room for sentinels and bytes, or the texts hold too few distinct pairs.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(f"a vocabulary of {vocab_size} is too small: sentinels and bytes take {SMALLEST_VOCABULARY}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SENTINELS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=progress,
    )
    backend.train_from_iterator((_SENTINEL.sub("", text) for text in texts), trainer)
    if (learned := backend.get_vocab_size()) < vocab_size:
        raise UserError(
            f"the sample yields only {learned} of {vocab_size} tokens: give more text or a smaller vocabulary"
        )
    return Tokenizer(backend)


def load(folder: Path | str, revision: str | None = None) -> Tokenizer:
    """Read the tokenizer of a folder, written by `save` or the released StarCoder's, or of a Hub repository.

    Args:
        folder: the folder, or `owner/name` on the Hub.
        revision: branch, tag or commit of the repository; main when not given.

    Raises:
        UserError: when the folder or its tokenizer.json is missing or damaged, or is another kind of tokenizer.
    """
    path = _tokenizer_file(folder, revision)
    try:
        backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; `starcoder tokenizer train` makes one") from None
    except Exception as error:  # `tokenizers` raises nothing more precise
        raise UserError(f"{path} is damaged: {error}") from None
    try:
        return Tokenizer(backend)
    except UserError as error:
        raise UserError(f"{path} is not StarCoder's kind of tokenizer: {error}") from None


def _tokenizer_file(source: Path | str, revision: str | None) -> Path:
    """tokenizer.json in a folder; where there is no such folder, but `owner/name`, in the Hub's repository."""
    path = Path(source) / "tokenizer.json"
    if Path(source).is_dir() or not is_repository(source):
        check_revision(source, revision)
        return path
    from huggingface_hub import hf_hub_download

    with fetching(source):
        return Path(hf_hub_download(str(source), path.name, revision=revision))


def _check_layout(backend: tokenizers.Tokenizer) -> None:
    """Refuse what would make ids differ from StarCoder's: other sentinels, another way to cut words, other options."""
    state = json.loads(backend.to_str())
    sentinels = {token["id"]: token["content"] for token in state["added_tokens"]}
    if sentinels != dict(enumerate(SENTINELS)):
        raise UserError("ids 0-18, and no others, must be the sentinels <|endoftext|> … <reponame>")
    cuts = (state["pre_tokenizer"] or {}).get("pretokenizers", [])
    digits, byte_level = cuts if len(cuts) == 2 else ({}, {})
    if not (digits.get("individual_digits") and byte_level.get("use_regex")) or byte_level.get("add_prefix_space"):
        raise UserError("its words must be cut by single digits and GPT-2's rule, without a prefix space")
    model = state["model"]
    options = (
        "dropout",
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "byte_fallback",
        "ignore_merges",
    )
    if model.get("type") != "BPE" or state["normalizer"] or any(model.get(option) for option in options):
        raise UserError("it must be a plain byte-level BPE without normaliser, dropout or affixes")
    _check_learned(backend, model["vocab"], model["merges"])


def _check_learned(backend: tokenizers.Tokenizer, vocab: dict[str, int], merges: Sequence[Sequence[str]]) -> None:
    """Refuse a vocabulary for which joining by rank of the result could differ from joining by the list of merges.

    Three conditions, which learned vocabularies meet, make the two rules take the same steps on every text: merge i
    makes token i; its parts have lower ids; every token, encoded alone, becomes itself. Suppose the rules agreed so far
    and the pair of lowest rank is (l, r), joining to token t of rank k. Merges go up in rank, so those below k are
    exhausted, and none of them crossed the borders of t: l, r is what they make of t alone. Encoding t alone passes
    through that state and ends in t by the only merge that makes it, so that merge is (l, r).
    """
    first = len(vocab) - len(merges)
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise UserError("ids must be consecutive")
    for rank, (left, right) in enumerate(merges, start=first):
        if not max(vocab[left], vocab[right]) < vocab[left + right] == rank:
            raise UserError(f"ids must follow the order of the merges, but {left} {right} makes {vocab[left + right]}")
    for token, rank in vocab.items():
        if rank >= len(SENTINELS) and [part.id for part in backend.model.tokenize(token)] != [rank]:
            raise UserError(f"the merges never make token {rank}, {token!r}")


def _byte_alphabet() -> dict[str, int]:
    """Map the characters of vocab.json to bytes: a printable byte is itself, the others follow from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def _symbol_bytes(symbol: str) -> bytes:
    try:
        return bytes(_BYTE_OF[character] for character in symbol)
    except KeyError as error:
        raise UserError(f"token {symbol!r} has a character that stands for no byte: {error}") from None


def _raw_bytes(surrogates: str) -> bytes:
    try:
        return surrogates.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        code = ord(surrogates[error.start])
        raise UserError(f"the text holds the lone surrogate U+{code:04X}, which is no Unicode character") from None


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
