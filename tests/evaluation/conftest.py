"""A small model with random weights and its tokenizer, as the folder that engines read."""

from pathlib import Path

import pytest

from starcoder import tokenizer as tokenizers
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.folder import save

CODE = "def add(a, b):\n    return a + b\n\n\nclass Adder:\n    def __call__(self, a, b): return add(a, b)\n"
CONFIG = StarCoderConfig(
    vocab_size=310, context_length=64, n_layer=2, n_head=4, n_embd=32, n_inner=56, dropout=0.0, init_std=0.25
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows of the model's table are unknown to the tokenizer."""
    path = tmp_path_factory.mktemp("engines") / "model"
    save(StarCoder(CONFIG, seed=3), path, tokenizers.train([CODE] * 9, vocab_size=300))
    return path
