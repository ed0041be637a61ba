from collections import Counter
from math import log
from pathlib import Path
from random import Random

import numpy as np
import pytest

from starcoder.attribution.corpus import Address
from starcoder.attribution.lexer import lex
from starcoder.attribution.spans import Integers, Spans
from starcoder.attribution.surprise import Frequencies, model_surprises, rarity, surprises
from starcoder.errors import UserError

TEXTS = ["a = b + a", "for  x in a:\n\tprint(x)", "a = b", ""]


def counted(texts: list[str], capacity: int = 100) -> Frequencies:
    found = Frequencies(capacity)
    for text in texts:
        found.add(text)
    return found


def parts(query: str, documents: list[str], tokens: int = 4, characters: int = 1) -> Integers:
    """Start and end in the query of the spans that it has in documents."""
    addressed = {Address(0, row): lex(text) for row, text in enumerate(documents)}
    return Spans(lex(query), addressed, tokens, characters).parts


def closed_form(texts: list[str], piece: list[str], blanks: list[str]) -> float:
    """The formula of the module, token by token; a pair is told by what stands between its tokens as well."""
    lexed = [lex(text) for text in texts]
    single = Counter(token for tokens in lexed for token in tokens.texts())
    pairs = Counter(tokens.piece(n, n + 2) for tokens in lexed for n in range(len(tokens) - 1))
    total = sum(single.values())
    nats = -log((single[piece[0]] or 0.5) / total)
    for before, blank, token in zip(piece, blanks, piece[1:], strict=False):
        pair = pairs[before + blank + token] / (single[before] or 1)
        nats -= log(0.75 * pair + 0.25 * (single[token] or 0.5) / total)
    return nats


def test_the_surprise_of_a_span_is_that_of_its_tokens_and_pairs() -> None:
    query = "zz  a =\tb ; for x"
    ((start, end),) = spans = parts(query, ["a = b ;"])
    assert query[start:end] == "a =\tb ;"
    expected = closed_form(TEXTS, ["a", "=", "b", ";"], [" ", " ", " "])
    assert surprises(lex(query), spans, counted(TEXTS)).tolist() == [pytest.approx(expected)]


def test_probabilities_after_a_token_sum_to_one_over_all_tokens_that_were_seen() -> None:
    frequencies = counted(["a b", "a c", "d", "a b"])
    after = [float(np.exp(-frequencies.nats(lex(f"a {token}"))[1][0])) for token in "abcd"]
    assert sum(after) == pytest.approx(1)


def test_what_is_unseen_or_cut_counts_as_little_as_what_is_rarest() -> None:
    frequencies = counted(["a a a a", "b b b", "c c", "d"], capacity=2)
    alone, _ = frequencies.nats(lex("a b c unseen"))
    assert np.exp(-alone) == pytest.approx(np.array([4, 3, 3, 3]) / 10)


def test_merged_and_saved_counts_are_those_of_one_pass(tmp_path: Path) -> None:
    whole, merged = counted(TEXTS), counted(TEXTS[:1])
    for text in TEXTS[1:]:
        part = Frequencies(100)
        part.add(text)
        merged.merge(part)
    merged.save(tmp_path / "counts.npz")
    read = Frequencies.open(tmp_path / "counts.npz")
    assert (read.total, read.capacity) == (whole.total, 100)
    for one, two in zip(whole.nats(lex("a = q\nprint(a")), read.nats(lex("a = q\nprint(a")), strict=True):
        assert one.tolist() == two.tolist()


def test_a_span_of_seldom_tokens_surprises_more() -> None:
    rng = Random(0)
    texts = ["for i in range(n):"] * 50 + ["".join(rng.choices("abcdefgh ", k=200)) for _ in range(20)]
    query = "for i in range(n):\n" + texts[-1]
    spans = parts(query, [texts[0] + " #", texts[-1]], 5, 10)
    nats = surprises(lex(query), spans, counted(texts, 10**6))
    by_text = {query[start:end][:5]: value for (start, end), value in zip(spans, nats, strict=True)}
    assert by_text["for i"] < min(value for text, value in by_text.items() if text != "for i")


def test_a_models_tokens_count_by_their_share_of_the_span() -> None:
    query = "xx a = b ; yy"
    spans = parts(query, ["a = b ;"])
    assert spans.tolist() == [[3, 10]]
    tokens = [(0, 2, -7.0), (2, 4, -1.0), (4, 8, -2.0), (8, 12, -4.0)]
    assert model_surprises(lex(query), spans, tokens).tolist() == [pytest.approx(0.5 * 1 + 2 + 0.5 * 4)]


def test_rarity_falls_with_every_doubling() -> None:
    assert [rarity(count) for count in (1, 2, 4, 16)] == [1, 1 / 2, 1 / 3, 1 / 5]


def test_nothing_is_counted_and_nothing_asked() -> None:
    for query in ("", "a b"):
        assert surprises(lex(query), np.empty((0, 2), np.int64), Frequencies()).shape == (0,)
        assert model_surprises(lex(query), np.empty((0, 2), np.int64), []).shape == (0,)
    alone, after = Frequencies().nats(lex("a b"))
    assert np.isfinite(alone).all()
    assert np.isfinite(after).all()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nonsense", None])
def test_damaged_counts_are_refused(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "counts.npz"
    counted(TEXTS).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data) if damage is None else damage)
    with pytest.raises(UserError, match="make the index again"):
        Frequencies.open(path)
    with pytest.raises(UserError, match="make the index again"):
        Frequencies.open(tmp_path / "none.npz")
