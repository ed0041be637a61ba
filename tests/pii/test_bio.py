"""Tags of tokens against tags of characters, and tokens against the text."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.pii.bio import IGNORED, TAGGED, TAGS, chunks, encode, tag
from starcoder.pii.entity import Entity
from starcoder.pii.examples import CATEGORIES
from starcoder.tokenizer import train

TOKENIZER = train(["def f(x): return 'ada.lovelace@example.org', 10.0.0.1, naïve 😀\n"] * 20, 300).backend


def test_tags_are_those_of_the_papers_training() -> None:
    assert TAGS[:5] == ("O", "B-NAME", "I-NAME", "B-EMAIL", "I-EMAIL")
    assert TAGS.index("B-KEY") == 9
    assert TAGS[-1] == "I-PASSWORD"
    assert len(TAGS) == 15


def test_a_known_line() -> None:
    text = "# Ada Lovelace <ada@x.org>"
    tokens = encode(TOKENIZER, text)
    tags = tag(tokens, [Entity(2, 14, "NAME_LICENSE"), Entity(16, 25, "EMAIL")])
    assert TAGS[tags[np.searchsorted(tokens.starts, 2)]] == "B-NAME"
    assert TAGS[tags[np.searchsorted(tokens.starts, 16)]] == "B-EMAIL"
    assert {TAGS[number] for number in tags} == {"O", "B-NAME", "I-NAME", "B-EMAIL", "I-EMAIL"}


@given(st.text(max_size=60))
def test_tokens_cover_the_text_in_order_whatever_it_is(text: str) -> None:
    tokens = encode(TOKENIZER, text)
    assert len(tokens.ids) == len(tokens.starts) == len(tokens.ends) == len(tokens.words)
    covered = {place for a, b in zip(tokens.starts, tokens.ends, strict=True) for place in range(a, b)}
    assert (
        {place for place, character in enumerate(text) if not character.isspace()} <= covered <= set(range(len(text)))
    )
    assert np.all(np.diff(tokens.starts) >= 0)
    assert np.all(np.diff(tokens.words) >= 0)


def test_words_are_what_names_and_numbers_are_made_of() -> None:
    text = "ada.lovelace-1@x_9.org += naïve2"
    tokens = encode(TOKENIZER, text)
    parts = [
        text[tokens.starts[tokens.words == word][0] : tokens.ends[tokens.words == word][-1]].strip()
        for word in range(tokens.words[-1] + 1)
    ]
    assert [part for part in parts if part.isalnum() or len(part) > 2] == ["ada.lovelace-1", "x_9.org", "naïve2"]


def test_lone_surrogates_and_sentinels_are_text() -> None:
    text = "a\ud800b\udc80 <|endoftext|> 😀c"
    TOKENIZER.encode_special_tokens = True
    tokens = encode(TOKENIZER, text)
    assert tokens.ends[-1] == len(text)
    assert 0 not in tokens.ids


@pytest.mark.parametrize("seed", range(200))
def test_tags_agree_with_the_characters(seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(rng.choice("ab .@é😀\n1") for _ in range(50))
    places = sorted(rng.sample(range(51), 6))
    fragments = [Entity(a, b, rng.choice(CATEGORIES)) for a, b in zip(places[::2], places[1::2], strict=True)]
    tokens = encode(TOKENIZER, text)
    tags = tag(tokens, fragments)
    before: Entity | None = None
    for start, end, got in zip(tokens.starts, tokens.ends, tags, strict=True):
        inside = [f for f in fragments if f.start < end and start < f.end]
        owner = inside[-1] if inside else None
        label = owner and owner.label.removesuffix("_LICENSE")
        if label is None:
            assert got == 0
        elif label not in TAGGED:
            assert got == IGNORED
        else:
            assert TAGS[got] == f"{'I' if before is owner else 'B'}-{label}"
        before = owner


@given(st.integers(0, 200), st.integers(1, 40), st.integers(0, 100))
def test_chunks_partition_the_tokens(length: int, size: int, offset: int) -> None:
    parts = list(chunks(length, size, offset))
    assert [i for part in parts for i in range(length)[part]] == list(range(length))
    assert all(0 < part.stop - part.start <= size for part in parts)
    assert all(a.stop == b.start for a, b in pairwise(parts))
    assert all(part.stop - part.start == size for part in parts[1:-1])
