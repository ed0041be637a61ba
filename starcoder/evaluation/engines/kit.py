"""This kit's own model as an engine: one prefill a prompt, whatever the number of samples.

Shapes: B windows, T tokens of a window, V vocabulary, C channels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from starcoder import tokenizer as tokenizers
from starcoder.batch import evaluating
from starcoder.errors import UserError
from starcoder.evaluation.engines.base import Completion, Request, Sampling, random_key
from starcoder.evaluation.engines.local import Dtype, LocalEngine, describe, place, weights_digest
from starcoder.generation import Prompt, check_vocabulary, cut, ends_with, sample_tokens
from starcoder.model import StarCoder
from starcoder.quantization import quantize
from starcoder.release.folder import local_folder, read_config
from starcoder.sampling import Sampling as TokenSampling
from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer


class KitEngine(LocalEngine):
    """A model of this kit, such as one in training.

    Args:
        model: where it is and as precise as it is; dropout is off while it works.
        tokenizer: the one that it was trained with.
        name: what the report calls it.
        batch_size: completions that grow together; results do not depend on it, up to the rounding of sums.

    Raises:
        UserError: when the tokenizer does not fit the model.
    """

    empty = (EOD,)
    sentinels = (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)

    def __init__(self, model: StarCoder, tokenizer: Tokenizer, name: str, batch_size: int = 32) -> None:
        check_vocabulary(model, tokenizer)
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}, below 1")
        self.model, self.tokenizer = model, tokenizer
        self.name, self.batch_size = name, batch_size
        self.context_length = model.config.context_length
        weight = model.transformer.wte.weight
        self.settings: dict[str, Any] = {"engine": "kit", **describe(weight.device, weight.dtype)}
        self.settings["tokenizer"] = tokenizer.digest

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.transformer.wte.weight.device

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        return self.tokenizer.encode(text)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of text in which the spelling of a sentinel is the control token."""
        return self.tokenizer.encode_prompt(text)

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield all samples of all requests as they are finished; see `Engine.complete`."""
        prompts = [
            Prompt(
                self.prompt(request, sampling.max_new_tokens)[0],
                [random_key(sampling.seed, request.problem, sample) for sample in request.samples],
                ends_with(self.tokenizer.decode, request.stop),
            )
            for request in requests
        ]
        options = TokenSampling(
            sampling.max_new_tokens, sampling.temperature, sampling.top_p, batch_size=self.batch_size
        )
        for sample in sample_tokens(self.model, prompts, options, self.tokenizer.vocab_size):
            request = requests[sample.prompt]
            text = cut(self.tokenizer.decode(sample.ids), request.stop)
            yield Completion(request.problem, request.samples[sample.sample], text, sample.finish)

    def token_nats(self, tokens: Tensor) -> Tensor:
        """Cross-entropies (B, T) in nats of all but the first of tokens (B, T+1); the logits are fp32 products."""
        with evaluating(self.model):
            return self.model.nats(tokens[:, :-1], tokens[:, 1:])


def open_kit(
    source: str,
    tokenizer: Path | None = None,
    device: str | None = None,
    dtype: Dtype | None = None,
    batch_size: int = 32,
) -> KitEngine:
    """Load a model of this kit.

    Args:
        source: a `gpt_bigcode` folder, a checkpoint of `starcoder fit` or folder of such checkpoints, or a Hub
            repository.
        tokenizer: folder of the tokenizer; the model's own when not given. A checkpoint has none.
        device: such as `cpu`, `cuda` or `cuda:1`; CUDA where it is there.
        dtype: precision of weights and products; bfloat16 on CUDA and float32 on CPU. int8 is for CPU alone.
        batch_size: completions that grow together.

    Raises:
        UserError: when model, tokenizer or device are missing or do not fit together.
    """
    where, precision = place(device, dtype)
    model, folder = _load(source)
    if (folder := tokenizer or folder) is None:
        raise UserError(f"{source} is a training checkpoint, which has no tokenizer: name its folder with --tokenizer")
    model.to(where, torch.float32 if precision == torch.int8 else precision)
    digest = weights_digest(model)
    if precision == torch.int8:
        quantize(model)
    engine = KitEngine(model.eval(), tokenizers.load(folder), source, batch_size)
    engine.settings["weights"] = digest
    return engine


def _load(source: str) -> tuple[StarCoder, Path | None]:
    """A model, and the folder where its tokenizer should be."""
    path = Path(source)
    if path.exists() and not (path / "config.json").is_file():
        from starcoder.training.module import load_trained

        return load_trained(path), None
    folder = local_folder(source)
    try:
        read_config(folder)
    except UserError as error:
        raise UserError(f"{error}; the engine transformers takes other causal models") from None
    return StarCoder.from_pretrained(folder), folder
