"""Keys and values of the tokens so far: with multi-query attention one of each per token and layer (paper §5.4).

Shapes: B sequences, T new tokens, S slots, L layers, D head size.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from starcoder.model import StarCoderConfig


class KVCache:
    """Keys and values of the tokens so far, L times (rows, S, 2·D); a token's slot is its position in its own sequence.

    Sequences of different lengths are decoded together: pad their prompts on the right, then `shorten` to the real
    lengths. What the pads wrote lies beyond every sequence's positions, where nobody looks, until it is overwritten.
    Sequences come and go: there may be more rows and slots than those in use, which are always the first ones.

    Args:
        config: the model's shape.
        batch_size: sequences decoded together.
        slots: tokens that fit in each sequence, prompt and completion together.
        device: where the model is; keys and values are kept as and where it computes them.
    """

    def __init__(self, config: "StarCoderConfig", batch_size: int, slots: int, device: torch.device) -> None:
        self.shape = (config.n_layer, batch_size, slots, 2 * config.head_size)
        self.kv: list[Tensor] = []
        self.device = device
        self.lengths = [0] * batch_size  # known here, lest every token waits for the device

    @property
    def bytes(self) -> int:
        """Memory of keys and values."""
        return sum(kv.nbytes for kv in self.kv)

    def extend(self, n: int) -> Tensor:
        """Begin a pass over `n` more tokens of every sequence; return their positions (B, T)."""
        starts = self.lengths
        self.lengths = [length + n for length in starts]
        positions = (torch.tensor(starts).unsqueeze(1) + torch.arange(n)).to(self.device, non_blocking=True)
        return self.place(positions, max(self.lengths), masked=max(starts) > 0 and (n > 1 or len(set(starts)) > 1))

    def place(self, positions: Tensor, end: int, masked: bool) -> Tensor:
        """Say where the next tokens are: at `positions` (B, T), which is returned; nobody looks at `end` or beyond."""
        self.end = end
        self.places = torch.arange(len(positions), device=positions.device).unsqueeze(1), positions  # (B, 1), (B, T)
        self.mask = (
            torch.arange(end, device=positions.device) <= positions.unsqueeze(-1) if masked else None
        )  # (B, T, S)
        return positions

    def update(self, layer: int, kv: Tensor) -> Tensor:
        """Store `kv` (B, T, 2·D) of one layer; return all that it has so far, (B, S, 2·D)."""
        if not self.kv:
            self._allocate(kv)
        self.kv[layer].index_put_(self.places, kv)
        return self.kv[layer][: len(kv), : self.end]

    def shorten(self, lengths: list[int]) -> None:
        """Forget what each sequence has beyond its length."""
        self.lengths = list(lengths)

    def reserve(self, rows: int, slots: int) -> None:
        """Make room for so many sequences and tokens at least."""
        _, old_rows, old_slots, _ = self.shape
        if rows > old_rows or slots > old_slots:
            self.resize(max(rows, old_rows), max(slots, old_slots))

    def resize(self, rows: int, slots: int) -> None:
        """Have room for so many sequences and tokens, all those in use; layer by layer, lest much be held twice."""
        self.shape = self.shape[0], rows, slots, self.shape[3]
        used = slice(len(self.lengths)), slice(max(self.lengths, default=0))
        for layer, old in enumerate(self.kv):
            self.kv[layer] = old.new_zeros(self.shape[1:])
            self.kv[layer][used] = old[used]

    def _allocate(self, like: Tensor) -> None:
        self.kv = [like.new_zeros(self.shape[1:]) for _ in range(self.shape[0])]

    def sequence(self, row: int) -> Tensor:
        """A copy of the keys and values of one sequence, (L, T, 2·D)."""
        return torch.stack([kv[row, : self.lengths[row]] for kv in self.kv])

    def join(self, sequence: Tensor) -> None:
        """Add a sequence, given its keys and values (L, T, 2·D), as the last row."""
        row, length = len(self.lengths), sequence.size(1)
        self.reserve(row + 1, length)
        if not self.kv:
            self._allocate(sequence)
        for kv, new in zip(self.kv, sequence, strict=True):
            kv[row, :length] = new
        self.lengths.append(length)

    def clear(self, row: int) -> None:
        """Overwrite what is not finite, which no mask hides from those that have the row later: 0 · NaN is NaN."""
        for kv in self.kv:
            kv[row] = 0

    def leave(self, row: int) -> None:
        """Forget a sequence; the last one takes its row."""
        last = len(self.lengths) - 1
        length = self.lengths[last]
        if row < last:
            for kv in self.kv:
                kv[row, :length] = kv[last, :length]
        self.lengths[row] = length
        self.lengths.pop()
