"""Completion and infilling with a key/value cache.

Prompts of different lengths share a `starcoder.batch.Batch`, the longest first: they go through the model once each,
however many completions they are to have, and grow one token at a time, each at its own position.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from starcoder import tokenizer as tokenizers
from starcoder.batch import Batch, check_prompt, evaluating
from starcoder.decoding import Decoding
from starcoder.errors import UserError, needing
from starcoder.model import StarCoder
from starcoder.release.folder import local_folder
from starcoder.sampling import NOT_FINITE, Ends, Finish, Logprob, Sampling, never
from starcoder.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer

T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """A prompt and the samples of it that are wanted.

    Args:
        ids: token ids; none begin a new document.
        keys: one for each sample: its random numbers are a function of this list of numbers, none of them negative.
        ends: whether a completion that has just grown is at its end; `ends_with` makes one from stop strings.
        logprobs: whether to tell how likely each token was.
    """

    ids: Sequence[int]
    keys: Sequence[Sequence[int]]
    ends: Ends = never
    logprobs: bool = False


@dataclass(frozen=True)
class Sample:
    """One completion.

    Args:
        prompt: place of its prompt in the list of prompts.
        sample: place of its key among the prompt's.
        ids: token ids, without the prompt and without `<|endoftext|>`.
        finish: why it ended.
        logprobs: how likely the model found each of the ids, where the prompt asked for it.
    """

    prompt: int
    sample: int
    ids: list[int]
    finish: Finish
    logprobs: list[Logprob] = field(default_factory=list)


def generate(
    model: StarCoder, tokenizer: Tokenizer, prompts: Sequence[str], decoding: Decoding = "auto", **sampling: Any
) -> list[str]:
    """Complete prompts, in which the spelling of a sentinel, such as `<filename>`, is the control token.

    A completion ends before `<|endoftext|>` or the stop string that is complete first, after `max_new_tokens`, or where
    prompt and completion fill the model's context.

    Args:
        model: dropout is off meanwhile.
        tokenizer: the one that the model was trained with.
        prompts: texts; an empty one begins a new document.
        decoding: how one token of every completion is computed.
        sampling: fields of `Sampling`.

    Returns:
        The completions, without their prompts.

    Raises:
        UserError: when a prompt does not fit the model's context, the tokenizer does not fit the model, or an option is
            out of its range.
    """
    encoded = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    return _complete(model, tokenizer, encoded, Sampling(**sampling), decoding)


def infill(
    model: StarCoder,
    tokenizer: Tokenizer,
    gaps: Sequence[tuple[str, str]],
    decoding: Decoding = "auto",
    **sampling: Any,
) -> list[str]:
    """Write what stands between each prefix and suffix, which are plain text; the rest is as for `generate`."""
    prompts = [_around(tokenizer, prefix, suffix) for prefix, suffix in gaps]
    return _complete(model, tokenizer, prompts, Sampling(**sampling), decoding)


def complete(
    model: str,
    prompt: str,
    suffix: str | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.2,
    top_p: float = 0.95,
    stop: list[str] | None = None,
    seed: int = 0,
    revision: str | None = None,
    decoding: Decoding = "auto",
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None,
    trace: Path | None = None,
) -> None:
    """Print the completion of a prompt, or with a suffix, what stands between the two.

    Args:
        model: folder of a model and its tokenizer, or a Hub repository.
        prompt: the text to continue.
        suffix: the text after the gap.
        max_new_tokens: longest completion in tokens; the prompt does not count.
        temperature: what logits are divided by; 0 takes the likeliest token.
        top_p: choose among the fewest likeliest tokens whose probabilities sum to this.
        stop: texts that end the completion and are cut from it.
        seed: seed of the random choices.
        revision: branch, tag or commit of the repository; main when not given.
        decoding: how a token is computed: operation by operation (eager), as a CUDA graph, or compiled. Auto is graph
            on a GPU and eager on CPU.
        dtype: what the weights are converted to; as stored when not given. int8 is for CPU.
        trace: folder that `starcoder trace index` wrote; below the completion, where it comes from is told.
    """
    tell = _teller(trace) if trace else None
    sampling = Sampling(max_new_tokens, temperature, top_p, stop=stop or (), seed=seed)
    folder = local_folder(model, revision=revision)
    tokenizer = tokenizers.load(folder)
    network = StarCoder.from_pretrained(folder, getattr(torch, dtype) if dtype else None).to(
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    check_vocabulary(network, tokenizer)
    ids = tokenizer.encode_prompt(prompt) if suffix is None else _around(tokenizer, prompt, suffix)
    wanted = Prompt(ids, [[seed, 0]], ends_with(tokenizer.decode, sampling.stop), logprobs=tell is not None)
    (sample,) = sample_tokens(network, [wanted], sampling, tokenizer.vocab_size, decoding)
    completion = cut(tokenizer.decode(sample.ids), sampling.stop)
    print(completion)
    if tell:
        print("\n" + tell(completion, _placed(tokenizer, sample)), end="")


def _teller(folder: Path) -> Callable[[str, list[tuple[int, float]]], str]:
    """What tells where a text comes from, given what `_placed` says of its tokens."""
    with needing("attribution,corpus"):
        from starcoder.attribution.index import Index
        from starcoder.attribution.query import tell

    return partial(tell, Index.open(folder))


def _placed(tokenizer: Tokenizer, sample: Sample) -> list[tuple[int, float]]:
    """The character of the text at which each token begins, or which it goes on with, and its log-probability."""
    from starcoder.serving.logprobs import Teller

    told = Teller(tokenizer).block((each.token, each) for each in sample.logprobs)
    return list(zip(told["text_offset"], told["token_logprobs"], strict=True))


def _around(tokenizer: Tokenizer, prefix: str, suffix: str) -> list[int]:
    """The prompt for what stands between two plain texts."""
    return [FIM_PREFIX, *tokenizer.encode(prefix), FIM_SUFFIX, *tokenizer.encode(suffix), FIM_MIDDLE]


def _complete(
    model: StarCoder, tokenizer: Tokenizer, prompts: list[list[int]], sampling: Sampling, decoding: Decoding
) -> list[str]:
    check_vocabulary(model, tokenizer)
    ends = ends_with(tokenizer.decode, sampling.stop)
    completions = generate_tokens(model, prompts, sampling, tokenizer.vocab_size, ends, decoding)
    return [cut(tokenizer.decode(ids), sampling.stop) for ids in completions]


def check_vocabulary(model: StarCoder, tokenizer: Tokenizer) -> None:
    """Refuse, as a `UserError`, a tokenizer with ids that the model does not know."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}")


def ends_with(decode: Callable[[list[int]], str], stop: Sequence[str]) -> Ends:
    """What says whether the last of a completion's tokens, spelled by `decode`, completed one of the texts `stop`.

    Raises:
        UserError: when one of the texts holds U+FFFD, which is how a character looks that is not complete.
    """
    if any("\ufffd" in text for text in stop):
        raise UserError("a stop text holds U+FFFD, which stands for bytes that are no character: leave it out")
    reach = max((len(text.encode()) for text in stop), default=0)  # every token is a byte at least

    def ends(ids: list[int]) -> bool:
        tail = decode(ids[-reach:])
        return any(text in tail for text in stop)

    return ends if stop else never


def cut(text: str, stop: Sequence[str]) -> str:
    """`text` up to the stop string that is complete first, however the text is cut into tokens."""
    found = [(text.index(mark) + len(mark), text.index(mark)) for mark in stop if mark in text]
    return text[: min(found)[1]] if found else text


def frame(prefix: Sequence[int], suffix: Sequence[int], room: int | None) -> tuple[list[int], list[int]]:
    """What is nearest to the gap: `room` ids of prefix and suffix together, all of them when there is no limit.

    Neither takes more than half of the room as long as the other needs it.
    """
    if room is None:
        return list(prefix), list(suffix)
    right = min(len(suffix), max(room // 2, room - len(prefix)))
    left = min(len(prefix), room - right)
    return list(prefix[len(prefix) - left :]), list(suffix[:right])


def generate_tokens(
    model: StarCoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    vocab_size: int | None = None,
    ends: Ends = never,
    decoding: Decoding = "auto",
) -> list[list[int]]:
    """Complete prompts of token ids; `sampling.stop` is text and has no meaning here.

    Args:
        model: dropout is off meanwhile.
        prompts: token ids; an empty prompt begins a new document.
        sampling: how tokens are chosen, and how many.
        vocab_size: only ids below are chosen; all of the model's when not given.
        ends: whether a completion that has just grown is at its end.
        decoding: how one token of every sequence is computed.

    Returns:
        The completions, without their prompts and without `<|endoftext|>`.

    Raises:
        UserError: when a prompt does not fit the model's context, or holds an id that the model does not know.
    """
    wanted = [Prompt(prompt, [[sampling.seed, place]], ends) for place, prompt in enumerate(prompts)]
    samples = sample_tokens(model, wanted, sampling, vocab_size, decoding)
    return [sample.ids for sample in sorted(samples, key=lambda sample: sample.prompt)]


def sample_tokens(
    model: StarCoder,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    vocab_size: int | None = None,
    decoding: Decoding = "auto",
) -> Iterator[Sample]:
    """Yield all samples of all prompts as they end, with one pass of each prompt through the model.

    Args:
        model: dropout is off until the iterator is exhausted or closed. Processes that share a sharded one must
            complete the same prompts together.
        prompts: each with its samples' random keys, in whose favour `sampling.seed` has no meaning here, and with its
            own end, in whose favour `sampling.stop` has none.
        sampling: how tokens are chosen, how many, and how many samples grow together.
        vocab_size: only ids below are chosen; all of the model's when not given.
        decoding: how one token of every sequence is computed.

    Raises:
        UserError: when a prompt does not fit the model's context, or holds an id that the model does not know; or when
            the model's logits are not finite.
    """
    for number, prompt in enumerate(prompts):
        check_prompt(prompt.ids, model, f"prompt {number}")
    return _samples(prompts, sampling, Batch(model, sampling.batch_size, vocab_size, decoding))


def _samples(prompts: Sequence[Prompt], sampling: Sampling, batch: Batch) -> Iterator[Sample]:
    longest_first = sorted(enumerate(prompts), key=lambda numbered: len(numbered[1].ids), reverse=True)
    samples = {
        batch.add(prompt.ids, sampling, key, prompt.ends, 0 if prompt.logprobs else None): Sample(
            number, place, [], "length"
        )
        for number, prompt in longest_first
        for place, key in enumerate(prompt.keys)
    }
    with evaluating(batch.model):
        while batch:
            for growth in batch.step():
                if growth.finish == "failed":
                    raise UserError(NOT_FINITE)
                if growth.token is not None:
                    samples[growth.handle].ids.append(growth.token)
                    samples[growth.handle].logprobs.extend([growth.logprob] if growth.logprob else [])
                if growth.finish:
                    yield replace(samples.pop(growth.handle), finish=growth.finish)


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items`, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
