import re
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from starcoder.attribution.lexer import lex
from starcoder.attribution.squeezed import squeeze

TEXTS = st.text(alphabet=st.sampled_from('ab1_ \n\t\u00a0+({"é漢😀́\ud800'), max_size=60) | st.text(max_size=40)


@given(TEXTS)
def test_tokens_are_words_and_single_other_characters(text: str) -> None:
    tokens = lex(text)
    assert tokens.texts() == re.findall(r"\w+|[^\w\s]", text)
    assert tokens.view.text == squeeze(text).text
    for n, token in enumerate(tokens.texts()):
        start, end = tokens.original(n, n + 1)
        assert text[start:end] == token


def test_an_example() -> None:
    assert lex("x+=10.5  # naïve\n").texts() == ["x", "+", "=", "10", ".", "5", "#", "naïve"]
    assert lex(" f (\n\t'a b') ").piece(1, 5) == "( 'a b"
    assert len(lex("")) == len(lex(" \n")) == 0


@given(TEXTS, TEXTS, st.integers(1, 4))
def test_hashes_are_equal_where_the_characters_are(one: str, two: str, length: int) -> None:
    pieces: dict[int, str] = {}
    for tokens in (lex(one), lex(two), lex(one + "\n" + two)):
        hashes = tokens.hashes(length).tolist()
        assert len(hashes) == max(0, len(tokens) - length + 1)
        for first, value in enumerate(hashes):
            assert pieces.setdefault(value, tokens.piece(first, first + length)) == tokens.piece(first, first + length)
    assert len(set(pieces.values())) == len(pieces)


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from starcoder.attribution.lexer import lex; print(lex('for i in range(10): pass').hashes(3).tolist())"
    here = lex("for  i in\n range(10): pass").hashes(3).tolist()
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == f"{here}\n"
    )
