"""StarEncoder (paper §4.2): a BERT of 125 M parameters that reads code in both directions.

The architecture is transformers' `BertForPreTraining`; here are its shapes, its losses, and
reading and writing its folder.

Shapes: B samples, T tokens, C channels, K targets, V tokens of StarCoder's tokenizer.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForPreTraining, BertModel

from starcoder.distributed import Divisible, fill
from starcoder.errors import UserError, one_line
from starcoder.model import keyed_normal
from starcoder.pii.pairs import MASK_RATE, Batch
from starcoder.pii.pretrained import quiet, read_whole
from starcoder.pii.vocabulary import SPECIAL_TOKENS, save_vocabulary
from starcoder.release.folder import local_folder
from starcoder.storage import atomic_folder
from starcoder.tokenizer import Tokenizer
from starcoder.training.checkpoint import newest, read_meta, read_weights

MARKER = "starencoder.json"
"""The file without which a folder is no encoder of ours."""

PRESETS: dict[str, dict[str, Any]] = {
    "starencoder": {  # dropout is that of bert-base-cased, from which the authors' code starts
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "max_position_embeddings": 1024,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
    "laptop": {  # minutes on two cores; so few steps leave nothing to overfit, so there is no dropout
        "num_hidden_layers": 2,
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.07,  # BERT's 0.02 is for 768 channels: with it a narrow model learns nothing for long
    },
}


SHAPE = ("vocab_size", *PRESETS["starencoder"], "hidden_act", "layer_norm_eps", "initializer_range", "pad_token_id")
"""What a checkpoint keeps of the configuration."""


def encoder_config(preset: str, vocab_size: int, **changes: Any) -> BertConfig:
    """The shape of an encoder, with `changes` on top of the preset's.

    Args:
        preset: "starencoder" or "laptop".
        vocab_size: tokens of StarCoder's tokenizer, V; the model has four more, `SPECIAL_TOKENS`.
        changes: fields of `BertConfig`.

    Raises:
        UserError: when there is no such preset or field, or a value cannot be.
    """
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


def flops_per_token(config: BertConfig, length: int) -> int:
    """FLOPs of forward and backward for one token in a sequence of `length`, as `StarCoderConfig.flops_per_token`.

    The head multiplies for the targets alone.
    """
    c, layers = config.hidden_size, config.num_hidden_layers
    blocks = layers * (4 * c * c + 2 * c * config.intermediate_size)
    head = MASK_RATE * (c * c + c * config.vocab_size)
    return int(6 * (blocks + head)) + 12 * layers * c * length


class StarEncoder(Divisible):
    """Encoder and heads of `BertForPreTraining`, under its names; the table of tokens is also the MLM head's matrix.

    Args:
        config: its shape.
    """

    forward_methods = ("measure",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        whole = BertForPreTraining(config)
        self.bert, self.cls = whole.bert, whole.cls
        del self.cls.predictions.decoder  # one tensor under two names comes apart when the model is sharded

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers, in their order."""
        return list(self.bert.encoder.layer)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw every parameter as BERT does, a function of (seed, name) alone; <pad> is the zero vector."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "LayerNorm" in name:
                parameter.fill_(1.0)
            else:
                values = keyed_normal(parameter.shape, self.config.initializer_range, f"{seed}:{name}")
                if "word_embeddings" in name:
                    values[self.config.pad_token_id] = 0.0
                fill(parameter, values.__getitem__)

    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Both losses in nats and both accuracies, in fp32; logits are computed at the K targets alone.

        Args:
            batch: as `starcoder.pii.pairs.Collate` makes it.
        """
        out = self.bert(
            batch["input_ids"],
            attention_mask=batch["attention_mask"],
            token_type_ids=batch["token_type_ids"],
            position_ids=torch.arange(batch["input_ids"].size(1), device=batch["input_ids"].device).unsqueeze(0),
        )
        hidden = self.cls.predictions.transform(out.last_hidden_state.flatten(0, 1)[batch["masked"]])  # (K, C)
        table = self.bert.embeddings.word_embeddings.weight
        tokens = F.linear(hidden, table, self.cls.predictions.bias).float()  # (K, V+4)
        order = self.cls.seq_relationship(out.pooler_output).float()  # (B, 2)
        targets, foreign = batch["targets"], batch["next_sentence_label"]
        count = max(1, len(targets))
        return {
            "mlm_loss": F.cross_entropy(tokens, targets, reduction="sum") / count,
            "nsp_loss": F.cross_entropy(order, foreign),
            "mlm_accuracy": (tokens.argmax(-1) == targets).sum() / count,
            "nsp_accuracy": (order.argmax(-1) == foreign).float().mean(),
        }


def save_encoder(checkpoint: Path, tokenizer: Tokenizer, output: Path) -> None:
    """Write the encoder of a checkpoint, or of the newest in a folder of checkpoints, as transformers' folder.

    Raises:
        UserError: when there is none, it is damaged, or not of an encoder or this tokenizer, or something else is in
            `output`.
    """
    path = newest(checkpoint) or checkpoint
    meta = read_meta(path)
    if not is_encoder(meta):
        raise UserError(f"{path} is no checkpoint of an encoder")
    if meta["tokenizer"] != tokenizer.digest:
        raise UserError(f"{path} was trained with another tokenizer: name that")
    config = BertConfig(**meta["model_config"])
    with torch.device("meta"):
        model = BertForPreTraining(config)
    prefix = "model."
    weights = {
        name.removeprefix(prefix): tensor for name, tensor in read_weights(path).items() if name.startswith(prefix)
    }
    tied = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    try:
        model.load_state_dict(weights | {name: weights[other] for name, other in tied.items()}, assign=True)
    except (LookupError, RuntimeError) as error:
        raise UserError(f"{path} does not fit this version of the kit: {one_line(error)}") from None
    model.tie_weights()
    with atomic_folder(output, MARKER) as partial, quiet():
        model.save_pretrained(partial)
        mode = (partial / "config.json").stat().st_mode
        for path in partial.glob("*.safetensors"):  # safetensors lets nobody else read them
            path.chmod(mode)
        save_vocabulary(tokenizer, partial, config.max_position_embeddings)
        record = {"step": meta["global_step"], "tokenizer": meta["tokenizer"], "data": meta.get("EncoderDataModule")}
        (partial / MARKER).write_text(json.dumps(record, indent=2) + "\n")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"wrote {output}: an encoder of {parameters:,} parameters after {meta['global_step']:,} steps", flush=True)


def is_encoder(meta: dict[str, Any]) -> bool:
    """Whether what `read_meta` has read is of an encoder's checkpoint."""
    return (meta.get("model_config") or {}).get("model_type") == "bert"


def load_encoder(source: str | Path, revision: str | None = None) -> BertModel:
    """Read the encoder alone, without the heads of its pretraining, from a folder or a Hub repository.

    Args:
        source: a folder that `starcoder fit` wrote, or `owner/name` on the Hub, such as bigcode/starencoder.
        revision: branch, tag or commit of the repository; main when not given.

    Raises:
        UserError: when it holds no BERT, or its weights are missing, damaged or of another shape.
    """
    folder = local_folder(source, revision=revision)
    check_encoder(folder)
    encoder: BertModel = read_whole(BertModel, folder, add_pooling_layer=False)
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
