"""The prompts of a request as token ids, whose cost is bounded before it is paid."""

from dataclasses import dataclass

from starcoder.errors import UserError
from starcoder.generation import frame
from starcoder.serving.protocol import ApiError, CompletionRequest
from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer

MAX_TOKENS = 16
"""Longest completion when a request names none: OpenAI's default."""

Encodable = str | list[int]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Args:
        context_length: tokens that fit into the model, prompt and completion together.
        prompt_tokens: tokens of a prompt.
        max_tokens: tokens of a completion.
        choices: completions of one request.
        token_bytes: bytes of the longest token: a text of more bytes than its tokens could have is not even encoded.
    """

    context_length: int
    prompt_tokens: int
    max_tokens: int
    choices: int
    token_bytes: int


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Args:
        ids: what the model reads, one token at least.
        text: what `echo` repeats.
    """

    ids: list[int]
    text: str


def longest_token(tokenizer: Tokenizer) -> int:
    """Bytes of the longest token, sentinels as they are spelled."""
    spelled = (tokenizer.decode([token], errors="surrogateescape") for token in range(tokenizer.vocab_size))
    return max(len(text.encode(errors="surrogateescape")) for text in spelled)


def longest_completion(request: CompletionRequest, limits: Limits) -> int:
    """Tokens of the request's completions at most; an `ApiError` when it asks for more than there are."""
    if request.max_tokens is None:
        return min(MAX_TOKENS, limits.max_tokens)
    if request.max_tokens > limits.max_tokens:
        message = f"max_tokens is {request.max_tokens}, this server writes at most {limits.max_tokens}"
        raise ApiError(400, message, "max_tokens")
    return request.max_tokens


def read_prompts(request: CompletionRequest, tokenizer: Tokenizer, limits: Limits) -> list[Prompt]:
    """The prompts: infilling takes plain text, all else reads the spelling of sentinels.

    Raises:
        ApiError: when there are too many, or one is too long or no text of the tokenizer's.
    """
    n = request.n or 1
    if len(request.prompt) * n > limits.choices:
        message = f"{len(request.prompt)} prompts × n = {n} are more than {limits.choices} completions"
        raise ApiError(400, message, "prompt" if n == 1 else "n")
    room = _room(request, limits)
    prompts = []
    for asked in request.prompt:
        _check_asked(asked, request.suffix or "", limits, tokenizer)
        try:
            prompts.append(_read(asked, request.suffix, room, tokenizer))
        except UserError as error:
            raise ApiError(400, str(error), "prompt") from None
        if len(ids := prompts[-1].ids) > limits.prompt_tokens:
            raise _too_long(f"a prompt has {len(ids)} tokens, this server takes {limits.prompt_tokens}")
    return prompts


def _room(request: CompletionRequest, limits: Limits) -> int | None:
    """Tokens that longer prompts are cut to; None when they are not."""
    room = request.truncate_prompt_tokens
    if room is None:
        return None
    beside = limits.context_length - longest_completion(request, limits)
    return min(limits.prompt_tokens, max(beside, 1) if room < 0 else room)


def _check_asked(asked: Encodable, suffix: str, limits: Limits, tokenizer: Tokenizer) -> None:
    """Refuse what cannot be a prompt, or must be too long."""
    if not isinstance(asked, str) and not 0 <= min(asked) <= max(asked) < tokenizer.vocab_size:
        raise ApiError(400, f"a prompt has a token id outside [0, {tokenizer.vocab_size})", "prompt")
    size = sum(len(text.encode()) for text in (asked, suffix) if isinstance(text, str))
    if size > limits.prompt_tokens * limits.token_bytes:
        raise _too_long(f"a prompt of {size} bytes has more than {limits.prompt_tokens} tokens")


def _read(asked: Encodable, suffix: str | None, room: int | None, tokenizer: Tokenizer) -> Prompt:
    """Cut to `room` tokens, the last of a prompt are kept; of infilling, those that are nearest to the gap."""
    if suffix is None:
        ids = tokenizer.encode_prompt(asked) if isinstance(asked, str) else asked
        kept = ids if room is None else ids[max(0, len(ids) - room) :]
        return Prompt(kept or [EOD], _text(asked, ids, kept, tokenizer))
    ids = tokenizer.encode(asked) if isinstance(asked, str) else asked
    before, after = frame(ids, tokenizer.encode(suffix), None if room is None else max(0, room - 3))
    return Prompt([FIM_PREFIX, *before, FIM_SUFFIX, *after, FIM_MIDDLE], _text(asked, ids, before, tokenizer))


def _text(asked: Encodable, ids: list[int], kept: list[int], tokenizer: Tokenizer) -> str:
    return asked if isinstance(asked, str) and len(kept) == len(ids) else tokenizer.decode(kept)


def _too_long(why: str) -> ApiError:
    return ApiError(400, f"{why}: shorten it", "prompt", "context_length_exceeded")
