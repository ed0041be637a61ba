"""How the BigCode project's own releases differ from what transformers writes today.

activation_function     the tanh approximation of GELU has had four names
model_type "gpt2"       the first SantaCoder: queries apart from key and value, and all of the blocks' matrices
                        stored (in, out), as GPT-2's are, instead of (out, in)
lm_head.weight          a copy of the token table, or the token table's only copy, or absent
h.N.attn.bias           causal masks that were saved as if they were weights
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ACTIVATIONS = {
    **dict.fromkeys(("gelu_fast", "gelu_new", "gelu_accurate"), "gelu_pytorch_tanh"),
    "gelu_python": "gelu",
}
_MASK = re.compile(r"\.attn\.(masked_)?bias$")
_MATRIX = re.compile(r"\.h\.\d+\.(attn|mlp)\.\w+\.weight$")
_TABLE = "transformer.wte.weight"
HEAD = "lm_head.weight"


def plain_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw`, the content of a config.json, in the words that transformers' `gpt_bigcode` has for it."""
    plain = {"n_inner": None, **raw}
    activation = plain.get("activation_function")
    plain["activation_function"] = _ACTIVATIONS.get(str(activation), activation)
    if plain["model_type"] == "gpt2" and "attention_head_type" in plain:
        plain |= {"model_type": "gpt_bigcode", "multi_query": plain["attention_head_type"] == "multiquery"}
    return plain


@dataclass(frozen=True)
class Origin:
    """The stored tensors that make one parameter: one above the other, each transposed if need be."""

    names: tuple[str, ...]
    transposed: bool = False

    def assemble(self, read: Callable[[str], Tensor]) -> Tensor:
        """The parameter, given what reads a stored tensor; on `meta`, its shape and dtype."""
        parts = [read(name).T if self.transposed else read(name) for name in self.names]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def origins(stored: Mapping[str, Tensor], n_embd: int) -> dict[str, Origin]:
    """Where each parameter of ours comes from, given the stored tensors, real or on `meta`.

    The head is left out where the token table is there too.
    """
    transposed = _is_transposed(stored, n_embd)
    found: dict[str, Origin] = {}
    for name in stored:
        if name == HEAD:
            found.setdefault(_TABLE, Origin((HEAD,)))
        elif ".attn.q_attn." in name:
            both = (name, name.replace("q_attn", "kv_attn"))
            found[name.replace("q_attn", "c_attn")] = Origin(both, transposed and name.endswith("weight"))
        elif ".attn.kv_attn." not in name and not _MASK.search(name):
            found[name] = Origin((name,), transposed and bool(_MATRIX.search(name)))
    return found


def _is_transposed(stored: Mapping[str, Tensor], n_embd: int) -> bool:
    shape = (
        tuple(stored["transformer.h.0.mlp.c_fc.weight"].shape) if "transformer.h.0.mlp.c_fc.weight" in stored else ()
    )
    apart = "transformer.h.0.attn.q_attn.weight" in stored
    return len(shape) == 2 and shape[0] == n_embd and (shape[1] != n_embd or apart)
