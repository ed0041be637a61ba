import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starcoder import tokenizer as tokenizers
from starcoder.corpus.document import Document, read_documents
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.smoke.measure import (
    FILE_TOKENS,
    HeldOut,
    Hole,
    NGrams,
    by_language,
    exact_matches,
    held_out,
    model_nats,
    single_line_holes,
)
from starcoder.tokenizer import Sentinel
from tests.conftest import VOCAB_SIZE, Tiny

SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": VOCAB_SIZE, "context_length": 64}


def text_of(windows: list[list[int]]) -> HeldOut:
    array = np.array(windows)
    return HeldOut(array, np.zeros((len(array), array.shape[1] - 1), dtype=int), ("python",), 1)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60))
def test_both_baselines_are_probability_distributions(tokens: list[int]) -> None:
    ngrams = NGrams(np.array(tokens), 5)
    every_pair = text_of([[before, after] for before in range(5) for after in range(5)])
    assert ngrams.unigram.sum() == pytest.approx(1)
    after_each = np.exp(-ngrams.bigram_nats(every_pair)).reshape(5, 5)
    assert after_each.sum(axis=1) == pytest.approx(np.ones(5))


def test_the_bigram_by_hand() -> None:
    ngrams = NGrams(np.array([0, 1, 0, 1, 0, 2]), 3)
    unigram = [4 / 9, 3 / 9, 2 / 9]
    nats = ngrams.bigram_nats(text_of([[0, 1], [0, 0], [2, 1]]))[:, 0]
    # 0 is followed by 1 twice and by 2 once; 2 is followed by nothing, so the unigram answers.
    expected = [(2 - 0.75) / 3 + 0.75 * 2 / 3 * unigram[1], 0.75 * 2 / 3 * unigram[0], unigram[1]]
    assert nats == pytest.approx([-math.log(p) for p in expected])
    assert ngrams.unigram_nats(text_of([[2, 0]]))[0] == pytest.approx(-math.log(unigram[0]))


def test_nats_of_a_model_are_its_loss(tiny: Tiny) -> None:
    tokenizer = tokenizers.load(tiny.tokenizer)
    model = StarCoder(StarCoderConfig.preset("smoke", **SHAPE)).eval()
    text = held_out(read_documents(tiny.corpus, "validation"), tokenizer, 64, 3000)
    windows = torch.from_numpy(text.windows)
    nats = model_nats(model, text)
    assert nats.shape == text.languages.shape
    assert nats.mean() == pytest.approx(model.loss(windows[:, :-1], windows[:, 1:]).item(), abs=1e-4)


def test_held_out_windows_are_beginnings_of_files_with_their_language() -> None:
    tokenizer = tokenizers.train(["a b c " * 100], 276)
    long = Document("r", "long.py", "python", "py", ("MIT",), 0, "word " * 5000)
    short = Document("r", "short.c", "c", "c", ("MIT",), 0, "int x;\n" * 30)
    text = held_out([long, short], tokenizer, 16, 10**9)
    assert text.n_files == 2
    counts = {name: int((text.languages == index).sum()) for index, name in enumerate(text.names)}
    assert counts["python"] <= FILE_TOKENS
    assert 0 < counts["c"] < counts["python"]
    split = by_language(text, (text.languages == text.names.index("c")).astype(float))
    assert split == {"c": 1.0, "python": 0.0}
    with pytest.raises(UserError, match="less than one window"):
        held_out([short], tokenizer, 10_000, 10**9)


def test_a_hole_is_a_line_of_code_and_its_surroundings(tiny: Tiny) -> None:
    tokenizer = tokenizers.load(tiny.tokenizer)
    documents = list(read_documents(tiny.corpus, "train"))
    holes = single_line_holes(documents, tokenizer, 20, context_length=512, reach=100)
    assert len(holes) == 20
    contents = [document.content for document in documents]
    for hole in holes:
        assert len(hole.line.strip()) >= 3
        assert not hole.line.lstrip().startswith("#")
        assert any(hole.prefix + hole.line + hole.suffix in content for content in contents)
        assert hole.prefix == "" or hole.prefix.endswith("\n")
        assert hole.suffix[:1] in ("\n", "")


def test_an_untrained_model_matches_nothing(tiny: Tiny) -> None:
    tokenizer = tokenizers.load(tiny.tokenizer)
    model = StarCoder(StarCoderConfig.preset("smoke", **SHAPE | {"context_length": 512}))
    holes = single_line_holes(read_documents(tiny.corpus, "train"), tokenizer, 8, context_length=512, reach=100)
    assert len(holes) == 8
    assert exact_matches(model, tokenizer, holes) == [False] * 8


def test_a_model_that_knows_a_line_by_heart_matches_it_alone(tiny: Tiny) -> None:
    tokenizer = tokenizers.load(tiny.tokenizer)
    known = Hole("def add(a, b):\n", "    return a + b", "\n\nprint(add(1, 2))\n")
    other = replace(known, line="    return b + a")
    parts = [Sentinel.FIM_PREFIX, *tokenizer.encode(known.prefix), Sentinel.FIM_SUFFIX, *tokenizer.encode(known.suffix)]
    tokens = torch.tensor([[*parts, Sentinel.FIM_MIDDLE, *tokenizer.encode(known.line + "\n")]])  # (1, T+1)
    model = StarCoder(StarCoderConfig.preset("smoke", **SHAPE | {"n_embd": 64}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        optimizer.step()
    assert exact_matches(model, tokenizer, [known, other]) == [True, False]


def test_a_language_without_targets_is_left_out() -> None:
    text = HeldOut(np.zeros((1, 3), dtype=int), np.zeros((1, 2), dtype=int), ("python", "c"), 2)
    assert by_language(text, np.ones((1, 2))) == {"python": 1.0}
