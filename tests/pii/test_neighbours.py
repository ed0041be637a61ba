"""Heads look where they are told before training, in a BERT that stays a BERT."""

import pytest
import torch
from transformers import BertConfig, BertModel

from starcoder.errors import UserError
from starcoder.pii.neighbours import OFFSETS, look_around


def encoder(heads: int = 12) -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300,
        hidden_size=192,
        num_hidden_layers=2,
        num_attention_heads=heads,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.08,
        attn_implementation="eager",
    )
    bert: BertModel = BertModel(config, add_pooling_layer=False)
    bert.train(False)
    return bert


def test_every_layer_looks_at_its_neighbours() -> None:
    bert = encoder()
    look_around(bert)
    tokens = torch.randint(0, 300, (4, 100))
    attention = bert(tokens, output_attentions=True).attentions
    for layer, share in zip(attention, (0.8, 0.5), strict=True):  # (B, H, T, T); the second sees more than places
        for head, offset in enumerate(OFFSETS):
            inside = torch.arange(5, 95)
            assert (layer[:, head, inside].argmax(dim=-1) == inside + offset).float().mean() > share
            assert layer[:, head, inside, inside + offset].mean() > share / 4


def test_without_it_they_look_everywhere_alike() -> None:
    attention = encoder()(torch.randint(0, 300, (4, 100)), output_attentions=True).attentions
    assert max(layer.amax(dim=-1).mean().item() for layer in attention) < 0.2


def test_everything_stays_free_to_be_learned() -> None:
    bert = encoder()
    look_around(bert)
    bert(torch.randint(0, 300, (2, 50))).last_hidden_state.square().sum().backward()
    frozen = [name for name, p in bert.named_parameters() if p.grad is None or not p.requires_grad]
    assert frozen == []


def test_more_neighbours_than_heads_are_refused() -> None:
    with pytest.raises(UserError, match="4 heads of 48 channels cannot look at 8 neighbours"):
        look_around(encoder(heads=4))
