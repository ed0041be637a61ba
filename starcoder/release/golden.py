"""golden.json: what a release answered on the day it was written, for whoever loads it later to compare with.

For a few prompts it holds the token ids and, at the last positions, the likeliest tokens and their logits in fp32. They
come from the written folder, of which one block is in memory at a time: a laptop writes them for the 15.5B model.

Shapes: T tokens of a prompt, N last positions, K likeliest tokens, V vocabulary, C channels.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from starcoder.distributed import fill
from starcoder.errors import UserError, one_line
from starcoder.linear import linear
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.folder import read_config, read_weights
from starcoder.release.weights import Weights
from starcoder.storage import sha256
from starcoder.tokenizer import Tokenizer

FILE = "golden.json"
PROMPTS = (
    'def greet(name: str) -> str:\n    """Say hello 3 times."""\n    return f"Hello, {name}! " * 3\n',
    "# naïve café, 北京, 3.14159\nx  = [\t1,  22, 333 ]\n\n",
    "<fim_prefix>def add(a, b):\n    return <fim_suffix>\n\nprint(add(1, 2))\n<fim_middle>",
)
POSITIONS = 3
LIKELIEST = 5
_ROWS = 4096
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Golden:
    """What one prompt gave.

    Args:
        text: the prompt, in which a sentinel's spelling is the control token.
        ids: its T tokens.
        positions: the N last of those that fit the model's context, counted from 0.
        top_ids: the K likeliest next tokens there, (N, K).
        top_logits: their logits, (N, K).
    """

    text: str
    ids: list[int]
    positions: list[int]
    top_ids: list[list[int]]
    top_logits: list[list[float]]


def write(folder: Path, tokenizer: Tokenizer) -> None:
    """Compute golden.json from a model's folder, and write it there."""
    prompts = [tokenizer.encode_prompt(text) for text in PROMPTS]
    goldens = [
        _golden(text, ids, min(len(ids), read_config(folder).context_length), logits)
        for text, ids, logits in zip(PROMPTS, prompts, last_logits(folder, prompts), strict=True)
    ]
    content = {
        "precision": "float32",
        "sha256": {path.name: sha256(path) for path in _weight_files(folder)},
        "prompts": [vars(golden) for golden in goldens],
    }
    (folder / FILE).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _golden(text: str, ids: list[int], end: int, logits: Tensor) -> Golden:
    n, size = logits.shape
    top = logits.topk(min(LIKELIEST, size))
    return Golden(text, ids, list(range(end - n, end)), top.indices.tolist(), top.values.tolist())


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".gguf"))


def changed(folder: Path) -> list[str]:
    """Files of weights whose bytes are not those beside which golden.json was written; no few prompts see every weight.

    Raises:
        UserError: when golden.json is damaged.
    """
    path = folder / FILE
    try:
        digests = dict(json.loads(path.read_bytes()).get("sha256", {}))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
    files = {file.name: file for file in _weight_files(folder)}
    return [name for name, digest in digests.items() if name in files and sha256(files[name]) != digest]


def read(folder: Path) -> list[Golden]:
    """Read golden.json; no prompts when there is none.

    Raises:
        UserError: when it is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        goldens = [Golden(**prompt) for prompt in content["prompts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
    if not goldens:
        raise UserError(f"{path} is damaged: it has no prompts")
    config = read_config(folder)
    for number, golden in enumerate(goldens):
        if problem := _problem(golden, config):
            raise UserError(f"{path} is damaged: {problem} of prompt {number} cannot be")
    return goldens


def _problem(golden: Golden, config: StarCoderConfig) -> str | None:
    """The field that no model of this shape can have given, if there is one."""
    if not isinstance(golden.text, str):
        return "text"
    if not _are_below(golden.ids, config.vocab_size):
        return "ids"
    if not _are_below(golden.positions, min(len(golden.ids), config.context_length)):
        return "positions"
    n = len(golden.positions)
    if not _are_rows(golden.top_ids, n, lambda row: _are_below(row, config.vocab_size)):
        return "top_ids"
    fit = _are_rows(golden.top_logits, n, _are_logits) and len(golden.top_logits[0]) == len(golden.top_ids[0])
    return None if fit else "top_logits"


def _are_rows(rows: Any, n: int, is_row: Callable[[Any], bool]) -> bool:
    """Whether that is a list of `n` rows of one width."""
    return isinstance(rows, list) and len(rows) == n and all(map(is_row, rows)) and len({*map(len, rows)}) == 1


def _are_below(numbers: Any, end: int) -> bool:
    """Whether that is a list of one or more integers from 0 to below `end`."""
    return isinstance(numbers, list) and bool(numbers) and all(type(n) is int and 0 <= n < end for n in numbers)


def _are_logits(numbers: Any) -> bool:
    """Whether that is a list of numbers that fp32 has."""
    return isinstance(numbers, list) and all(type(x) in (int, float) and abs(x) < _LARGEST for x in numbers)


@torch.inference_mode()
def last_logits(folder: Path, prompts: list[list[int]]) -> list[Tensor]:
    """Logits (N, V) at the last positions of each prompt, or of what fits of it, in fp32.

    Raises:
        UserError: when the folder is damaged.
    """
    config = read_config(folder).replace(dropout=0.0)
    weights = read_weights(folder, config)
    prompts = [ids[: config.context_length] for ids in prompts]
    with torch.device("meta"):
        model = StarCoder(config).transformer
    table, places = weights.read("transformer.wte.weight"), weights.read("transformer.wpe.weight")
    hidden = [(table[ids].float() + places[: len(ids)].float()).unsqueeze(0) for ids in prompts]  # (1, T, C)
    del table, places
    block, norm = (module.to_empty(device="cpu") for module in (model.h[0], model.ln_f))
    for layer in range(config.n_layer):  # all in the same memory: an allocator would not give back each block's own
        _read_into(block, weights, f"transformer.h.{layer}.")
        hidden = [block(x) for x in hidden]
    _read_into(norm, weights, "transformer.ln_f.")
    last = [norm(x[0, -POSITIONS:]) for x in hidden]  # (N, C)
    return list(torch.split(_head(torch.cat(last), weights), [len(x) for x in last]))


def _read_into(module: nn.Module, weights: Weights, prefix: str) -> None:
    for name, parameter in module.named_parameters():
        fill(parameter, lambda part, name=name: weights.read_part(prefix + name, part))  # type: ignore[misc]


def _head(x: Tensor, weights: Weights) -> Tensor:
    """Logits (M, V) of hidden states (M, C), reading some rows of the table at a time."""
    name = "transformer.wte.weight"
    starts = range(0, len(weights.specs[name]), _ROWS)
    rows = (weights.read_part(name, (slice(start, start + _ROWS), slice(None))) for start in starts)
    return torch.cat([linear(x, part.float()) for part in rows], dim=-1)
