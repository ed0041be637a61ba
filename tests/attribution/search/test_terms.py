import pytest
from hypothesis import given
from hypothesis import strategies as st
from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

from starcoder.attribution.search.terms import plain, spaced, tokens, trigrams

TEXTS = st.text(max_size=60) | st.text(alphabet="aZ_0 \n\t()+-é ßæ\x00中\x1c\ud800", max_size=60)


@given(TEXTS)
def test_the_terms_of_a_query_are_those_that_the_engine_cuts_from_a_document(text: str) -> None:
    grams = TextAnalyzerBuilder(Tokenizer.ngram(3, 3)).build()
    words = TextAnalyzerBuilder(Tokenizer.whitespace()).build()
    assert trigrams(text) == set(grams.analyze(plain(text)))
    assert tokens(text) == set(words.analyze(spaced(plain(text))))


@given(st.text(alphabet="aBc_9 \n(){}.é", max_size=60))
def test_folding_is_the_papers_filter(text: str) -> None:
    """Lower case and ASCII folding of 3-grams, as the engine's own filters do it."""
    filters = TextAnalyzerBuilder(Tokenizer.ngram(3, 3)).filter(Filter.lowercase()).filter(Filter.ascii_fold()).build()
    assert trigrams(text) == set(filters.analyze(" ".join(text.split())))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("if x:\n\treturn f(a_1, 2.5)", ["if", "x", ":", "return", "f", "(", "a_1", ",", "2", ".", "5", ")"]),
        ("f()\n  {}", ["f", "()", "{}"]),
        ("MAX = Größe", ["max", "=", "grosse"]),
        ("a中b", ["a中b"]),
        ("", []),
        (" \n", []),
    ],
)
def test_code_tokens(text: str, expected: list[str]) -> None:
    assert spaced(plain(text)).split() == expected


def test_indentation_and_case_make_no_difference() -> None:
    assert trigrams("IF a:\r\n\t\tB") == trigrams("if A:\n    b")
    assert tokens("IF a:\r\n\t\tB") == tokens("if A:\n    b")
    assert trigrams("ab") == set()
