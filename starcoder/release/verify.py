"""Proof that a saved folder means the same to transformers as to us."""

from importlib.util import find_spec
from pathlib import Path

import torch

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder

SNIPPET = 'def greet(name: str) -> str:\n    """Say hello 3 times."""\n    return f"Hello, {name}! " * 3\n'
TOLERANCE = 1e-4
"""Largest difference of logits, as a share of the largest logit."""


def verify(folder: Path) -> None:
    """Load a folder with transformers' Auto classes and compare token ids and logits with ours.

    Args:
        folder: what `starcoder export` wrote.

    Raises:
        UserError: when transformers is not installed, or the two disagree.
    """
    if find_spec("transformers") is None:
        raise UserError("verify compares with transformers, which is not installed: pip install transformers")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it without types

    ours, vocabulary = StarCoder.from_pretrained(folder, dtype=torch.float32).eval(), tokenizers.load(folder)
    theirs, their_vocabulary = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    ids = vocabulary.encode(SNIPPET)
    if their_vocabulary(SNIPPET)["input_ids"] != ids:
        raise UserError(f"{folder}: transformers tokenizes differently")
    tokens = torch.tensor([ids[: ours.config.context_length]])  # (1, T)
    with torch.inference_mode():
        expected = theirs(tokens).logits  # (1, T, V)
        difference = ((ours(tokens) - expected).abs().max() / expected.abs().max()).item()
    if difference > TOLERANCE:
        raise UserError(f"{folder}: logits differ from transformers' by {difference:.1e}")
    print(f"transformers loads {folder}: same token ids, logits equal within {difference:.1e}")
