"""Detection by a token classifier (paper §4.3): StarPII, ours or the released one, or any that speaks in BIO tags.

    text ─► tokens ─► windows, which overlap ─► probabilities of tags (T, K), each from the window that sees most around
    the token ─► entities (`starcoder.pii.spans`)

Shapes: B windows, T tokens, K tags.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray

from starcoder.errors import UserError, one_line
from starcoder.pii.bio import Tokens, encode
from starcoder.pii.entity import Detector, Entity
from starcoder.pii.pretrained import read_whole
from starcoder.pii.spans import Tags
from starcoder.release.folder import local_folder

_WINDOW = 512
_TOKENS_TOGETHER = 2**13
_PIECE = 2**20
_PIECES_TOGETHER = 2**22


class _Piece(NamedTuple):
    """A part of a text that is small enough to be held in memory as probabilities."""

    number: int
    start: int
    text: str


class NerDetector(Detector):
    """A model of transformers that classifies tokens, as a detector. The last digits of scores depend on the batch.

    Args:
        model: The model, in evaluation mode, on its device; its configuration names the tags.
        tokenizer: Its tokenizer.
        window: Most tokens that the model sees at once; as many as it was trained on when not given, which the
            configuration of ours tells as `window`, otherwise the paper's 512.
        overlap: Tokens that a window shares with the next; a quarter when not given, where the paper has none.

    Raises:
        UserError: The tags are not BIO tags of known labels, the tokenizer has more tokens than the model, or the
            window has no room for the overlap.
    """

    def __init__(
        self, model: Any, tokenizer: tokenizers.Tokenizer, window: int | None = None, overlap: int | None = None
    ) -> None:
        self.model, self.tokenizer, self.tags = model, tokenizer, Tags(model.config.id2label)
        wanted = window or int(getattr(model.config, "window", _WINDOW))
        self.window: int = min(wanted, getattr(model.config, "max_position_embeddings", wanted))
        self.overlap = self.window // 4 if overlap is None else overlap
        if not 0 <= self.overlap < self.window:
            raise UserError(f"windows of {self.window} tokens cannot overlap by {self.overlap}")
        if (ours := tokenizer.get_vocab_size()) > (its := model.config.vocab_size):
            raise UserError(f"its tokenizer has {ours} tokens, its model {its}: they do not belong together")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._spell_out()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Come out of a pickle, in which the tokenizer forgets what it was told."""
        self.__dict__.update(state)
        self._spell_out()

    def _spell_out(self) -> None:
        """Read a sentinel's spelling in a text as text."""
        self.tokenizer.encode_special_tokens = True

    @classmethod
    def open(cls, model: str, device: str = "auto", window: int | None = None, overlap: int | None = None) -> Self:
        """Read a folder, or a repository of the Hub such as `bigcode/starpii`; on a GPU it computes in bfloat16.

        Args:
            model: The folder, or `owner/name`.
            device: `cpu`, `cuda`, `cuda:1`, …; `auto` is a GPU when there is one.
            window: Most tokens that the model sees at once, see above.
            overlap: Tokens that a window shares with the next, see above.

        Raises:
            UserError: There is none, it is no classifier of tokens, or its tokenizer is missing.
        """
        place, folder = find_device(device), local_folder(model)
        try:
            classifier = read_classifier(folder).to(place, torch.bfloat16 if place.type == "cuda" else torch.float32)
            return cls(classifier, read_tokenizer(folder), window, overlap)
        except UserError as error:
            raise UserError(str(error) if f"in {model} " in str(error) else f"{model}: {error}") from None

    @property
    def name(self) -> str:
        """What reports call it."""
        return "ner"

    def detect(self, text: str) -> list[Entity]:
        """The entities of one text."""
        return self.detect_all([text])[0]

    def detect_all(self, texts: Sequence[str]) -> list[list[Entity]]:
        """The entities of each text; windows of like length share a batch, whatever text they are from."""
        found: list[list[Entity]] = [[] for _ in texts]
        for pieces in _groups(texts):
            tokens = [encode(self.tokenizer, piece.text) for piece in pieces]
            for piece, part, probabilities in zip(pieces, tokens, self._probabilities(tokens), strict=True):
                found[piece.number] += [
                    Entity(e.start + piece.start, e.end + piece.start, e.label, e.score, self.name)
                    for e in self.tags.entities(piece.text, part, probabilities)
                ]
        return found

    def _probabilities(self, texts: Sequence[Tokens]) -> list[NDArray[np.float32]]:
        """Of each text, the probabilities of the tags of its tokens (T, K)."""
        result = [np.zeros((len(tokens.ids), self.model.config.num_labels), np.float32) for tokens in texts]
        windows = [
            (number, window)
            for number, tokens in enumerate(texts)
            for window in windows_of(len(tokens.ids), self.window, self.overlap)
        ]
        windows.sort(key=lambda row: row[1].seen.stop - row[1].seen.start)
        for batch in _batches(windows):
            rows = self._classify([texts[number].ids[window.seen] for number, window in batch])
            for (number, (seen, kept)), row in zip(batch, rows, strict=True):
                result[number][kept] = row[kept.start - seen.start : kept.stop - seen.start]
        return result

    @torch.inference_mode()
    def _classify(self, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Probabilities of tags (B, T, K) of ids, padded to the longest, the last."""
        ids, mask = np.zeros((2, len(rows), len(rows[-1])), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)], mask[number, : len(row)] = row, 1
        device = self.model.device
        inputs = {"input_ids": torch.from_numpy(ids).to(device), "attention_mask": torch.from_numpy(mask).to(device)}
        probabilities: NDArray[np.float32] = self.model(**inputs).logits.float().softmax(dim=-1).cpu().numpy()
        return probabilities


class Window(NamedTuple):
    """Tokens that the model sees at once, and those of them whose probabilities it gives."""

    seen: slice
    kept: slice


def windows_of(length: int, size: int, overlap: int) -> list[Window]:
    """Windows of `size` of `length` tokens; neighbours share `overlap` and halve it, the last two may share more."""
    starts = [*range(0, max(1, length - size), size - overlap)] if length else []
    if length > size:
        starts.append(length - size)
    stops = [min(start + size, length) for start in starts]
    cuts = [0, *((start + stop) // 2 for start, stop in zip(starts[1:], stops, strict=False)), length]
    return [
        Window(slice(start, stop), slice(left, right))
        for start, stop, left, right in zip(starts, stops, cuts, cuts[1:], strict=False)
    ]


def find_device(device: str) -> torch.device:
    """The device of that name; `auto` is a GPU when there is one.

    Raises:
        UserError: This machine has no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"no device {device} here ({one_line(error)}): name cpu, cuda or auto") from None


def read_classifier(folder: Path) -> Any:
    """The token classifier of a folder, in evaluation mode.

    Raises:
        UserError: There is none, or it is another kind of model, or damaged or incomplete.
    """
    from transformers import AutoConfig, AutoModelForTokenClassification

    if not (folder / "config.json").is_file():
        raise UserError("no config.json is there: name the folder of a model that `starcoder pii train` wrote")
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers raises what it stumbles over
        raise UserError(f"its config.json cannot be read ({one_line(error)})") from None
    architecture = (config.architectures or ["model without architecture"])[0]
    if not architecture.endswith("ForTokenClassification"):
        raise UserError(
            f"it is a {architecture}, no classifier of tokens; "
            "`starcoder pii train --encoder` makes one of a pretrained encoder"
        )
    return read_whole(AutoModelForTokenClassification, folder)


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder; it needs no token for padding.

    Raises:
        UserError: tokenizer.json is missing or damaged.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError("no tokenizer.json is there: copy the one of its encoder")
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # `tokenizers` raises nothing more precise
        raise UserError(f"its tokenizer.json is damaged ({one_line(error)})") from None


def _groups(texts: Sequence[str]) -> Iterator[list[_Piece]]:
    """The texts, the long ones in pieces that end with a line where they can, as many as are held at a time."""
    group: list[_Piece] = []
    characters = 0
    for number, text in enumerate(texts):
        start = 0
        while start < len(text):
            stop = min(start + _PIECE, len(text))
            if stop < len(text):
                stop = text.rfind("\n", start, stop) + 1 or stop
            group.append(_Piece(number, start, text[start:stop]))
            characters += stop - start
            start = stop
            if characters >= _PIECES_TOGETHER:
                yield group
                group, characters = [], 0
    yield group


def _batches(windows: Sequence[tuple[int, Window]]) -> Iterator[list[tuple[int, Window]]]:
    """Windows, sorted by length, in batches of about `_TOKENS_TOGETHER` tokens with their padding."""
    batch: list[tuple[int, Window]] = []
    for row in windows:
        size = row[1].seen.stop - row[1].seen.start
        if batch and (len(batch) + 1) * size > _TOKENS_TOGETHER:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
