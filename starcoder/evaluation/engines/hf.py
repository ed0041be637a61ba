"""Any causal model of transformers as an engine: its `generate`, with our choice of tokens and our ends.

Every sample has random numbers of its own, so that it does not depend on what is generated beside it; they are those of
the kit's engine, which gives the same samples for the same model.

Shapes: B sequences, T tokens, V vocabulary.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from starcoder.errors import UserError
from starcoder.evaluation.engines.base import FIM_SPELLINGS, Completion, Request, Sampling, random_key
from starcoder.evaluation.engines.local import Dtype, LocalEngine, describe, place, weights_digest
from starcoder.generation import Ends, batched, choose, cut, ends_with
from starcoder.generation import Sampling as TokenSampling


@dataclass(frozen=True)
class _Row:
    """A sample to be made."""

    request: Request
    sample: int
    prompt: list[int]
    rng: np.random.Generator
    ends: Ends


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
        """Yield all samples of all requests, batch by batch, the longest prompts first; see `Engine.complete`."""
        options = TokenSampling(sampling.max_new_tokens, sampling.temperature, sampling.top_p)
        rows = [row for request in requests for row in self._rows(request, sampling)]
        for batch in batched(sorted(rows, key=lambda row: len(row.prompt), reverse=True), self.batch_size):
            for row, ids in zip(batch, self._generate(batch, options), strict=True):
                yield self._completion(row, ids)

    def _rows(self, request: Request, sampling: Sampling) -> list[_Row]:
        prompt, _ = self.prompt(request, sampling.max_new_tokens)
        ends = ends_with(self.decode, request.stop)
        keys = [random_key(sampling.seed, request.problem, sample) for sample in request.samples]
        return [
            _Row(request, sample, prompt, np.random.default_rng(key), ends)
            for sample, key in zip(request.samples, keys, strict=True)
        ]

    def _completion(self, row: _Row, ids: list[int]) -> Completion:
        """A sample's ids as text, spelled behind its prompt: some tokenizers drop a blank where a text begins."""
        length = next((n for n, i in enumerate(ids) if i in self.eos), len(ids))
        text = self.decode(row.prompt + ids[:length])[len(self.decode(row.prompt)) :]
        kept = cut(text, row.request.stop)
        finish = "stop" if length < len(ids) or kept != text else "length"
        return Completion(row.request.problem, row.sample, kept, finish)

    @torch.inference_mode()
    def _generate(self, rows: Sequence[_Row], sampling: TokenSampling) -> list[list[int]]:
        """New ids of each row, with ends of document behind those that ended before the others."""
        from transformers import LogitsProcessorList, StoppingCriteriaList

        width = max(len(row.prompt) for row in rows)
        pads = [[self.eos[0]] * (width - len(row.prompt)) for row in rows]
        tokens = torch.tensor([pad + row.prompt for pad, row in zip(pads, rows, strict=True)], device=self.device)
        mask = torch.tensor([[0] * len(pad) + [1] * (width - len(pad)) for pad in pads], device=self.device)  # (B, T)

        def chosen(_: Tensor, scores: Tensor) -> Tensor:
            """Scores (B, V) that leave only the token that we choose."""
            ids = choose(scores[:, : self.vocab_size], sampling, [row.rng for row in rows])
            return torch.full_like(scores, -torch.inf).scatter_(1, ids.unsqueeze(1), 0.0)

        ended = [False] * len(rows)

        def at_end(ids: Tensor, _: Any, **__: Any) -> Tensor:
            """Which of the sequences (B, T) have ended, (B,)."""
            for number, (row, new) in enumerate(zip(rows, ids[:, width:].tolist(), strict=True)):
                ended[number] = ended[number] or row.ends(new)
            return torch.tensor(ended, device=ids.device)

        out = self.model.generate(
            tokens,
            attention_mask=mask,
            generation_config=self._generation_config(max_new_tokens=sampling.max_new_tokens),
            logits_processor=LogitsProcessorList([chosen]),
            stopping_criteria=StoppingCriteriaList([at_end]),
        )
        new: list[list[int]] = out[:, width:].tolist()
        return new

    def token_nats(self, tokens: Tensor) -> Tensor:
        """Cross-entropies (B, T) in nats of all but the first of tokens (B, T+1)."""
        with torch.autocast(tokens.device.type, enabled=False):
            logits = self.model(tokens[:, :-1]).logits  # (B, T, V)
        rows = zip(logits, tokens[:, 1:], strict=True)
        return torch.stack([F.cross_entropy(row.float(), targets, reduction="none") for row, targets in rows])


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
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=precision)
    except Exception as error:  # transformers raises whatever its loaders stumble over
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"transformers cannot load {source}: {reason}") from None
    engine = TransformersEngine(model.to(where).eval(), tokenizer, source, batch_size)
    engine.settings["weights"] = weights_digest(engine.model)
    return engine
