"""What a stream lets out is what the whole text would have been, and no more."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder import tokenizer as tokenizers
from starcoder.generation import cut
from starcoder.serving.text import TextStream
from starcoder.tokenizer import Tokenizer
from tests.serving.conftest import CODE

TOKENIZER = tokenizers.train([CODE] * 9, vocab_size=300)


def pieces(tokenizer: Tokenizer, ids: Sequence[int], stop: Sequence[str]) -> list[str]:
    stream = TextStream(tokenizer, stop)
    return [*(stream.push(token) for token in ids), stream.finish()]


def spelled(text: str) -> list[int]:
    """A token a byte."""
    return [TOKENIZER.encode(bytes([byte]).decode("utf-8", "surrogateescape"))[0] for byte in text.encode()]


few_letters = st.text("abé€😀\n", min_size=1, max_size=4)


@given(st.text("abé€😀\n", max_size=30), st.lists(few_letters, max_size=3))
def test_pieces_join_to_the_text_before_the_stop_string(text: str, stop: list[str]) -> None:
    ids = spelled(text)
    got = pieces(TOKENIZER, ids, stop)
    assert "".join(got) == cut(text, stop)
    assert "\ufffd" not in "".join(got)


@given(st.lists(st.integers(0, 299), max_size=40), st.lists(few_letters, max_size=3))
def test_any_tokens_join_to_what_decoding_them_gives(ids: list[int], stop: list[str]) -> None:
    assert "".join(pieces(TOKENIZER, ids, stop)) == cut(TOKENIZER.decode(ids), stop)


@given(st.text("abé€", max_size=20), st.lists(few_letters, min_size=1, max_size=2))
def test_nothing_is_let_out_that_a_longer_text_would_lose(text: str, stop: list[str]) -> None:
    stream = TextStream(TOKENIZER, stop)
    out = "".join(stream.push(token) for token in spelled(text))
    for mark in stop:
        for end in range(len(mark)):
            assert cut(text + mark[end:], stop).startswith(out)


def test_a_character_comes_whole_and_a_stop_string_never_begins() -> None:
    assert pieces(TOKENIZER, spelled("a€b"), []) == ["a", "", "", "€", "b", ""]
    assert pieces(TOKENIZER, spelled("xENExEND y"), ["END"]) == ["x", "", "", "EN", "Ex", "", "", "", "", "", ""]
    assert pieces(TOKENIZER, spelled("xEN"), ["END"]) == ["x", "", "", "EN"]
    assert pieces(TOKENIZER, spelled("a€")[:-1], []) == ["a", "", "", "\ufffd"]


@pytest.mark.parametrize("stop", [["ab", "b"], ["b", "ab"]])
def test_of_stop_strings_that_are_complete_at_once_the_longest_is_cut(stop: list[str]) -> None:
    assert "".join(pieces(TOKENIZER, spelled("xaby"), stop)) == "x"
