"""StarEncoder (paper §4.2): a BERT of 125 M parameters that reads code in both directions.

The architecture is transformers' `BertForPreTraining`; here are its shapes, and reading and writing its folder.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starcoder.errors import UserError, one_line
from starcoder.release.folder import local_folder

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel

SPECIAL_TOKENS = ("<pad>", "<sep>", "<cls>", "<mask>")
"""They follow the V tokens of StarCoder's tokenizer, in this order."""

PRESETS: dict[str, dict[str, Any]] = {
    "starencoder": {  # the paper's; dropout and epsilon are those of bert-base-cased, from which the authors' code starts
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "max_position_embeddings": 1024,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
    "laptop": {  # minutes on two cores; so few steps leave nothing to overfit, so there is no dropout
        "num_hidden_layers": 4,
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_attention_heads": 6,
        "max_position_embeddings": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}


def encoder_config(preset: str, vocab_size: int, **changes: Any) -> "BertConfig":
    """The shape of an encoder, with `changes` on top of the preset's.

    Args:
        preset: "starencoder" or "laptop".
        vocab_size: tokens of StarCoder's tokenizer, V; the model has four more, `SPECIAL_TOKENS`.
        changes: fields of `BertConfig`.

    Raises:
        UserError: when there is no such preset or field, or a value cannot be.
    """
    from transformers import BertConfig

    if preset not in PRESETS:
        raise UserError(f"no encoder is called {preset!r}, only {', '.join(PRESETS)}")
    fields = PRESETS[preset] | changes
    known = BertConfig().to_dict()
    if unknown := sorted(fields.keys() - known.keys()):
        raise UserError(f"an encoder's configuration has no {', '.join(unknown)}")
    special = {"vocab_size": vocab_size + len(SPECIAL_TOKENS), "pad_token_id": vocab_size}
    try:
        config = BertConfig(**fields | special)
    except Exception as error:  # `strict` data classes raise a family of their own
        raise UserError(f"the encoder cannot have this shape: {one_line(error)}") from None
    if config.hidden_size % config.num_attention_heads:
        raise UserError(f"{config.hidden_size} channels cannot be shared out to {config.num_attention_heads} heads")
    return config


def load_encoder(source: str | Path, revision: str | None = None) -> "BertModel":
    """Read the encoder alone, without the heads of its pretraining, from a folder or a Hub repository.

    Args:
        source: a folder that `starcoder fit` wrote, or `owner/name` on the Hub, such as bigcode/starencoder.
        revision: branch, tag or commit of the repository; main when not given.

    Raises:
        UserError: when it holds no BERT, or its weights are missing, damaged or of another shape.
    """
    from transformers import BertModel

    folder = local_folder(source, revision=revision)
    check_encoder(folder)
    try:
        model, report = BertModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    except Exception as error:  # transformers and safetensors raise what they stumble over
        raise UserError(f"the encoder in {folder} cannot be read: {one_line(error)}") from None
    if report["missing_keys"]:
        raise UserError(f"the encoder in {folder} lacks weights, such as {sorted(report['missing_keys'])[0]}")
    encoder: BertModel = model
    return encoder


def check_encoder(folder: Path) -> None:
    """Refuse a folder whose model is no BERT.

    Raises:
        UserError: saying what it is instead.
    """
    path = folder / "config.json"
    try:
        kind = json.loads(path.read_bytes()).get("model_type")
    except FileNotFoundError:
        raise UserError(f"{folder} holds no model: config.json is missing") from None
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is no configuration: {one_line(error)}") from None
    if kind != "bert":
        raise UserError(f"the model in {folder} is a {kind}, but an encoder is a bert, such as bigcode/starencoder")
