"""The prompts of a request as token ids, whose cost is bounded before it is paid."""

from collections.abc import Sequence
from dataclasses import dataclass

from starcoder.errors import UserError
from starcoder.serving.protocol import ApiError, CompletionRequest
from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer

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


def longest_token(tokenizer: Tokenizer) -> int:
    """Bytes of the longest token, sentinels as they are spelled."""
    spelled = (tokenizer.decode([token], errors="surrogateescape") for token in range(tokenizer.vocab_size))
    return max(len(text.encode(errors="surrogateescape")) for text in spelled)


def read_prompts(request: CompletionRequest, tokenizer: Tokenizer, limits: Limits) -> list[list[int]]:
    """Token ids of each prompt: infilling takes plain text, all else reads the spelling of sentinels.

    Raises:
        ApiError: when there are too many, or one is too long or no text of the tokenizer's.
    """
    n = request.n or 1
    if len(request.prompt) * n > limits.choices:
        message = f"{len(request.prompt)} prompts × n = {n} are more than {limits.choices} completions"
        raise ApiError(400, message, "prompt" if n == 1 else "n")
    prompts = []
    for prompt in request.prompt:
        _check_size(prompt, request.suffix or "", limits)
        prompts.append(_encode(prompt, request, tokenizer))
        _check(prompts[-1], limits, tokenizer)
    return prompts


def _check_size(prompt: Encodable, suffix: str, limits: Limits) -> None:
    texts = (prompt, suffix) if isinstance(prompt, str) else (suffix,)
    size = sum(len(text.encode()) for text in texts)
    if size > limits.prompt_tokens * limits.token_bytes:
        raise _too_long(f"a prompt of {size} bytes has more than {limits.prompt_tokens} tokens")


def _encode(prompt: Encodable, request: CompletionRequest, tokenizer: Tokenizer) -> list[int]:
    try:
        if request.suffix is not None:
            before = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
            return [FIM_PREFIX, *before, FIM_SUFFIX, *tokenizer.encode(request.suffix), FIM_MIDDLE]
        return (tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt) or [EOD]
    except UserError as error:
        raise ApiError(400, str(error), "prompt") from None


def _check(ids: Sequence[int], limits: Limits, tokenizer: Tokenizer) -> None:
    if len(ids) > limits.prompt_tokens:
        raise _too_long(f"a prompt has {len(ids)} tokens, this server takes {limits.prompt_tokens}")
    if not 0 <= min(ids) <= max(ids) < tokenizer.vocab_size:
        raise ApiError(400, f"a prompt has a token id outside [0, {tokenizer.vocab_size})", "prompt")


def _too_long(why: str) -> ApiError:
    return ApiError(400, f"{why}: shorten it", "prompt", "context_length_exceeded")
