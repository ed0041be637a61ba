"""From a training checkpoint to a folder that the rest of the world loads."""

from pathlib import Path

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.release.folder import save
from starcoder.training.module import load_trained


def export(checkpoint: Path, tokenizer: Path, output: Path) -> None:
    """Save the model of a Lightning checkpoint and its tokenizer as a `gpt_bigcode` folder.

    Args:
        checkpoint: file written by `starcoder fit`.
        tokenizer: folder of the tokenizer that the model was trained with.
        output: folder to write.

    Raises:
        UserError: when either is missing or damaged, or the tokenizer has more tokens than the model.
    """
    model, vocabulary = load_trained(checkpoint), tokenizers.load(tokenizer)
    if vocabulary.vocab_size > model.config.vocab_size:
        raise UserError(f"{tokenizer} has {vocabulary.vocab_size} tokens, the model only {model.config.vocab_size}")
    save(model, output, vocabulary)
