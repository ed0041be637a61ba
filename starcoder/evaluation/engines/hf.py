"""Any causal model of transformers as an engine: its `generate`, with our choice of tokens and our ends.

Every sample has random numbers of its own, so that it does not depend on what is generated beside it; they are those of
the kit's engine, which gives the same samples for the same model. As there, a prompt goes through the model once,
however many samples it is to have, and those that have ended leave the batch: `generate` is called until half of the
samples have ended, and again with the cache of the others.

Shapes: P prompts that go through the model together, B sequences that grow together, T tokens, V vocabulary.
"""

import hashlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from starcoder.errors import UserError
from starcoder.evaluation.engines.base import FIM_SPELLINGS, Completion, Request, Sampling, random_key
from starcoder.evaluation.engines.local import Dtype, LocalEngine, describe, place, weights_digest
from starcoder.generation import batched, cut, ends_with
from starcoder.sampling import Ends, Finish, choose
from starcoder.sampling import Sampling as TokenSampling


@dataclass
class _Row:
    """A sample that grows; it has ended when it has a `finish`."""

    request: Request
    sample: int
    prompt: list[int]
    room: int
    rng: np.random.Generator
    ends: Ends
    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None

    def grow(self, token: int, eos: Sequence[int]) -> None:
        """Append `token`, unless the sample has ended or a token of `eos` ends it."""
        if self.finish:
            return
        if token not in eos:
            self.ids.append(token)
        if token in eos or self.ends(self.ids):
            self.finish = "stop"
        elif len(self.ids) == self.room:
            self.finish = "length"


@dataclass(frozen=True)
class _Sequences:
    """What `generate` goes on from.

    Args:
        tokens: ids (B, T), padded on the left.
        mask: 0 (B, T) where there is padding.
        cache: keys and values of all tokens but the last, as an argument of `generate`; empty if they cannot be picked.
    """

    tokens: Tensor
    mask: Tensor
    cache: dict[str, Any]

    def pick(self, places: Tensor) -> "_Sequences":
        """Copies of the sequences at `places` (B,), any of them any number of times."""
        cache = {name: _picked(cache, places) for name, cache in self.cache.items()}
        return _Sequences(self.tokens[places], self.mask[places], cache)

    def grown(self, tokens: Tensor) -> "_Sequences":
        """The sequences with more `tokens` (B, more) behind them; the cache grows within `generate`."""
        mask = torch.cat([self.mask, torch.ones_like(tokens)], dim=1)
        return _Sequences(torch.cat([self.tokens, tokens], dim=1), mask, self.cache)


def _picked(cache: Any, places: Tensor) -> Any:
    """A cache of the sequences at `places`; the layers' tensors are replaced, never changed, when sequences grow."""
    fork = copy(cache)
    fork.layers = [copy(layer) for layer in cache.layers]
    fork.reorder_cache(places)
    return fork


def _cache(out: Any) -> dict[str, Any]:
    """The cache among the outputs of `generate` under its name there, if its sequences can be picked.

    Those of recurrent layers cannot: their states are changed in place.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    name = "cache" if "cache" in out else "past_key_values"  # as the first versions of transformers 5 call it
    cache = out.get(name)
    known = type(cache) is DynamicCache and {*map(type, cache.layers)} <= {DynamicLayer, DynamicSlidingWindowLayer}
    return {name: cache} if known else {}


class TransformersEngine(LocalEngine):
    """A model of transformers with its tokenizer.

    Args:
        model: a `PreTrainedModel` in evaluation mode, where it is and as precise as it is; its generation settings,
            such as penalties or top-k, are removed.
        tokenizer: its `PreTrainedTokenizer`.
        name: what the report calls it.
        batch_size: completions that grow together; results do not depend on it, up to the rounding of sums.

    Raises:
        UserError: when the tokenizer knows no end of a document, or none that the model does.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, batch_size: int = 32) -> None:
        import transformers

        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}, below 1")
        self.model, self.tokenizer = model, tokenizer
        self.name, self.batch_size = name, batch_size
        self.context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        vocabulary = tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values()) + 1
        self.eos = self._ends_of_document()
        model.generation_config = self._generation_config()
        self.start = tokenizer("")["input_ids"]
        self.empty = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else self.eos[0]]
        self.sentinels = _sentinels(vocabulary)
        symbols = "\n".join(sorted(vocabulary, key=vocabulary.__getitem__))
        self.settings = {"engine": "transformers", "transformers": transformers.__version__}
        self.settings |= describe(model.device, model.dtype)
        self.settings["tokenizer"] = hashlib.sha256(symbols.encode()).hexdigest()

    def _ends_of_document(self) -> list[int]:
        """Ids that end a completion, the tokenizer's first."""
        known = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ids = [self.tokenizer.eos_token_id, *(known if isinstance(known, list) else [known])]
        if not (found := list(dict.fromkeys(i for i in ids if i is not None))):
            raise UserError(f"{self.name}: neither the tokenizer nor the model names a token that ends a document")
        return found

    def _generation_config(self, **options: Any) -> Any:
        """Settings under which `generate` takes the token of the highest score, which is the one that we choose."""
        from transformers import GenerationConfig

        return GenerationConfig(do_sample=False, eos_token_id=self.eos, pad_token_id=self.eos[0], **options)  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = self.model.device
        return device

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of text in which the spelling of a sentinel is the control token."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, sentinels spelled out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield all samples of all requests, the longest prompts first; see `Engine.complete`."""
        options = TokenSampling(sampling.max_new_tokens, sampling.temperature, sampling.top_p)
        samples = [self._rows(request, sampling) for request in requests if request.samples]
        longest_first = sorted(samples, key=lambda rows: len(rows[0].prompt), reverse=True)
        for group in batched(longest_first, self.batch_size):
            yield from map(self._completion, self._complete(group, options))

    def _rows(self, request: Request, sampling: Sampling) -> list[_Row]:
        prompt, _ = self.prompt(request, sampling.max_new_tokens)
        ends = ends_with(self.decode, request.stop)
        keys = [random_key(sampling.seed, request.problem, sample) for sample in request.samples]
        return [
            _Row(request, sample, prompt, sampling.max_new_tokens, np.random.default_rng(key), ends)
            for sample, key in zip(request.samples, keys, strict=True)
        ]

    def _completion(self, row: _Row) -> Completion:
        """A sample as text, spelled behind its prompt: some tokenizers drop a blank where a text begins."""
        text = self.decode(row.prompt + row.ids)[len(self.decode(row.prompt)) :]
        kept = cut(text, row.request.stop)
        finish = "length" if row.finish == "length" and kept == text else "stop"
        return Completion(row.request.problem, row.sample, kept, finish)

    @torch.inference_mode()
    def _complete(self, samples: Sequence[list[_Row]], sampling: TokenSampling) -> Iterator[_Row]:
        """Pass the prompts of P lists of samples through the model, each once, and complete all samples."""
        prompts, logits = self._prefill([rows[0].prompt for rows in samples])
        numbered = [(number, row) for number, rows in enumerate(samples) for row in rows]
        for batch in batched(numbered, self.batch_size):
            rows = [row for _, row in batch]
            source = torch.tensor([number for number, _ in batch], device=self.device)  # (B,)
            tokens = self._choose(rows, logits[source], sampling)
            self._grow(rows, tokens)
            yield from (row for row in rows if row.finish)
            if len(kept := _going_on(rows, self.device)):
                rows = [row for row in rows if not row.finish]
                yield from self._decode(rows, prompts.pick(source[kept]).grown(tokens[kept].unsqueeze(1)), sampling)

    def _prefill(self, prompts: list[list[int]]) -> tuple[_Sequences, Tensor]:
        """The prompts, and the logits (P, V) of what follows each."""
        width = max(map(len, prompts))
        pads = [width - len(prompt) for prompt in prompts]
        padded = [[self.eos[0]] * pad + prompt for pad, prompt in zip(pads, prompts, strict=True)]
        tokens = torch.tensor(padded, device=self.device)
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads], device=self.device)
        out = self._generate(_Sequences(tokens, mask, {}), 1, output_logits=True)
        return _Sequences(tokens, mask, _cache(out)), out.logits[0]

    def _decode(self, rows: list[_Row], sequences: _Sequences, sampling: TokenSampling) -> Iterator[_Row]:
        """Complete samples that have begun; without a cache that can be picked, each round makes it anew."""
        while rows:
            sequences = self._extend(rows, sequences, sampling)
            yield from (row for row in rows if row.finish)
            if kept := [row for row in rows if not row.finish]:
                sequences = sequences.pick(_going_on(rows, self.device))
            rows = kept

    def _extend(self, rows: list[_Row], sequences: _Sequences, sampling: TokenSampling) -> _Sequences:
        """Let samples grow until half of them have ended."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        over = False  # where `generate` goes a step too far and takes it back, no random number is drawn for it

        def chosen(_: Tensor, scores: Tensor) -> Tensor:
            """Scores (B, V) that leave only the token that we choose."""
            if over:
                return scores
            ids = self._choose(rows, scores, sampling)
            return torch.full_like(scores, -torch.inf).scatter_(1, ids.unsqueeze(1), 0.0)

        def half_ended(ids: Tensor, _: Any, **__: Any) -> Tensor:
            """Whether enough of the sequences (B, T) have ended, for all of them, (B,)."""
            nonlocal over
            if not over:
                self._grow(rows, ids[:, -1])
                over = 2 * sum(row.finish is not None for row in rows) >= len(rows)
            return torch.full((len(rows),), over, device=ids.device)

        out = self._generate(
            sequences,
            sampling.max_new_tokens - len(rows[0].ids),
            logits_processor=LogitsProcessorList([chosen]),
            stopping_criteria=StoppingCriteriaList([half_ended]),
        )
        return sequences.grown(out.sequences[:, sequences.tokens.size(1) :])

    def _generate(self, sequences: _Sequences, most: int, output_logits: bool = False, **options: Any) -> Any:
        """What `generate` gives for `most` new tokens of each sequence."""
        config = self._generation_config(
            max_new_tokens=most, return_dict_in_generate=True, output_logits=output_logits, use_cache=True
        )
        return self.model.generate(
            sequences.tokens, attention_mask=sequences.mask, generation_config=config, **sequences.cache, **options
        )

    def _choose(self, rows: list[_Row], logits: Tensor, sampling: TokenSampling) -> Tensor:
        """The next token (B,) of each sample, given logits (B, V)."""
        return choose(logits[:, : self.vocab_size], sampling, [row.rng for row in rows])

    def _grow(self, rows: list[_Row], tokens: Tensor) -> None:
        """Append a token of (B,) to each sample."""
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.grow(token, self.eos)

    def token_nats(self, tokens: Tensor) -> Tensor:
        """Cross-entropies (B, T) in nats of all but the first of tokens (B, T+1)."""
        with torch.autocast(tokens.device.type, enabled=False):
            logits = self.model(tokens[:, :-1]).logits  # (B, T, V)
        rows = zip(logits, tokens[:, 1:], strict=True)
        return torch.stack([F.cross_entropy(row.float(), targets, reduction="none") for row, targets in rows])


def _going_on(rows: list[_Row], device: torch.device) -> Tensor:
    """Places of the samples that have not ended."""
    return torch.tensor([place for place, row in enumerate(rows) if not row.finish], dtype=torch.long, device=device)


def _sentinels(vocabulary: dict[str, int]) -> tuple[int, int, int] | None:
    """The ids of the first spelling of sentinels that the vocabulary has."""
    for prefix, suffix, gap in FIM_SPELLINGS.values():
        if {prefix, suffix, gap} <= vocabulary.keys():
            return vocabulary[prefix], vocabulary[suffix], vocabulary[gap]
    return None


def open_transformers(
    source: str, device: str | None = None, dtype: Dtype | None = None, batch_size: int = 32
) -> TransformersEngine:
    """Load a causal model of transformers and its tokenizer.

    Args:
        source: a folder or a Hub repository.
        device: such as `cpu`, `cuda` or `cuda:1`; CUDA where it is there.
        dtype: precision of weights and products; bfloat16 on CUDA and float32 on CPU.
        batch_size: completions that grow together.

    Raises:
        UserError: when transformers, model, tokenizer or device are missing or damaged.
    """
    if find_spec("transformers") is None:
        raise UserError("this engine needs transformers, which is not installed: pip install transformers")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it without types
    where, precision = place(device, dtype)
    if precision == torch.int8:
        raise UserError("int8 is this kit's own: leave --engine transformers out, or choose another --dtype")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=precision)
    except Exception as error:  # transformers raises whatever its loaders stumble over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"transformers cannot load {source}: {reason}") from None
    engine = TransformersEngine(model.to(where).eval(), tokenizer, source, batch_size)
    engine.settings["weights"] = weights_digest(engine.model)
    return engine
