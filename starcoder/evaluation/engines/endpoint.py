"""An OpenAI-compatible completions endpoint as an engine: vLLM, llama.cpp, `transformers serve` or a paid service.

One POST with JSON is all that is asked of it, so the standard library is its client.
"""

import http.client
import json
import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any, NoReturn

import numpy as np

from starcoder.errors import UserError
from starcoder.evaluation.engines.base import FIM_SPELLINGS, Completion, Request, Sampling, random_key
from starcoder.evaluation.engines.parallel import side_by_side
from starcoder.generation import cut
from starcoder.sampling import Finish
from starcoder.text import visible

Text = tuple[str, Finish]

STOPS = 4
"""Stop strings that OpenAI's interface accepts; completions are cut at the others here."""
RETRIED = (408, 409, 429, 500, 502, 503, 504)
"""HTTP codes that may pass: overload, and a server that starts or restarts."""
_TOO_LONG = "if the prompt is too long, choose fewer max_new_tokens or have the server serve a longer window"
_ADVICE = {
    400: _TOO_LONG,
    413: _TOO_LONG,
    422: _TOO_LONG,
    401: "set the environment variable that api_key_env names to a key that it accepts",
    403: "set the environment variable that api_key_env names to a key that may use the model",
    404: "check base_url and the model's name",
}
_LONGEST_PAUSE = 60.0
_LONGEST_TIMEOUT = 86_400.0
_LONGEST_REASON = 300


class _PassingError(Exception):
    """What may go better the next time, after `pause` seconds at least; `absent` says that there is no server."""

    def __init__(self, reason: str, pause: float = 0.0, absent: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.absent = pause, absent


class Client:
    """Asks one URL for completions, patiently.

    Args:
        url: where completions are posted.
        key: what authorises the request, if anything; it appears in no message.
        timeout: seconds without an answer after which a request has failed.
        retries: how often a failed request is repeated.
        backoff: seconds before the first repetition; they double from one to the next.
    """

    def __init__(self, url: str, key: str, timeout: float, retries: int, backoff: float = 1.0) -> None:
        self.url, self.key = url, key
        self.timeout, self.retries, self.backoff = timeout, retries, backoff

    def texts(self, payload: dict[str, Any], closed: Event, first: bool = False) -> list[Text]:
        """The completions that the server answers, at least one, each with the reason why it ended.

        Args:
            payload: the request.
            closed: once it is set, nothing is repeated.
            first: whether nothing is known of the server: that there is none is then believed at once.

        Raises:
            UserError: when the server refuses, or still fails after the last of `retries`.
        """
        for failures in range(1, self.retries + 2):
            try:
                return _texts(self._post(payload))
            except _PassingError as error:
                reason, pause, absent = str(error), max(error.pause, self.backoff * 2.0 ** (failures - 1)), error.absent
            if failures > self.retries or (first and absent) or closed.wait(min(pause, _LONGEST_PAUSE)):
                break
        raise self._error(f"{reason}, {failures} times in a row" if failures > 1 else reason)

    def _post(self, payload: dict[str, Any]) -> Any:
        request = urllib.request.Request(self.url, json.dumps(payload).encode(), {"Content-Type": "application/json"})
        if self.key:
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            self._refuse(error)
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            absent = isinstance(cause, ConnectionRefusedError | socket.gaierror)
            said = f"does not answer ({_short(cause)}): check base_url and the server"
            raise _PassingError(said, absent=absent) from None
        except ValueError:
            raise _PassingError("answers what is no JSON: check base_url") from None

    def _refuse(self, error: urllib.error.HTTPError) -> NoReturn:
        with error:
            reason = f"answers {error.code} ({_message(error)})"
        if error.code in RETRIED:
            raise _PassingError(reason, _retry_after(error)) from None
        raise self._error(": ".join(filter(None, [reason, _ADVICE.get(error.code)]))) from None

    def _error(self, reason: str) -> UserError:
        text = f"{self.url} {reason}"
        return UserError(text.replace(self.key, "…") if self.key else text)


def _texts(answer: Any) -> list[Text]:
    try:
        found = [(choice["text"], choice.get("finish_reason")) for choice in answer["choices"]]
    except (TypeError, KeyError, AttributeError):
        found = []
    if not found or not all(isinstance(text, str) for text, _ in found):
        raise _PassingError(f"answers without a completion ({_short(json.dumps(answer))}): check base_url")
    return [(text, "length" if reason == "length" else "stop") for text, reason in found]


def _message(error: urllib.error.HTTPError) -> str:
    """What the body of an error says, however the server wraps it."""
    try:
        said = json.loads(error.read())
    except (ValueError, OSError, http.client.HTTPException):
        return _short(error.reason)
    for name in ("error", "message", "detail"):
        said = said.get(name, said) if isinstance(said, dict) else said
    return _short(said)


def _short(said: object) -> str:
    """One line that may be shown of what a server says, or of an error."""
    return visible(" ".join(str(said).split()))[:_LONGEST_REASON] or type(said).__name__


def _retry_after(error: urllib.error.HTTPError) -> float:
    try:
        seconds = float(error.headers.get("Retry-After", ""))
    except ValueError:  # missing, or a date
        return 0.0
    return seconds if seconds > 0 else 0.0


class EndpointEngine:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        model: the name by which the endpoint knows it.
        base_url: what `/completions` is added to, such as `http://localhost:8000/v1`.
        api_key_env: environment variable that holds the key, which is neither shown nor written; it may be unset.
        infilling: how a gap is posed: `suffix` uses the interface's field of that name, the others spell the sentinels
            of a family of models into the prompt (`starcoder`, `santacoder`, `qwen`, `deepseek`).
        concurrency: requests under way at once.
        samples_per_request: more than 1 is cheaper where the prompt is paid for; a sample's random numbers then depend
            on which samples of its problem are asked for together.
        retries: how often a request that failed is repeated, after 1, 2, 4, … seconds or what the server asks for.
        timeout: seconds without an answer after which a request has failed.

    Attributes:
        met: whether the server has completed a prompt.
        grace: seconds that requests under way have left when another one has failed for good: what they bring is paid
            for, but one that hangs must not hold back the error for `timeout`.

    Raises:
        UserError: naming every option that cannot be.
    """

    context_length = None
    grace = 10.0

    def __init__(
        self,
        model: str,
        base_url: str,
        api_key_env: str = "OPENAI_API_KEY",
        infilling: str | None = None,
        concurrency: int = 8,
        samples_per_request: int = 1,
        retries: int = 6,
        timeout: float = 600.0,
    ) -> None:
        address = urllib.parse.urlsplit(base_url)
        key = os.environ.get(api_key_env, "").strip()
        wrong = {
            f"base_url is {base_url!r}, no http(s)://…": address.scheme not in ("http", "https") or not address.netloc,
            "base_url holds a password, whose place is the environment variable of api_key_env": "@" in address.netloc,
            f"the key in {api_key_env} holds characters that no key has": not (key.isascii() and key.isprintable()),
            f"infilling is {infilling!r}, none of suffix, {', '.join(FIM_SPELLINGS)}": infilling
            not in (None, "suffix", *FIM_SPELLINGS),
            f"concurrency is {concurrency}, below 1": concurrency < 1,
            f"samples_per_request is {samples_per_request}, below 1": samples_per_request < 1,
            f"retries is {retries}, below 0": retries < 0,
            f"timeout is {timeout}, outside (0, {_LONGEST_TIMEOUT:.0f}]": not 0 < timeout <= _LONGEST_TIMEOUT,
        }
        if any(wrong.values()):
            raise UserError("endpoint: " + "; ".join(problem for problem, holds in wrong.items() if holds))
        self.name, self.infilling = model, infilling
        self.concurrency, self.samples_per_request = concurrency, samples_per_request
        self.settings: dict[str, Any] = {"engine": "endpoint", "base_url": base_url, "infilling": infilling}
        self.settings["samples_per_request"] = samples_per_request
        self.client = Client(base_url.rstrip("/") + "/completions", key, timeout, retries)
        self.met = False

    def check(self, requests: Sequence[Request], max_new_tokens: int, likelihood: bool) -> None:
        """Refuse likelihoods and infilling of unknown form; the server is asked when there is something to complete."""
        if likelihood:
            raise self._no_nats()
        gap = next((request for request in requests if request.suffix is not None), None)
        if gap and self.infilling is None:
            raise UserError(
                f"{gap.problem} wants infilling: say how the endpoint takes it, by infilling suffix, or by one of the "
                f"spellings of sentinels {', '.join(FIM_SPELLINGS)}"
            )

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield all samples of all requests as they come; see `Engine.complete`.

        The first call has one token written behind the longest prompt before all else.

        Raises:
            UserError: for the first request that fails for good, after what was under way and came within `grace`.
        """
        if requests:
            self._meet(requests)
        size = self.samples_per_request if sampling.temperature else 1  # servers refuse many greedy samples
        parts = (
            (request, request.samples[start : start + size])
            for request in requests
            for start in range(0, len(request.samples), size)
        )
        closed = Event()

        def samples(part: tuple[Request, tuple[int, ...]]) -> Iterator[Completion]:
            return self._samples(*part, sampling, closed)

        yield from side_by_side(samples, parts, self.concurrency, closed, self.grace)

    def _meet(self, requests: Sequence[Request]) -> None:
        """Find out whether address, key, model and options are right and prompts fit, at the price of one token."""
        if self.met:
            return
        longest = max(requests, key=lambda request: len(request.prompt) + len(request.suffix or ""))
        greedy = Sampling(temperature=0.0, top_p=1.0, max_new_tokens=1)
        self._ask(longest, longest.samples[:1], greedy, Event(), first=True)
        self.met = True

    def nats(self, pairs: Sequence[tuple[str, str]]) -> Iterator[list[float]]:
        """An endpoint tells none."""
        raise self._no_nats()

    def _no_nats(self) -> UserError:
        return UserError(f"an endpoint such as {self.name} tells no probabilities: take the engine kit or transformers")

    def _samples(
        self, request: Request, samples: tuple[int, ...], sampling: Sampling, closed: Event
    ) -> Iterator[Completion]:
        """Yield all of `samples`; those that the server leaves out are asked for again, unless `closed` is set."""
        while samples and not closed.is_set():
            texts = self._ask(request, samples, sampling, closed)
            for sample, (text, finish) in zip(samples, texts, strict=False):
                kept = cut(text, request.stop)
                yield Completion(request.problem, sample, kept, finish if kept == text else "stop")
            samples = samples[len(texts) :]

    def _ask(
        self, request: Request, samples: Sequence[int], sampling: Sampling, closed: Event, first: bool = False
    ) -> list[Text]:
        try:
            return self.client.texts(self._payload(request, samples, sampling), closed, first)
        except UserError as error:
            raise UserError(f"{error} (asked for {request.problem})") from None

    def _payload(self, request: Request, samples: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        rng = np.random.default_rng(random_key(sampling.seed, request.problem, samples[0]))
        payload = {
            "model": self.name,
            "prompt": request.prompt,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": int(rng.integers(2**31)),
        }
        if len(samples) > 1:  # some servers refuse the word itself
            payload["n"] = len(samples)
        if request.stop:
            payload["stop"] = list(request.stop[:STOPS])
        if request.suffix is not None and self.infilling == "suffix":
            payload["suffix"] = request.suffix
        elif request.suffix is not None:
            before, after, gap = FIM_SPELLINGS[str(self.infilling)]
            payload["prompt"] = f"{before}{request.prompt}{after}{request.suffix}{gap}"
        return payload
