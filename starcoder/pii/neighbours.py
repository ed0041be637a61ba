"""A beginning for small encoders: heads that look at the tokens around before anything has been learned.

A BERT that begins with small random weights looks everywhere alike, and needs a long time to find out that in code what
stands next to a token matters most. It is told here, in weights that any BERT has:

    positions    sines and cosines of the position, in the first D channels, which the table of tokens leaves to them
    queries      of a head that looks k tokens on: these channels, turned by k positions
    keys         of the same head: these channels, as they are

so that query · key is largest where the key stands k tokens behind the query. Everything stays free to be learned.

Shapes: T positions, C channels, D head size.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from starcoder.errors import UserError

if TYPE_CHECKING:
    from transformers import BertModel

OFFSETS = (-1, 1, -2, 2, -3, 3, -4, 4)
"""Where the first heads of a layer look; the others begin as usual."""

_FASTEST, _SLOWEST = 2.5, 0.02  # radians a token
_TOKEN_SCALE = 0.3  # of a token's channels beside the positions', which are of size 1


@torch.no_grad()
def look_around(bert: "BertModel", offsets: Sequence[int] = OFFSETS) -> None:
    """Let the first heads of every layer of a new encoder look at neighbours.

    Args:
        bert: An encoder with random weights, which are changed in place.
        offsets: Where the heads look, in tokens from their own.

    Raises:
        UserError: There are more offsets than heads, or a head has an odd size.
    """
    heads = bert.config.num_attention_heads
    size = bert.config.hidden_size // heads
    if len(offsets) > heads or size % 2:
        raise UserError(f"{heads} heads of {size} channels cannot look at {len(offsets)} neighbours")
    speeds = torch.logspace(math.log10(_FASTEST), math.log10(_SLOWEST), size // 2)  # (D/2,)
    embeddings = bert.embeddings
    positions = embeddings.position_embeddings.weight  # (T, C)
    positions.zero_()
    positions[:, :size] = _waves(torch.arange(len(positions)), speeds)
    tokens = embeddings.word_embeddings.weight  # (V, C)
    tokens.mul_(_TOKEN_SCALE / bert.config.initializer_range)
    tokens[:, :size] = 0
    layers: Any = bert.encoder.layer
    for layer in layers:
        attention = layer.attention.self
        for head, offset in enumerate(offsets):
            rows = slice(head * size, (head + 1) * size)
            attention.query.weight[rows] = attention.key.weight[rows] = 0
            attention.query.weight[rows, :size] = _turn(offset, speeds)
            attention.key.weight[rows, :size] = torch.eye(size)


def _waves(places: Tensor, speeds: Tensor) -> Tensor:
    """Sine and cosine of each place at each speed, next to each other (T, D)."""
    angles = places[:, None] * speeds
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def _turn(offset: int, speeds: Tensor) -> Tensor:
    """The matrix (D, D) that makes the waves of place t those of place t + `offset`."""
    sine, cosine = (offset * speeds).sin(), (offset * speeds).cos()
    blocks = torch.stack((cosine, sine, -sine, cosine), dim=-1).view(-1, 2, 2)
    turn: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return turn
