"""How likely tokens were: against one pass of the whole text through the model."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from openai.types.completion_choice import CompletionChoice, Logprobs

from starcoder.generation import generate_tokens
from starcoder.model import StarCoder
from starcoder.sampling import Logprob, Sampling
from starcoder.serving.logprobs import Teller
from starcoder.tokenizer import EOD, Tokenizer
from tests.serving.conftest import Served

BEFORE_THE_END = [19, 71]
"""A prompt after which the end of the document is likeliest."""


def expected(model: StarCoder, ids: list[int]) -> torch.Tensor:
    """Logarithms (T-1, V) of the probabilities of what follows each token."""
    with torch.inference_mode():
        return F.log_softmax(model(torch.tensor([ids]))[0, :-1].float(), dim=-1)


def told(choice: CompletionChoice) -> Any:
    assert isinstance(choice.logprobs, Logprobs)
    return choice.logprobs


def check(told: Any, model: StarCoder, tokenizer: Tokenizer, ids: list[int], start: int, top: int) -> None:
    """Compare what is told of the tokens from `start` on."""
    every = expected(model, ids)
    names = [tokenizer.decode([token]) for token in ids]
    for place, (name, value, likeliest) in enumerate(
        zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True), start=start
    ):
        row = every[place - 1]
        assert name == names[place] or name.startswith("bytes:")
        if place == 0:  # before the first there is nothing
            assert (value, likeliest) == (None, None)
            continue
        assert value == pytest.approx(row[ids[place]].item(), abs=1e-4)
        best = row[: tokenizer.vocab_size].topk(top).values.tolist()
        found = sorted(likeliest.values(), reverse=True)
        assert found[:top] == pytest.approx(best, abs=1e-4)
        assert likeliest[name] == value
        assert len(found) in (top, top + 1)


@pytest.mark.parametrize("top", [0, 1, 5])
@pytest.mark.parametrize("temperature", [0, 0.7])
def test_of_the_tokens_that_are_written(
    served: Served, model: StarCoder, tokenizer: Tokenizer, top: int, temperature: float
) -> None:
    prompt = tokenizer.encode("def add(")
    (written,) = generate_tokens(model, [prompt], Sampling(12, temperature, seed=4), tokenizer.vocab_size)
    answer = served.client.completions.create(
        model="tiny", prompt=prompt, max_tokens=12, temperature=temperature, seed=4, logprobs=top
    )
    found = told(answer.choices[0])
    ended = [EOD] if len(written) < 12 else []
    assert len(found.tokens) == len(found.text_offset) == len([*written, *ended])
    check(found, model, tokenizer, [*prompt, *written, *ended], len(prompt), top)


@pytest.mark.parametrize("max_tokens", [0, 1, 7])
def test_of_an_echo_with_ragged_prompts(
    served: Served, model: StarCoder, tokenizer: Tokenizer, max_tokens: int
) -> None:
    prompts = ["def add(a, b):\n", "x€", "class"]
    answer = served.client.completions.create(
        model="tiny", prompt=prompts, max_tokens=max_tokens, n=2, temperature=0, echo=True, logprobs=2
    )
    for choice in answer.choices:
        prompt = prompts[choice.index // 2]
        ids = tokenizer.encode(prompt)
        (written,) = generate_tokens(model, [ids], Sampling(max_tokens), tokenizer.vocab_size)
        ended = [] if len(written) == max_tokens else [EOD]
        assert len(told(choice).tokens) == len([*ids, *written, *ended])
        assert choice.text == prompt + tokenizer.decode(written)
        check(told(choice), model, tokenizer, [*ids, *written, *ended], 0, 2)
        for name, offset in zip(told(choice).tokens, told(choice).text_offset, strict=True):
            assert name.startswith("bytes:") or choice.text[offset:].startswith(name)


def test_an_empty_prompt_has_no_tokens_to_tell_of(served: Served) -> None:
    answer = served.client.completions.create(model="tiny", prompt="", max_tokens=0, echo=True, logprobs=1)
    assert answer.choices[0].text == ""
    assert answer.choices[0].logprobs is None


def test_a_harness_measures_continuations(served: Served, model: StarCoder) -> None:
    """As EleutherAI's harness does: one more token is written, and what is told of it left out."""
    contexts = [[30, 31, 32], [50], BEFORE_THE_END[:1]]
    continuations = [[40, 41], [51, 52, 53], BEFORE_THE_END[1:]]
    whole = [context + continuation for context, continuation in zip(contexts, continuations, strict=True)]
    answer = served.client.completions.create(
        model="tiny", prompt=whole, max_tokens=1, temperature=0, echo=True, logprobs=1, seed=1234
    )
    for choice, context, ids in zip(answer.choices, contexts, whole, strict=True):
        every = expected(model, ids)[len(context) - 1 :]
        ours = told(choice).token_logprobs[len(context) : -1]
        predicted = torch.tensor(ids[len(context) :])
        assert sum(ours) == pytest.approx(every.gather(1, predicted.unsqueeze(1)).sum().item(), abs=1e-4)
        greedy = all(
            value == max(top.values())
            for value, top in zip(ours, told(choice).top_logprobs[len(context) : -1], strict=True)
        )
        assert greedy == bool((every[:, :300].argmax(-1) == predicted).all())


def test_the_end_of_a_document_is_a_token_that_is_told_of(served: Served) -> None:
    (choice,) = served.client.completions.create(
        model="tiny", prompt=BEFORE_THE_END, max_tokens=5, temperature=0, logprobs=1
    ).choices
    assert (choice.text, choice.finish_reason) == ("", "stop")
    assert told(choice).tokens == ["<|endoftext|>"]
    assert told(choice).text_offset == [0]


def test_pieces_of_a_stream_join_to_the_whole(served: Served) -> None:
    request: dict[str, Any] = {"model": "tiny", "prompt": ["x€", "def"], "max_tokens": 9, "temperature": 0.9}
    request |= {"seed": 3, "echo": True, "logprobs": 2}
    whole = served.client.completions.create(**request)
    joined: dict[int, dict[str, Any]] = {}
    for chunk in served.client.completions.create(**request, stream=True):
        for choice in chunk.choices:
            parts = joined.setdefault(choice.index, {})
            for name, values in (choice.logprobs.model_dump() if choice.logprobs else {}).items():
                parts.setdefault(name, []).extend(values)
    assert joined == {choice.index: told(choice).model_dump() for choice in whole.choices}


def test_who_does_not_ask_is_told_nothing(served: Served) -> None:
    assert served.client.completions.create(model="tiny", prompt="def", echo=True).choices[0].logprobs is None


def test_parts_of_characters_have_names_of_their_own(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.encode(bytes([byte]).decode("utf-8", "surrogateescape"))[0] for byte in "a€\ufffdb".encode()]
    del ids[5:7]  # what remains of the second character
    likeliest = [(ids[2], -1.5), (ids[1], -2.0)]
    block = Teller(tokenizer).block([(token, Logprob(token, float("-inf"), likeliest)) for token in ids])
    assert block["tokens"] == ["a", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac", "bytes:\\xef", "b"]
    assert block["text_offset"] == [0, 1, 1, 1, 2, 3]
    assert block["token_logprobs"] == [-9999.0] * 6
    assert block["top_logprobs"][0] == {"bytes:\\x82": -1.5, "bytes:\\xe2": -2.0, "a": -9999.0}
