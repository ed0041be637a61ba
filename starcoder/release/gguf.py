"""A model and its vocabulary as one GGUF file, which llama.cpp and what is built on it read.

Architecture "starcoder": one K/V head, learned positions, the head tied to the token table. What that family would read
as something else is refused. Its GELU is always the tanh approximation, which differs from GELU by at most 5e-4.
"""

import json
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from starcoder.errors import UserError
from starcoder.model import StarCoderConfig
from starcoder.release.weights import Weights
from starcoder.storage import atomic_file
from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PAD, FIM_PREFIX, FIM_SUFFIX, SENTINELS, Tokenizer

_WORDS = "refact"
"""llama.cpp's name for our rule of cutting text into words: GPT-2's, each digit apart."""


@dataclass(frozen=True)
class About:
    """What else the file says of the model.

    Args:
        name: the model's.
        licence: identifier of the weights' licence, when it is known.
    """

    name: str
    licence: str | None = None


def check(config: StarCoderConfig) -> None:
    """Refuse what cannot be written, or what llama.cpp's family would misread.

    Raises:
        UserError: when the package is missing, or the model's MLP has not the width that converters assume.
    """
    if find_spec("gguf") is None:
        raise UserError(
            "a GGUF file needs the package gguf, which is not installed: pip install 'starcoder-kit[release]'"
        )
    if config.inner != 4 * config.n_embd:
        raise UserError(
            f"a GGUF file of this architecture has n_inner = 4 · n_embd = {4 * config.n_embd}, "
            f"but this model's is {config.inner}: export without --gguf"
        )


def write(
    path: Path,
    config: StarCoderConfig,
    weights: Weights,
    tokenizer: Tokenizer,
    dtype: torch.dtype = torch.float32,
    about: About | None = None,
) -> None:
    """Write the file, one tensor at a time; biases, layer norms and positions stay fp32, as llama.cpp adds them.

    Args:
        path: the file to write.
        config: the model's shape.
        weights: its weights.
        tokenizer: its vocabulary; ids of the model beyond it become unused tokens.
        dtype: float32, float16 or bfloat16, that of the matrices.
        about: the model's name and licence, which programs show.

    Raises:
        UserError: as `check` does, or when a weight is no finite number in `dtype`.
    """
    check(config)
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH.STARCODER, config.n_layer)
    with atomic_file(path) as partial, closing(GGUFWriter(partial, "starcoder")) as writer:
        _add_about(writer, config, about)
        _add_shape(writer, config, dtype)
        _add_vocabulary(writer, config, tokenizer)
        dtypes = {name: _stored_dtype(name, spec, dtype) for name, spec in weights.specs.items()}
        for name, spec in weights.specs.items():
            theirs = names.get_name(name, try_suffixes=(".weight", ".bias"))
            assert theirs, name
            kind, numbers = _kind(dtypes[name])
            writer.add_tensor_info(theirs, tuple(spec.shape), numbers, spec.numel() * numbers.itemsize, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name in weights.specs:
            writer.write_tensor_data(weights.read_as(name, dtypes[name]).view(torch.uint8).numpy())
        writer.flush()


def _stored_dtype(name: str, spec: Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype if spec.ndim > 1 and "wpe" not in name else torch.float32


def _kind(dtype: torch.dtype) -> tuple[Any, np.dtype[Any]]:
    """What GGUF calls `dtype`, and a type of numpy's that is as wide."""
    from gguf import GGMLQuantizationType

    kinds: dict[torch.dtype, tuple[Any, type]] = {
        torch.float32: (GGMLQuantizationType.F32, np.float32),
        torch.float16: (GGMLQuantizationType.F16, np.float16),
        torch.bfloat16: (GGMLQuantizationType.BF16, np.int16),
    }
    kind, stored = kinds[dtype]
    return kind, np.dtype(stored)


def _add_about(writer: Any, config: StarCoderConfig, about: About | None) -> None:
    from gguf import size_label

    writer.add_size_label(size_label(config.n_params, 0, 0, 0))
    if about:
        writer.add_name(about.name)
    if about and about.licence:
        writer.add_license(about.licence)


def _add_shape(writer: Any, config: StarCoderConfig, dtype: torch.dtype) -> None:
    from gguf import LlamaFileType

    kinds = {
        torch.float32: LlamaFileType.ALL_F32,
        torch.float16: LlamaFileType.MOSTLY_F16,
        torch.bfloat16: LlamaFileType.MOSTLY_BF16,
    }
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.inner)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(kinds[dtype])


def _add_vocabulary(writer: Any, config: StarCoderConfig, tokenizer: Tokenizer) -> None:
    from gguf import TokenType

    model = json.loads(tokenizer.backend.to_str())["model"]
    symbols = sorted(model["vocab"], key=model["vocab"].__getitem__)
    ordinary, unused = len(symbols) - len(SENTINELS), config.vocab_size - len(symbols)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_WORDS)
    writer.add_token_list([*symbols, *(f"<unused_{n}>" for n in range(unused))])
    writer.add_token_types(
        len(SENTINELS) * [TokenType.CONTROL] + ordinary * [TokenType.NORMAL] + unused * [TokenType.UNUSED]
    )
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_bos_token_id(EOD)
    writer.add_eos_token_id(EOD)
    writer.add_unk_token_id(EOD)
    writer.add_add_bos_token(False)
    for name, number in (("pre", FIM_PREFIX), ("suf", FIM_SUFFIX), ("mid", FIM_MIDDLE), ("pad", FIM_PAD)):
        writer.add_uint32(f"tokenizer.ggml.fim_{name}_token_id", number)
