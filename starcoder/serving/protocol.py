"""What OpenAI's interface for completions says: requests, answers, errors."""

import json
import secrets
import time
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from starcoder.sampling import Finish
from starcoder.serving.logprobs import Block

Prompts = list[str] | list[list[int]]

STOPS = 16
"""Stop strings that a request may have; OpenAI's own limit of 4 is too few for HumanEval."""
LONGEST_STOP = 256
"""Characters of a stop string."""
LONGEST_SEED = 2**63
"""What a seed must be below; it may be as negative."""

_MEANINGLESS = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "request_id")
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (True, False),  # a prompt gets none in either case
    "detokenize": (True,),
    "early_stopping": (False,),
    "frequency_penalty": (0,),
    "ignore_eos": (False,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "presence_penalty": (0,),
    "priority": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "stop_token_ids": ([],),
    "top_k": (-1, 0),
    "use_beam_search": (False,),
}
"""Values at which the options of other servers change nothing; null is one for all."""
_NAMED = 8
_LONGEST_NAME = 64


class ApiError(HTTPException):
    """What a client did wrong, or what keeps the server from answering.

    Args:
        status: HTTP's.
        message: what is wrong and what to do.
        param: the field of the request that is wrong.
        code: a word for programs.
        retry_after: seconds after which it may go better.
        close: whether the connection ends with the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        headers |= {"Connection": "close"} if close else {}
        super().__init__(status, message, headers)
        self.param, self.code = param, code

    def response(self) -> JSONResponse:
        """The error in OpenAI's words."""
        body = error_body(self.status_code, self.detail, self.param, self.code)
        return JSONResponse({"error": body}, self.status_code, self.headers)


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """What stands under `error`."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"message": message, "type": kind, "param": param, "code": code}


def is_text(value: Any) -> bool:
    """Whether a string is one that UTF-8 can carry; JSON's escapes can spell others."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _prompts(value: Any) -> Prompts:
    if is_text(value) or _are_ids(value):
        return [value]
    if isinstance(value, list) and value and (all(map(is_text, value)) or all(map(_are_ids, value))):
        return value
    raise PydanticCustomError(
        "form", "a prompt is a text, a list of texts, a list of token ids or a list of such lists"
    )


def _text(value: Any) -> str:
    if is_text(value):
        return str(value)
    raise PydanticCustomError("form", "must be a text")


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if texts is None or (
        isinstance(texts, list)
        and len(texts) <= STOPS
        and all(is_text(text) and 0 < len(text) <= LONGEST_STOP and "\ufffd" not in text for text in texts)
    ):
        return tuple(texts or ())
    message = f"stop is a text or a list of at most {STOPS}, each of 1 to {LONGEST_STOP} characters other than U+FFFD"
    raise PydanticCustomError("form", message)


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CompletionRequest(BaseModel):
    """The body of `POST /v1/completions`; what other servers' clients may send beyond this is in `refuse`."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str
    prompt: Annotated[Prompts, PlainValidator(_prompts)]
    suffix: Annotated[str, PlainValidator(_text)] | None = None
    max_tokens: int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    stop: Annotated[tuple[str, ...], PlainValidator(_stops)] = ()
    seed: int | None = Field(None, ge=-LONGEST_SEED, lt=LONGEST_SEED)
    echo: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    best_of: int | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    truncate_prompt_tokens: int | None = Field(None, ge=-1)

    def refuse(self) -> None:
        """Refuse what would otherwise be ignored.

        Raises:
            ApiError: naming the field.
        """
        if self.best_of not in (None, self.n or 1):
            message = f"best_of is {self.best_of}, but every completion is given back: leave it out, or set it to n"
            raise ApiError(400, message, "best_of", "unsupported_parameter")
        vain = [name for name, value in (self.model_extra or {}).items() if not _is_neutral(name, value)][:_NAMED]
        if vain:
            names = ", ".join(map(_printable, vain))
            message = f"this server has no {names}: leave {'it' if len(vain) == 1 else 'them'} out"
            raise ApiError(400, message, _printable(vain[0]), "unsupported_parameter")
        if self.stream_options and not self.stream:
            raise ApiError(400, "stream_options are for streams: set stream", "stream_options")
        if self.echo and self.suffix is not None and self.logprobs is not None:
            raise ApiError(400, "an infilling prompt is not echoed with logprobs: leave echo or logprobs out", "echo")


def read_request(content_type: str, body: bytes) -> CompletionRequest:
    """The request that a body holds.

    Raises:
        ApiError: when it holds none, or one that this server cannot grant.
    """
    found = read_object(content_type, body, '{"model": "…", "prompt": "…"}')
    try:
        request = CompletionRequest.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(_printable(str(part)) for part in first["loc"]) or None
        raise ApiError(400, f"{param or 'a name'}: {first['msg']}", param) from None
    request.refuse()
    return request


def read_object(content_type: str, body: bytes, example: str) -> dict[str, Any]:
    """The JSON object that a body holds.

    A browser asks this server before it lets a page of another origin send JSON, so such pages get no further.

    Raises:
        ApiError: when it holds none; `example` is what it might have held.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
        raise ApiError(400, "a request is JSON and says so: send the header Content-Type: application/json")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ApiError(400, f"the body is no JSON object, such as {example}")
    return found


def _is_neutral(name: str, value: Any) -> bool:
    return value is None or name in _MEANINGLESS or value in _NEUTRAL.get(name, ())


def _printable(name: str) -> str:
    """A client's word as an error may repeat it."""
    return ascii(name)[1:-1][:_LONGEST_NAME]


def head_body(name: str) -> dict[str, Any]:
    """What an answer begins with, and every piece of one that is streamed."""
    return {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
    }


def choice_body(index: int, text: str, finish: Finish | None, logprobs: Block | None = None) -> dict[str, Any]:
    """One completion, or a piece of it."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def usage_body(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The tokens that a request took."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def model_body(name: str, created: int, context_length: int) -> dict[str, Any]:
    """A model in the list of models."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "starcoder-kit",
        "max_model_len": context_length,
    }


def sse(body: Any) -> bytes:
    """One server-sent event."""
    return f"data: {body if isinstance(body, str) else json.dumps(body, allow_nan=False)}\n\n".encode()
