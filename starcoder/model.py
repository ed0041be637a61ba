"""StarCoder's decoder: a GPT-2-style transformer with multi-query attention (paper §5.4).

Read from bottom to top: `StarCoder` holds a `Transformer`, which stacks `Block`s of `Attention` and `MLP`.
What differs from GPT-2: every head has its own queries, but all heads share one key and one value per token.

    x (B, T, C) ── c_attn ──► Q  h0 h1 … h47 │ K │ V        the cache holds 2·D numbers a token and layer, not 2·C
                                  └──┴───┴────┘   │
                                   softmax(Q Kᵀ/√D) V ── c_proj ──► (B, T, C)

Parameter names and shapes are those of transformers' `gpt_bigcode`, so a state dict is a Hub checkpoint; the head is
the token table itself (tied), hence there is no `lm_head` parameter.

Shapes: B batch, T tokens, S slots of the cache, L layers, V vocabulary, C channels, H heads, D head size (C / H).
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from starcoder.cache import KVCache
from starcoder.distributed import Divisible, fill
from starcoder.errors import UserError
from starcoder.linear import Linear, linear
from starcoder.loss import linear_cross_entropy

_GELU = {"gelu": "none", "gelu_pytorch_tanh": "tanh"}
_SIZES = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd", "n_inner")
_SCALES = ("layer_norm_epsilon", "init_std")
_OPTIONAL = ("n_inner", "init_std")


@dataclass(frozen=True)
class StarCoderConfig:
    """The shape of a model; the defaults are the paper's 15.5B (Table 6).

    Args:
        vocab_size: rows of the token table.
        context_length: longest sequence in tokens (rows of the learned position table).
        n_layer: number of blocks.
        n_head: query heads; the key and the value have one head.
        n_embd: channels of the residual stream.
        n_inner: channels inside the MLP; 4 · n_embd when not given.
        dropout: probability on embeddings, attention weights and both residual branches.
        activation: GELU by erf (`gelu`) or by tanh (`gelu_pytorch_tanh`), spelled as in transformers.
        layer_norm_epsilon: added to the variance in every layer norm.
        init_std: standard deviation of the initial weights; 1/√n_embd when not given, as in the original runs.

    Raises:
        UserError: naming every value that cannot be.
    """

    vocab_size: int = 49_152
    context_length: int = 8192
    n_layer: int = 40
    n_head: int = 48
    n_embd: int = 6144
    n_inner: int | None = None
    dropout: float = 0.1
    activation: Literal["gelu", "gelu_pytorch_tanh"] = "gelu"
    layer_norm_epsilon: float = 1e-5
    init_std: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None or name not in _OPTIONAL}
        problems = [
            f"{name} is {given[name]!r}, no positive {kinds[0].__name__}"
            for names, kinds in ((_SIZES, (int,)), (_SCALES, (float, int)))
            for name in names
            if name in given and not (type(given[name]) in kinds and given[name] > 0)
        ]
        if not problems and self.n_embd % self.n_head:
            problems.append(f"n_embd {self.n_embd} is no multiple of n_head {self.n_head}")
        if type(self.dropout) not in (float, int) or not 0 <= self.dropout < 1:
            problems.append(f"dropout is {self.dropout!r}, outside [0, 1)")
        if self.activation not in list(_GELU):
            problems.append(f"activation is {self.activation!r}, none of {', '.join(_GELU)}")
        if problems:
            raise UserError("model configuration: " + "; ".join(problems))

    @property
    def head_size(self) -> int:
        """D: channels of one head."""
        return self.n_embd // self.n_head

    @property
    def inner(self) -> int:
        """Channels inside the MLP."""
        return self.n_inner or 4 * self.n_embd

    @property
    def std(self) -> float:
        """Standard deviation of the initial weights."""
        return self.init_std or self.n_embd**-0.5

    @property
    def n_params(self) -> int:
        """Number of trained parameters, the tied token table counted once."""
        c, d = self.n_embd, self.head_size
        attention = (c + 1) * (c + 2 * d) + (c + 1) * c
        mlp = (c + 1) * self.inner + (self.inner + 1) * c
        return self.n_layer * (attention + mlp + 4 * c) + 2 * c + (self.vocab_size + self.context_length) * c

    def flops_per_token(self, length: int) -> int:
        """FLOPs of forward and backward for one token in a sequence of `length` tokens, PaLM's convention.

        Six per parameter that multiplies (the position table is only looked up), and 12·L·C·T for attention, which
        counts the whole T×T square although causality needs half of it.
        """
        multiplied = self.n_params - self.context_length * self.n_embd
        return 6 * multiplied + 12 * self.n_layer * self.n_embd * length

    def replace(self, **changes: Any) -> Self:
        """A copy with other values in some fields; a name that is no field is a `UserError`."""
        names = [field.name for field in dataclasses.fields(self)]
        if unknown := changes.keys() - names:
            raise UserError(f"the model's configuration has no {', '.join(sorted(unknown))}, only {', '.join(names)}")
        return dataclasses.replace(self, **changes)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The shape of a released model, or of the smoke run, with `changes` on top.

        Raises:
            UserError: when there is no such preset or field.
        """
        if name not in PRESETS:
            raise UserError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return cls(**PRESETS[name]).replace(**changes)

    @classmethod
    def from_pretrained(cls, source: str | Path, revision: str | None = None, **changes: Any) -> "StarCoderConfig":
        """The shape of the model in a `gpt_bigcode` folder or Hub repository, with `changes` on top."""
        from starcoder.release.folder import local_folder, read_config

        return read_config(local_folder(source, revision=revision)).replace(**changes)


_1B: dict[str, Any] = {"n_layer": 24, "n_embd": 2048, "n_head": 16}
_TANH: dict[str, Any] = {"activation": "gelu_pytorch_tanh"}
_LAPTOP: dict[str, Any] = {"vocab_size": 4096, "context_length": 256, "dropout": 0.0}

PRESETS: dict[str, dict[str, Any]] = {
    "starcoderbase": {},
    "starcoderbase-7b": {"n_layer": 42, "n_embd": 4096, "n_head": 32},
    "starcoderbase-3b": {"n_layer": 36, "n_embd": 2816, "n_head": 22},
    "starcoderbase-1b": _1B,
    "santacoder": {"vocab_size": 49_280, "context_length": 2048} | _1B | _TANH,
    "tiny-starcoder": {"n_layer": 20, "n_embd": 768, "n_head": 12} | _TANH,
    "smoke": {"n_layer": 3, "n_embd": 192, "n_head": 6} | _LAPTOP,
}


def _flash_attn_func() -> Any:
    """That of flash-attn 2, where it is installed; flash-attn-4 brings a `flash_attn` too, without it."""
    there = torch.cuda.is_available() and find_spec("flash_attn")
    return getattr(import_module("flash_attn"), "flash_attn_func", None) if there else None


flash_attn_func = _flash_attn_func()


def takes_flash_attn(device: str, dtype: torch.dtype) -> bool:
    """Whether causal attention runs in flash-attn: where it is installed, on CUDA, in half precision."""
    return flash_attn_func is not None and device == "cuda" and dtype in (torch.float16, torch.bfloat16)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Attention of a sequence to itself: q (B, H, T, D), k and v (B, 1, T, D), result (B, H, T, D).

    K and V are never materialised for each head: flash-attn and CUDA's SDPA read the one K/V head natively; on CPU a
    zero-stride view costs nothing, and its backward is faster than that of SDPA's own grouped path.
    """
    if takes_flash_attn(q.device.type, q.dtype):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, T, H or 1, D)
        out: Tensor = flash_attn_func(q, k, v, dropout_p=dropout, causal=True)
        return out.transpose(1, 2)
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=True)
    return F.scaled_dot_product_attention(q, k.expand_as(q), v.expand_as(q), dropout_p=dropout, is_causal=True)


def cached_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of new tokens to cached ones: q (B, H, T, D), k and v (B, S, D), result (B, H, T, D).

    With one K/V head, all heads of all tokens are rows of a single query matrix. `mask` (B, T, S) says which slots a
    token may look at; none means all.
    """
    rows = q.flatten(1, 2)  # (B, H·T, D)
    if mask is not None and mask.size(1) > 1:
        mask = mask.repeat(1, q.size(1), 1)  # (B, H·T, S)
    if q.is_cuda and q.size(2) == 1:
        return _attention_in_steps(rows, k, v, mask).view_as(q)
    rows, k, v = (x.unsqueeze(1) for x in (rows, k, v))
    mask = None if mask is None else mask.unsqueeze(1)  # (B, 1, 1 or H·T, S)
    return F.scaled_dot_product_attention(rows, k, v, attn_mask=mask).view_as(q)


def _attention_in_steps(rows: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of rows (B, H, D) to k and v (B, S, D), with scores in fp32.

    SDPA's kernels share the work among heads and queries; one token with a single K/V head leaves a GPU nearly idle.
    """
    half = rows.is_cuda and rows.dtype != torch.float32
    scores = torch.bmm(rows, k.mT, out_dtype=torch.float32) if half else torch.bmm(rows, k.mT)  # (B, H, S)
    scores = scores * rows.size(-1) ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.bmm(scores.softmax(-1).to(v.dtype), v)


class Attention(nn.Module):
    """Multi-query self-attention: H query heads, one key head, one value head."""

    def __init__(self, config: StarCoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = Linear(config.n_embd, config.n_embd + 2 * config.head_size)
        self.c_proj = Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cache: KVCache | None) -> Tensor:
        """Attend within x (B, T, C), and to the cache when it holds earlier tokens."""
        c, d = x.size(-1), x.size(-1) // self.n_head
        q, kv = self.c_attn(x).split((c, 2 * d), dim=-1)  # (B, T, C), (B, T, 2·D)
        q = q.unflatten(-1, (self.n_head, d)).transpose(1, 2)  # (B, H, T, D)
        k, v = (cache.update(self.layer, kv) if cache else kv).chunk(2, dim=-1)  # (B, S or T, D)
        if cache and cache.end > x.size(1):
            y = cached_attention(q, k, v, cache.mask)
        else:
            y = causal_attention(q, k.unsqueeze(1), v.unsqueeze(1), self.dropout if self.training else 0.0)
        out: Tensor = self.c_proj(y.transpose(1, 2).flatten(2))  # (B, T, C)
        return out


class MLP(nn.Module):
    """C → inner → C with GELU between."""

    def __init__(self, config: StarCoderConfig) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, config.inner)
        self.c_proj = Linear(config.inner, config.n_embd)
        self.approximate = _GELU[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, C) to (B, T, C)."""
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate=self.approximate))
        return out


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP."""

    def __init__(self, config: StarCoderConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None = None) -> Tensor:
        """Map x (B, T, C) to (B, T, C)."""
        x = x + self.drop(self.attn(self.ln_1(x), cache))
        out: Tensor = x + self.drop(self.mlp(self.ln_2(x)))
        return out


class TokenTable(nn.Embedding):
    """A vector for each token, which is the head too."""

    def logits(self, x: Tensor) -> Tensor:
        """Map hidden states x (…, C) to logits (…, V)."""
        return linear(x, self.weight)

    def floats(self) -> Tensor:
        """The table (V, C) in fp32."""
        return self.weight.float()


class Transformer(nn.Module):
    """Token and position tables, the blocks, and the last layer norm."""

    def __init__(self, config: StarCoderConfig) -> None:
        super().__init__()
        self.wte = TokenTable(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.context_length, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)

    def forward(self, tokens: Tensor, positions: Tensor, cache: KVCache | None) -> Tensor:
        """Map tokens (B, T) at positions (B, T) or (1, T) to hidden states (B, T, C)."""
        x = self.drop(self.wte(tokens) + self.wpe(positions))
        for block in self.h:
            x = block(x, cache)
        out: Tensor = self.ln_f(x)
        return out


_LOGITS_AT_ONCE = 2**24


class StarCoder(Divisible):
    """The language model of the paper.

    Args:
        config: its shape.
        seed: what the initial weights are a function of, together with each parameter's name.
    """

    forward_methods = ("loss", "nats", "next_logits")

    def __init__(self, config: StarCoderConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):  # lest every layer draws values that `init_weights` overwrites
            self.transformer = Transformer(config)
        if torch.get_default_device().type != "meta":
            self.to_empty(device=torch.get_default_device())
            self.init_weights(seed)

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers, in their order."""
        return list(self.transformer.h)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw every parameter as the original runs did: N(0, std), the blocks' output projections N(0, std/√(2L)).

        Each parameter's numbers depend on (seed, name) alone, so any layout over any number of devices starts from the
        same weights.
        """
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "ln_" in name:
                parameter.fill_(1.0)
            else:
                std = self.config.std / (math.sqrt(2 * self.config.n_layer) if "c_proj" in name else 1.0)
                values = keyed_normal(parameter.shape, std, f"{seed}:{name}")
                fill(parameter, values.__getitem__)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits of the next token at every position, (B, T, V); arguments and errors as for `hidden`."""
        return self.transformer.wte.logits(self.hidden(tokens, cache))

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Hidden states (B, T, C) before the head, of tokens (B, T) that go on where those in `cache` end.

        Raises:
            UserError: when the sequence is longer than the model's context.
        """
        n = tokens.size(1)
        positions = cache.extend(n) if cache else torch.arange(n, device=tokens.device).unsqueeze(0)  # (B or 1, T)
        if (length := cache.end if cache else n) > self.config.context_length:
            raise UserError(f"{length} tokens do not fit the model's context of {self.config.context_length}")
        out: Tensor = self.transformer(tokens, positions, cache)
        return out

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of targets (B, T) given tokens (B, T), without ever holding all the logits."""
        x = self.hidden(tokens).flatten(0, 1)  # (B·T, C)
        return linear_cross_entropy(x, self.transformer.wte.weight, targets.flatten())

    def next_logits(self, tokens: Tensor, cache: KVCache, ends: Tensor | None = None) -> Tensor:
        """Logits (B, V) of what follows tokens (B, T), of which row b ends before `ends[b]` when that is given."""
        x = self.hidden(tokens, cache)  # (B, T, C)
        last = x[:, -1] if ends is None else x[torch.arange(len(x), device=x.device), ends - 1]  # (B, C)
        return self.transformer.wte.logits(last)

    def nats(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy in nats of each of targets (B, T) given tokens (B, T); the logits are products in fp32."""
        with torch.autocast(tokens.device.type, enabled=False):
            x = self.hidden(tokens).flatten(0, 1)  # (B·T, C)
            table = self.transformer.wte.floats()  # (V, C)
            together = max(1, _LOGITS_AT_ONCE // len(table))
            pieces = zip(torch.split(x, together), torch.split(targets.flatten(), together), strict=True)
            nats = [F.cross_entropy(linear(part.float(), table), right, reduction="none") for part, right in pieces]
        return torch.cat(nats).view_as(targets)

    @classmethod
    def from_pretrained(
        cls, source: str | Path, dtype: torch.dtype | None = None, revision: str | None = None, **changes: Any
    ) -> Self:
        """Load a `gpt_bigcode` folder or Hub repository; see `starcoder.release.folder.load`."""
        from starcoder.release.folder import load

        return load(cls, source, dtype, revision, **changes)

    def load_pretrained(self, source: str | Path) -> None:
        """Take over the weights of a `gpt_bigcode` folder or Hub repository; a sharded model reads its part alone."""
        from starcoder.release.folder import load_weights, local_folder

        load_weights(self, local_folder(source))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that transformers loads unchanged; see `starcoder.release.folder.save`."""
        from starcoder.release.folder import save

        save(self, Path(folder))

    def push_to_hub(self, repo: str, **options: Any) -> None:
        """Put weights and configuration into a Hub repository; see `starcoder.release.publish.publish`."""
        from starcoder.release.publish import publish

        publish(self, repo, **options)


def keyed_normal(shape: torch.Size, std: float, key: str) -> Tensor:
    """Normal numbers that are a function of `key`, whatever the default device and dtype."""
    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))
    return torch.normal(0.0, std, shape, generator=generator, device="cpu", dtype=torch.float32)
