import re
import sysconfig
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from starcoder.attribution.corpus import Address
from starcoder.attribution.lexer import Tokens, lex
from starcoder.attribution.spans import CHARACTERS, TOKENS, Place, Span, Spans, verify

WORDS = st.sampled_from(["a", "b", "xy", "=", "(", "é", "1", " ", "\n\t", "😀"])
TEXTS = st.lists(WORDS, max_size=40).map("".join)


def lexed(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def normal(text: str) -> str:
    return " ".join(text.split())


def reference(query: str, documents: list[str], tokens: int, characters: int) -> set[tuple[int, int, frozenset[int]]]:
    """All sequences of tokens of the query, tried one by one."""
    asked = lexed(query)
    pieces = []
    for document in documents:
        there = lexed(document)
        pieces.append({normal(document[a:d]) for n, (a, _) in enumerate(there) for _, d in there[n + tokens - 1 :]})
    stands = {
        (i, j, n)
        for i in range(len(asked))
        for j in range(i + tokens, len(asked) + 1)
        for n, known in enumerate(pieces)
        if normal(query[asked[i][0] : asked[j - 1][1]]) in known
    }
    maximal = {(i, j) for i, j, n in stands if (i - 1, j, n) not in stands and (i, j + 1, n) not in stands}
    found = set()
    for i, j in maximal:
        start, end = asked[i][0], asked[j - 1][1]
        if len(normal(query[start:end])) >= characters:
            found.add((start, end, frozenset(n for n in range(len(documents)) if (i, j, n) in stands)))
    return found


def find_spans(
    query: str, documents: list[tuple[Address, str]], tokens: int = TOKENS, characters: int = CHARACTERS
) -> list[Span]:
    """All spans, the longest first."""
    spans = Spans(lex(query), {address: lex(text) for address, text in documents}, tokens, characters)
    return spans.tell(range(len(spans.parts)))


def told(spans: list[Span]) -> set[tuple[int, int, frozenset[int]]]:
    return {(span.start, span.end, frozenset(place.address.row for place in span.places)) for span in spans}


def addressed(documents: list[str]) -> list[tuple[Address, str]]:
    return [(Address(0, n), text) for n, text in enumerate(documents)]


@settings(max_examples=400)
@given(TEXTS, st.lists(TEXTS, max_size=4), st.integers(2, 4), st.integers(0, 5))
def test_spans_are_those_of_a_search_of_all(query: str, documents: list[str], tokens: int, characters: int) -> None:
    spans = find_spans(query, addressed(documents), tokens, characters)
    assert told(spans) == reference(query, documents, tokens, characters)
    assert all(verify(query, span, place, documents[place.address.row]) for span in spans for place in span.places)
    assert [span.count for span in spans] == [len(span.places) for span in spans]
    sizes = [len(normal(span.text)) for span in spans]
    assert sizes == sorted(sizes, reverse=True)


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4), st.integers(2, 4), st.data())
def test_a_span_is_counted_once_for_each_group_that_has_it(
    query: str, documents: list[str], tokens: int, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from("xyz"), min_size=len(documents), max_size=len(documents)))
    spans = Spans(lex(query), {address: lex(text) for address, text in addressed(documents)}, tokens, 0)
    every = spans.tell(range(len(spans.parts)))
    assert spans.parts.tolist() == [[span.start, span.end] for span in every]
    counts = spans.groups(names).tolist()
    assert counts == [len({names[place.address.row] for place in span.places}) for span in every]
    some = data.draw(st.lists(st.integers(0, len(every) - 1), unique=True)) if every else []
    assert spans.tell(some) == [every[number] for number in some]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=TEXTS, documents=st.lists(TEXTS, max_size=4))
def test_pieces_of_equal_hashes_are_no_spans_unless_they_are_equal(
    query: str, documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Tokens.hashes
    monkeypatch.setattr(Tokens, "hashes", lambda self, length=1: honest(self, length) % 3)
    spans = find_spans(query, addressed(documents), 2, 0)
    monkeypatch.undo()
    assert all(verify(query, span, place, documents[place.address.row]) for span in spans for place in span.places)


def test_windows_of_one_token_are_refused() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        find_spans("a b c", addressed(["a b c"]), tokens=1)


def sources(count: int) -> list[str]:
    """Files of the standard library."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return [path.read_text(encoding="utf-8", errors="surrogateescape") for path in Random(0).sample(paths, count)]


def snippet(text: str, size: int, rng: Random) -> str:
    at = rng.randrange(max(1, len(text) - size))
    return text[at : at + size]


def test_every_place_in_real_code_is_verified() -> None:
    rng, documents = Random(1), sources(40)
    checked = 0
    for _ in range(12):
        query = "\n".join(snippet(text, 700, rng) for text in rng.sample(documents, 6))
        for span in find_spans(query, addressed(documents)):
            assert all(verify(query, span, place, documents[place.address.row]) for place in span.places)
            checked += len(span.places)
    assert checked >= 300


def test_a_copy_is_found_whole_whatever_its_white_space() -> None:
    rng, documents = Random(2), sources(10)
    for row, text in enumerate(documents):
        copied = normal(snippet(text, 600, rng))
        plain = find_spans(copied, addressed(documents))
        spread = "".join(rng.choice(["  ", "\n\t", "\r\n    ", "\u00a0"]) if c == " " else c for c in copied)
        spans = find_spans(spread, addressed(documents))
        assert [normal(span.text) for span in spans] == [normal(span.text) for span in plain]
        assert [span.places for span in spans] == [span.places for span in plain]
        words = lexed(copied)
        inner = copied[words[1][0] : words[-2][1]]
        assert inner in normal(spans[0].text)
        assert Address(0, row) in {place.address for place in spans[0].places}


def test_a_place_has_its_lines() -> None:
    document = "# one\n\nif total:\n    return first(total)\n# end\n"
    (span,) = find_spans("xx if total: return first(total) yy", [(Address(3, 7), document)], tokens=4)
    start = document.index("if")
    assert span.places == (Place(Address(3, 7), start, document.index("\n# end"), (3, 4)),)
    assert (span.start, span.end, span.text) == (3, 32, "if total: return first(total)")


def test_a_span_is_told_with_all_documents_that_have_it() -> None:
    first, second = "a b c d e f", "x a b c d e f g h"
    spans = find_spans("a b c d e f g h", addressed([first, second]), tokens=4, characters=1)
    assert [(span.text, [place.address.row for place in span.places]) for span in spans] == [
        ("a b c d e f g h", [1]),
        ("a b c d e f", [0, 1]),
    ]


def test_spans_end_between_tokens() -> None:
    spans = find_spans("alpha beta gamma delta", addressed(["phalpha beta gamma deltas"]), tokens=2, characters=1)
    assert [span.text for span in spans] == ["beta gamma"]


def test_verification_refuses_what_is_not_so() -> None:
    query, document = "zz f(total, 10) + y", "a = f(total,\n 10) + yes"
    (span,) = find_spans(query, [(Address(0, 0), document)], tokens=4, characters=1)
    (place,) = span.places
    assert verify(query, span, place, document)
    assert not verify(query, span, place, document.replace("10", "11"))
    assert not verify(query, span, place._replace(end=place.end + 2), document)
    assert not verify(query, span, place._replace(lines=(1, 1)), document)
    assert not verify(query, span, place._replace(start=place.end), document)
    assert not verify("  " + query, span, place, document)
    torn = replace(span, start=span.start, end=span.end + 2, text=query[span.start : span.end + 2])
    assert not verify(query, torn, place._replace(end=place.end + 2), document)


@pytest.mark.parametrize("query", ["", " \n\t", "x", "\x00\x01\ud800 \udfff", "+" * 50])
def test_hardly_a_text_has_no_spans(query: str) -> None:
    assert find_spans(query, addressed(["", "a = b + c\n" * 20, "x"])) == []
    assert find_spans("a = b + c\n" * 20, addressed([query, ""])) == []
    assert find_spans("a = b + c\n" * 20, []) == []


def test_repetitions_without_end_are_one_span() -> None:
    query, document = "0, " * 30_000, "0, " * 50_000
    (span,) = find_spans(query, addressed([document] * 2))
    assert (span.start, span.end, span.count) == (0, len(query) - 1, 2)
    assert verify(query, span, span.places[0], document)


def test_a_text_of_ten_megabytes() -> None:
    rng = Random(3)
    words = [f"word{rng.randrange(10**6)}" for _ in range(10**6)]
    query = " ".join(words)
    part = " ".join(words[400_000:400_300])
    (span,) = find_spans(query, addressed(["some thing " + part + " else", "nothing at all " * 100]))
    assert (span.text, span.count) == (part, 1)
