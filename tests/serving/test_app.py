"""OpenAI's own client against the endpoint, on a real server."""

import http.client
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai import OpenAI

from starcoder.evaluation.engines.base import Request
from starcoder.evaluation.engines.base import Sampling as TextSampling
from starcoder.evaluation.engines.endpoint import EndpointEngine
from starcoder.generation import generate, generate_tokens, infill
from starcoder.model import StarCoder
from starcoder.sampling import Sampling
from starcoder.serving.text import TextStream
from starcoder.tokenizer import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer
from tests.serving.conftest import LIMITS, Gated, Served, Serving, ask, until

PROMPTS = ["def add(", "class Adder:\n", "", "    return a + b  # é😀"]
WARM = {"temperature": 0.9, "top_p": 0.9, "seed": 5}


def streamed(client: OpenAI, **request: Any) -> tuple[dict[int, str], dict[int, str], Any]:
    """Texts, reasons to end, and usage of a request that is streamed."""
    texts: dict[int, str] = {}
    reasons: dict[int, str] = {}
    usage = None
    heads = set()
    for chunk in client.completions.create(model="tiny", stream=True, **request):
        usage = chunk.usage or usage
        heads.add((chunk.id, chunk.created, chunk.object, chunk.model))
        for choice in chunk.choices:
            assert choice.text or choice.finish_reason
            assert choice.index not in reasons
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert len(heads) == 1
    return texts, reasons, usage


def test_the_model_is_listed(served: Served) -> None:
    (listed,) = served.client.models.list().data
    assert listed.id == "tiny"
    assert served.client.models.retrieve("tiny") == listed
    with pytest.raises(openai.NotFoundError, match=r"no model 'owner/huge' here, only 'tiny'") as error:
        served.client.models.retrieve("owner/huge")
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("sampling", [{"temperature": 0}, WARM], ids=["greedy", "warm"])
def test_a_completion_is_what_generate_gives(
    served: Served, model: StarCoder, tokenizer: Tokenizer, prompt: str, sampling: dict[str, Any]
) -> None:
    expected = generate(model, tokenizer, [prompt], max_new_tokens=20, **sampling)
    answer = served.client.completions.create(model="tiny", prompt=prompt, max_tokens=20, **sampling)
    assert [choice.text for choice in answer.choices] == expected
    assert answer.object == "text_completion"
    assert answer.model == "tiny"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == max(1, len(tokenizer.encode(prompt)))
    assert answer.usage.completion_tokens <= 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason == ("length" if answer.usage.completion_tokens == 20 else "stop")
    texts, reasons, usage = streamed(
        served.client, prompt=prompt, max_tokens=20, stream_options={"include_usage": True}, **sampling
    )
    assert texts == {0: expected[0]}
    assert reasons == {0: answer.choices[0].finish_reason}
    assert usage == answer.usage


def test_lists_of_prompts_and_samples(served: Served, model: StarCoder, tokenizer: Tokenizer) -> None:
    create = served.client.completions.create
    expected = generate(model, tokenizer, PROMPTS, max_new_tokens=9, **WARM)
    answer = create(model="tiny", prompt=PROMPTS, max_tokens=9, **WARM)
    assert [choice.text for choice in answer.choices] == expected
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    ids = [tokenizer.encode(prompt) or [0] for prompt in PROMPTS]
    assert [choice.text for choice in create(model="tiny", prompt=ids, max_tokens=9, **WARM).choices] == expected
    repeated = [prompt for prompt in PROMPTS[:2] for _ in range(3)]
    expected = generate(model, tokenizer, repeated, max_new_tokens=9, **WARM)
    answer = create(model="tiny", prompt=PROMPTS[:2], n=3, max_tokens=9, **WARM)
    assert [choice.text for choice in answer.choices] == expected
    assert len(set(expected)) == 6
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(ids[0]) + len(ids[1])
    texts, reasons, _ = streamed(served.client, prompt=PROMPTS[:2], n=3, max_tokens=9, **WARM)
    assert [texts[index] for index in range(6)] == expected
    assert set(reasons) == set(range(6))


def test_without_a_seed_samples_differ(served: Served) -> None:
    request: dict[str, Any] = {"model": "tiny", "prompt": "def", "max_tokens": 20, "temperature": 1}
    assert len({served.client.completions.create(**request).choices[0].text for _ in range(3)}) == 3


def test_a_suffix_infills(served: Served, model: StarCoder, tokenizer: Tokenizer) -> None:
    prefix, suffix = "def add(a, b):\n    return ", "\n\n\nclass <fim_middle>:"
    (expected,) = infill(model, tokenizer, [(prefix, suffix)], max_new_tokens=12)
    request: dict[str, Any] = {"suffix": suffix, "max_tokens": 12, "temperature": 0}
    answer = served.client.completions.create(model="tiny", prompt=prefix, **request)
    assert answer.choices[0].text == expected
    assert answer.usage is not None
    ids = [FIM_PREFIX, *tokenizer.encode(prefix), FIM_SUFFIX, *tokenizer.encode(suffix), FIM_MIDDLE]
    assert answer.usage.prompt_tokens == len(ids)
    assert (
        served.client.completions.create(model="tiny", prompt=ids, max_tokens=12, temperature=0).choices[0].text
        == expected
    )
    assert streamed(served.client, prompt=prefix, **request)[0] == {0: expected}


def test_sentinels_spelled_in_a_prompt_are_control_tokens(
    served: Served, model: StarCoder, tokenizer: Tokenizer
) -> None:
    spelled = "<fim_prefix>def add(<fim_suffix>: pass<fim_middle>"
    answer = served.client.completions.create(model="tiny", prompt=spelled, max_tokens=12, temperature=0)
    assert [answer.choices[0].text] == infill(model, tokenizer, [("def add(", ": pass")], max_new_tokens=12)


def test_stop_strings_end_a_completion_and_are_cut(served: Served, model: StarCoder, tokenizer: Tokenizer) -> None:
    for seed in range(6):
        options = WARM | {"seed": seed}
        (free,) = generate(model, tokenizer, ["def"], max_new_tokens=30, **options)
        stop = [mark for mark in (free[8:11], free[5:7]) if "\ufffd" not in mark]
        (expected,) = generate(model, tokenizer, ["def"], max_new_tokens=30, stop=stop, **options)
        request = options | {"prompt": "def", "max_tokens": 30, "stop": stop}
        answer = served.client.completions.create(model="tiny", **request)
        assert answer.choices[0].text == expected
        assert stop
        assert len(expected) <= 8
        assert answer.choices[0].finish_reason == "stop"
        assert streamed(served.client, **request)[:2] == ({0: expected}, {0: "stop"})


def test_echo_and_no_new_tokens(served: Served, model: StarCoder, tokenizer: Tokenizer) -> None:
    create = served.client.completions.create
    (expected,) = generate(model, tokenizer, ["def é"], max_new_tokens=5)
    request: dict[str, Any] = {"prompt": "def é", "max_tokens": 5, "temperature": 0, "echo": True}
    assert create(model="tiny", **request).choices[0].text == "def é" + expected
    assert streamed(served.client, **request)[0] == {0: "def é" + expected}
    answer = create(model="tiny", prompt=tokenizer.encode("a€"), max_tokens=0, echo=True)
    assert [(choice.text, choice.finish_reason) for choice in answer.choices] == [("a€", "length")]


def test_a_completion_ends_where_the_context_is_full(served: Served, tokenizer: Tokenizer) -> None:
    prompt = [50] * LIMITS.prompt_tokens
    answer = served.client.completions.create(model="tiny", prompt=prompt, max_tokens=80, temperature=0)
    assert answer.usage is not None
    assert answer.usage.total_tokens <= 96
    assert answer.choices[0].finish_reason == ("length" if answer.usage.total_tokens == 96 else "stop")


@pytest.mark.parametrize(("asked", "kept"), [(5, 5), (0, 0), (1000, 90), (-1, 84)])
def test_a_prompt_that_is_too_long_is_cut_on_the_left(
    served: Served, model: StarCoder, tokenizer: Tokenizer, asked: int, kept: int
) -> None:
    prompt = "x = (7 + 11) * y\n" * 9
    ids = tokenizer.encode(prompt)
    assert len(ids) > 96
    last = ids[len(ids) - kept :]
    expected = generate_tokens(model, [last], Sampling(12), tokenizer.vocab_size)[0]
    for form in (prompt, ids):
        answer = served.client.completions.create(
            model="tiny",
            prompt=form,
            max_tokens=12,
            temperature=0,
            echo=True,
            extra_body={"truncate_prompt_tokens": asked},
        )
        assert answer.choices[0].text == tokenizer.decode(last) + tokenizer.decode(expected)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == max(1, kept)


def test_a_gap_too_far_from_both_ends_is_filled_from_what_is_nearest(
    served: Served, model: StarCoder, tokenizer: Tokenizer
) -> None:
    prefix, suffix = "a = 1\n" * 30, "b = 2\n" * 30
    before, after = tokenizer.encode(prefix), tokenizer.encode(suffix)
    ids = [FIM_PREFIX, *before[-10:], FIM_SUFFIX, *after[:10], FIM_MIDDLE]
    (expected,) = generate_tokens(model, [ids], Sampling(12), tokenizer.vocab_size)
    request: dict[str, Any] = {"model": "tiny", "prompt": prefix, "suffix": suffix, "max_tokens": 12, "temperature": 0}
    with pytest.raises(openai.BadRequestError, match="shorten it") as error:
        served.client.completions.create(**request)
    assert error.value.code == "context_length_exceeded"
    answer = served.client.completions.create(**request, extra_body={"truncate_prompt_tokens": 23})
    assert answer.choices[0].text == tokenizer.decode(expected)
    answer = served.client.completions.create(**request, extra_body={"truncate_prompt_tokens": -1})
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 84


BAD = [
    ({"model": "other"}, 404, "model", "no model 'other' here"),
    ({"prompt": 5}, 400, "prompt", "a prompt is a text"),
    ({"prompt": []}, 400, "prompt", "a prompt is a text"),
    ({"prompt": ["a", [1]]}, 400, "prompt", "a prompt is a text"),
    ({"prompt": [True]}, 400, "prompt", "a prompt is a text"),
    ({"prompt": [300]}, 400, "prompt", r"outside \[0, 300\)"),
    ({"prompt": [-1]}, 400, "prompt", r"outside \[0, 300\)"),
    ({"prompt": [50] * 91}, 400, "prompt", "has 91 tokens, this server takes 90"),
    ({"prompt": "a", "suffix": "7" * 90}, 400, "prompt", "has 94 tokens"),
    ({"prompt": ["a"] * 9, "n": 2}, 400, "n", "more than 16 completions"),
    ({"n": 0}, 400, "n", "greater than or equal to 1"),
    ({"n": 129}, 400, "n", "less than or equal to 128"),
    ({"max_tokens": -1}, 400, "max_tokens", "greater than or equal to 0"),
    ({"max_tokens": 81}, 400, "max_tokens", "writes at most 80"),
    ({"max_tokens": "many"}, 400, "max_tokens", "valid integer"),
    ({"temperature": -0.1}, 400, "temperature", "greater than"),
    ({"temperature": 2.1}, 400, "temperature", "less than"),
    ({"top_p": 0}, 400, "top_p", "greater than 0"),
    ({"stop": ["x"] * 17}, 400, "stop", "at most 16"),
    ({"stop": ""}, 400, "stop", "1 to 256 characters"),
    ({"stop": "a\ufffd"}, 400, "stop", r"other than U\+FFFD"),
    ({"stop": [7]}, 400, "stop", "stop is a text"),
    ({"suffix": 7}, 400, "suffix", "must be a text"),
    ({"seed": 2**63}, 400, "seed", "less than"),
    ({"best_of": 3}, 400, "best_of", "set it to n"),
    ({"best_of": 0}, 400, "best_of", "set it to n"),
    ({"best_of": 1, "n": 3}, 400, "best_of", "set it to n"),
    ({"logit_bias": {"5": 1}}, 400, "logit_bias", "has no logit_bias"),
    ({"presence_penalty": 0.5}, 400, "presence_penalty", "has no presence_penalty"),
    ({"stream": False, "stream_options": {"include_usage": True}}, 400, "stream_options", "set stream"),
    ({"logprobs": 6}, 400, "logprobs", "less than or equal to 5"),
    ({"logprobs": 1, "echo": True, "suffix": "x"}, 400, "echo", "leave echo or logprobs out"),
    ({"truncate_prompt_tokens": -2}, 400, "truncate_prompt_tokens", "greater than or equal to -1"),
    ({"top_k": 5}, 400, "top_k", "has no top_k: leave it out"),
    ({"top_k": 5, "min_p": 0.1}, 400, "top_k", "has no top_k, min_p: leave them out"),
    ({"repetition_penalty": 1.1}, 400, "repetition_penalty", "has no repetition_penalty"),
    ({"prompt": ["a"] * 17}, 400, "prompt", "17 prompts × n = 1 are more than 16 completions"),
    ({"prompt": " " * 1441}, 400, "prompt", "1441 bytes has more than 90 tokens: shorten it"),
    ({"prompt": "a", "suffix": "é" * 720}, 400, "prompt", "1441 bytes has more than 90 tokens: shorten it"),
]


@pytest.mark.parametrize(("change", "status", "param", "message"), BAD, ids=[f"{list(bad[0])}" for bad in BAD])
@pytest.mark.parametrize("stream", [False, True])
def test_what_a_request_cannot_have(
    served: Served, change: dict[str, Any], status: int, param: str, message: str, stream: bool
) -> None:
    body = {"model": "tiny", "prompt": "def", "stream": stream} | change
    with pytest.raises(openai.APIStatusError, match=message) as error:
        served.client.post("/completions", body=body, cast_to=object)
    assert error.value.status_code == status
    assert error.value.param == param
    assert error.value.type == ("not_found_error" if status == 404 else "invalid_request_error")


def test_what_means_nothing_is_taken(served: Served) -> None:
    nothing: dict[str, Any] = {"best_of": 1, "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0}
    nothing |= {"user": "me", "logprobs": None, "stop": None, "suffix": None, "seed": -3, "stream_options": None}
    nothing |= {"extra_body": {"repetition_penalty": 1.0, "min_tokens": 0, "stop_token_ids": [], "top_k": -1}}
    nothing["extra_body"] |= {"metadata": {"team": "x"}, "skip_special_tokens": True, "unheard_of": None, "best_of": 1}
    assert served.client.completions.create(model="tiny", prompt="def", **nothing).choices


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/completions", b"{", 400),
        ("POST", "/v1/completions", b"", 400),
        ("POST", "/v1/completions", b"[]", 400),
        ("POST", "/v1/completions", b"\xff", 400),
        ("POST", "/v1/completions", b'{"model": "tiny", "prompt": "a", "temperature": NaN}', 400),
        ("POST", "/v1/completions", rb'{"model": "tiny", "prompt": "\ud800"}', 400),
        ("POST", "/v1/completions", rb'{"model": "tiny", "prompt": "a", "stop": "\udc80"}', 400),
        ("POST", "/v1/completions", rb'{"model": "\ud800", "prompt": "a"}', 404),
        ("POST", "/v1/completions", rb'{"model": "tiny", "prompt": "a", "\ud800": 1}', 400),
        ("POST", "/v1/completions", b" " * 100_001, 413),
        ("GET", "/v1/completions", None, 405),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/docs", None, 404),
        ("GET", "/openapi.json", None, 404),
    ],
)
def test_errors_have_the_shape_that_clients_know(
    served: Served, method: str, path: str, body: bytes | None, status: int
) -> None:
    found, _, answer = ask(served, method, path, body, Content_Type="application/json")
    assert found == status
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["message"]


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b'{"model": "tiny", "prompt": "a"}', "application/x-www-form-urlencoded", "Content-Type: application/json"),
        (b'{"model": "tiny", "prompt": "a"}', "", "Content-Type: application/json"),
        (b'{"model": "tiny",}', "application/json", "the body is no JSON: "),
        (b"[" * 50_000, "application/json", "the body is no JSON: "),
        (b'{"seed": ' + b"1" * 9_000 + b"}", "application/json", "the body is no JSON: "),
        (b'"tiny"', "application/json; charset=utf-8", "the body is no JSON object"),
        (b"{}", "application/json", "model: Field required"),
        (
            rb'{"model": "tiny", "prompt": "a", "\ud800": 1}',
            "application/json",
            "a name: Input should be a valid string",
        ),
    ],
)
def test_what_is_wrong_with_a_body_is_said(served: Served, body: bytes, kind: str, words: str) -> None:
    status, _, answer = ask(served, "POST", "/v1/completions", body, **({"Content_Type": kind} if kind else {}))
    assert status == 400
    assert words in answer["error"]["message"]


def test_names_that_a_client_makes_up_are_repeated_in_short(served: Served) -> None:
    body = {"model": "tiny", "prompt": "a"} | {f"{number:04}" * 1000: 1 for number in range(20)}
    status, _, answer = ask(
        served, "POST", "/v1/completions", json.dumps(body).encode(), Content_Type="application/json"
    )
    assert status == 400
    assert len(answer["error"]["message"]) < 1000


def test_health_answers_those_who_ask_for_its_head_only(served: Served) -> None:
    assert ask(served, "HEAD", "/health")[0] == 200


def test_a_body_of_unknown_length_is_counted(served: Served) -> None:
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
    connection.request(
        "POST", "/v1/completions", iter([b" " * 60_000] * 2), {"Content-Type": "application/json"}, encode_chunked=True
    )
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["error"]["code"]) == (413, "request_too_large")
    connection.close()


def test_chats_are_refused(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="tiny is no chat model"):
        served.client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])


def test_32_clients_at_once_get_what_each_gets_alone(served: Served, model: StarCoder, tokenizer: Tokenizer) -> None:
    def one(number: int) -> str:
        request = {"prompt": PROMPTS[number % 4], "max_tokens": 4 + number, "temperature": 0.8, "seed": number}
        with OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
            if number % 2:
                return streamed(client, **request)[0].get(0, "")
            return client.completions.create(model="tiny", **request).choices[0].text

    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(one, range(32)))
    for number, text in enumerate(found):
        prompt, options = PROMPTS[number % 4], {"max_new_tokens": 4 + number, "temperature": 0.8, "seed": number}
        assert [text] == generate(model, tokenizer, [prompt], **options)


def test_the_kits_own_evaluation_asks_it(served: Served, model: StarCoder, tokenizer: Tokenizer) -> None:
    prefix, suffix = "def add(a, b):\n", "    return c\n"
    requests = [Request("one", "class", None, (0, 1), stop=("\n\n",)), Request("two", prefix, suffix, (0,))]
    engine = EndpointEngine("tiny", base_url=f"{served.url}/v1", infilling="suffix")
    found = list(engine.complete(requests, TextSampling(temperature=0.0, top_p=1.0, max_new_tokens=9)))
    (completed,) = generate(model, tokenizer, ["class"], max_new_tokens=9, stop=["\n\n"])
    (infilled,) = infill(model, tokenizer, [(prefix, suffix)], max_new_tokens=9)
    texts = sorted((completion.problem, completion.sample, completion.text) for completion in found)
    assert texts == [("one", 0, completed), ("one", 1, completed), ("two", 0, infilled)]


def test_a_full_queue_turns_requests_away_for_a_while(serving: Serving, gate: type[Gated]) -> None:
    with serving(rows=1, queue=1, batch=gate) as served, ThreadPoolExecutor(2) as pool:
        create = served.client.completions.create
        under_way = [pool.submit(create, model="tiny", prompt="def", max_tokens=3) for _ in range(2)]
        until(lambda: served.engine.load == (1, 1))
        assert ask(served, "GET", "/health")[2] == {"status": "ok", "running": 1, "waiting": 1}
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError, match="try again") as error:
                create(model="tiny", prompt="def", max_tokens=3, stream=stream)
            assert int(error.value.response.headers["retry-after"]) > 0
        gate.steps.release(1000)
        assert all(future.result().choices for future in under_way)
        assert create(model="tiny", prompt="def", max_tokens=3).choices


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_goes_frees_its_rows(serving: Serving, gate: type[Gated], stream: bool, begun: bool) -> None:
    with serving(rows=2, batch=gate) as served:
        body = json.dumps({"model": "tiny", "prompt": "def", "n": 4, "max_tokens": 80, "seed": 1, "stream": stream})
        connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        until(lambda: served.engine.load == (2, 2))
        if begun:
            gate.steps.release(3)
            until(lambda: gate.steps._value == 0)
        else:
            until(lambda: len(served.engine._rows) == 4)
        tickets = {row.ticket for row in served.engine._rows.values()}
        connection.close()
        until(lambda: all(ticket.over for ticket in tickets))
        assert served.engine.load == (0, 0)
        gate.steps.release()  # the step that had begun before it went
        until(lambda: not served.engine._rows)
        gate.steps.release(1000)
        assert served.client.completions.create(model="tiny", prompt="def", max_tokens=3).choices


def test_a_model_that_fails_is_the_servers_fault(serving: Serving, gate: type[Gated]) -> None:
    with serving(batch=gate) as served:
        for stream in (False, True):
            gate.broken = True
            gate.steps.release(1)
            with pytest.raises(openai.APIError, match="its log says why"):
                list(served.client.completions.create(model="tiny", prompt="def", stream=stream))
        gate.steps.release(1000)
        assert served.client.completions.create(model="tiny", prompt="def", max_tokens=3).choices


def test_what_breaks_a_stream_is_its_last_event_and_is_logged(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(stream: TextStream, token: int) -> str:
        raise ArithmeticError("no such token")

    monkeypatch.setattr(TextStream, "push", broken)
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
    body = json.dumps({"model": "tiny", "prompt": "def", "stream": True, "echo": True})
    connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
    *_, last = connection.getresponse().read().decode().strip().split("\n\n")
    connection.close()
    assert "its log says why" in json.loads(last.removeprefix("data: "))["error"]["message"]
    assert "no such token" in caplog.text


def test_logits_that_are_not_finite_fail_the_requests_that_have_them(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as served:
        create = served.client.completions.create
        sound = StarCoder.next_logits
        monkeypatch.setattr(StarCoder, "next_logits", lambda *args: sound(*args) * math.nan)
        for failures in range(3):
            assert ask(served, "GET", "/health")[2]["status"] == "ok", failures
            with pytest.raises(openai.InternalServerError, match="its log says why"):
                create(model="tiny", prompt=["def", "class"], temperature=0)
        assert ask(served, "GET", "/health")[2]["status"] == "failing"
        assert "logits are not finite" in caplog.text
        monkeypatch.undo()
        assert create(model="tiny", prompt="def").choices
        assert ask(served, "GET", "/health")[2]["status"] == "ok"


@pytest.mark.parametrize("temperature", [1e-40, 1e-6, 2.0])
def test_no_temperature_fails_the_others(
    served: Served, model: StarCoder, tokenizer: Tokenizer, temperature: float
) -> None:
    (greedy,) = generate(model, tokenizer, ["def"], max_new_tokens=9)
    answer = served.client.completions.create(model="tiny", prompt="def", max_tokens=9, temperature=temperature)
    assert temperature > 1 or answer.choices[0].text == greedy


def test_what_is_under_way_when_the_server_closes(serving: Serving, gate: type[Gated]) -> None:
    with serving(batch=gate) as served, ThreadPoolExecutor(1) as pool:
        create = served.client.completions.create
        whole = pool.submit(create, model="tiny", prompt="def", max_tokens=80)
        stream = create(model="tiny", prompt="def", max_tokens=80, stream=True, echo=True)
        assert next(stream).choices[0].text == "def"
        until(lambda: served.engine.load == (2, 0))
        served.engine.close()
        with pytest.raises(openai.InternalServerError, match="shutting down") as error:
            create(model="tiny", prompt="def")
        assert error.value.status_code == 503
        assert ask(served, "GET", "/health")[0] == 503
        served.engine.stop()
        gate.steps.release(1000)
        with pytest.raises(openai.InternalServerError, match="shutting down"):
            whole.result()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)


def test_a_server_that_is_told_to_end_writes_what_was_asked(
    serving: Serving, gate: type[Gated], model: StarCoder, tokenizer: Tokenizer
) -> None:
    (expected,) = generate(model, tokenizer, ["def"], max_new_tokens=20, **WARM)
    with serving(rows=1, batch=gate) as served, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(streamed, served.client, prompt="def", max_tokens=20, n=3, echo=True, **WARM)
        until(lambda: served.engine.load == (1, 2))
        served.server.should_exit = True
        until(lambda: served.engine.state != "ok")
        gate.steps.release(1000)
        texts, reasons, _ = waiting.result()
        assert texts[0] == "def" + expected
        assert len(reasons) == 3


def test_a_server_waits_for_grace_and_no_longer(serving: Serving, gate: type[Gated]) -> None:
    with serving(batch=gate, grace=0.1) as served:
        stream = served.client.completions.create(model="tiny", prompt="def", stream=True, echo=True)
        assert next(stream).choices[0].text == "def"
        served.server.should_exit = True
        until(lambda: served.engine._stopped)
        gate.steps.release()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)


def test_a_key_is_asked_for(serving: Serving) -> None:
    with serving(api_key="secret") as served:
        for key in ("unused", "secre", "secrets"):
            with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
                served.client.with_options(api_key=key).models.list()
        assert ask(served, "GET", "/v1/models")[0] == 401
        assert ask(served, "POST", "/v1/completions", b" " * 200_000)[0] == 401
        assert ask(served, "GET", "/health")[0] == 200
        assert served.client.with_options(api_key="secret").models.list().data


def test_pages_of_others_may_not_ask_unless_they_are_named(
    served: Served, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    preflight = {name.replace("-", "_"): value for name, value in page.items()}
    status, headers, _ = ask(served, "OPTIONS", "/v1/completions", **preflight)
    assert status == 405
    assert "access-control-allow-origin" not in headers
    body = json.dumps({"model": "tiny", "prompt": "def"}).encode()
    assert ask(served, "POST", "/v1/completions", body, Content_Type="text/plain")[0] == 400  # needs no preflight
    with serving(allow_origins=("https://page.example",), api_key="secret") as open_to_it:
        connection = http.client.HTTPConnection(urlsplit(open_to_it.url).netloc, timeout=30)
        connection.request("OPTIONS", "/v1/completions", headers=page)
        response = connection.getresponse()
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        connection.close()
        for wrong in ({}, {"Authorization": "Bearer secret", "Content_Length": "200000"}):
            status, headers, _ = ask(open_to_it, "GET", "/v1/models", Origin=page["Origin"], **wrong)
            assert status == (413 if wrong else 401)
            assert headers["access-control-allow-origin"] == "https://page.example"
        monkeypatch.setattr(open_to_it.engine, "submit", None)  # not callable: what nobody has thought of
        asking = {"Content_Type": "application/json", "Authorization": "Bearer secret", "Origin": page["Origin"]}
        status, headers, answer = ask(open_to_it, "POST", "/v1/completions", body, **asking)
        assert (status, headers["access-control-allow-origin"]) == (500, "https://page.example")
        assert "its log says why" in answer["error"]["message"]
