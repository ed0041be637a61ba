import os
import random
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus import dedup
from starcoder.corpus.dedup import Hashes, Match, jaccard, preference, shingles, signatures, stars, windows
from starcoder.corpus.document import Document, Rejection
from tests.corpus import pairs as labelled
from tests.corpus.pairs import Pair, true_similarity, word_windows

_WORDS = st.lists(st.sampled_from(["a", "B", "c_1", "def", "é", " ", "\n", ".", "("]), max_size=40).map(" ".join)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    return labelled.labelled_pairs(40)


@given(_WORDS, _WORDS)
def test_shingles_and_jaccard_equal_sets_of_tuples(a: str, b: str) -> None:
    assert len(shingles(a)) == len(word_windows(a))
    assert jaccard(shingles(a), shingles(b)) == pytest.approx(true_similarity(a, b))


@given(_WORDS)
def test_windows_are_the_tuples_in_their_order(text: str) -> None:
    words = re.findall("[A-Za-z0-9_]+", text)
    tuples = [tuple(words[n : n + 5]) for n in range(len(words) - 4)] or [(text,)]
    found = windows(text).tolist()
    assert [found.index(window) for window in found] == [tuples.index(window) for window in tuples]
    assert np.array_equal(shingles(text), sorted(set(found)))


def test_indentation_and_punctuation_do_not_matter() -> None:
    a = "for item in items:\n    total = total + item.price * item.count\n"
    assert jaccard(shingles(a), shingles(a.replace("    ", "\t\t").replace(" + ", "+"))) == 1
    assert jaccard(shingles("a b c d e"), shingles("e d c b a")) == 0


@pytest.mark.parametrize("text", ["", "x", "a b\n", "only four words here"])
def test_a_text_of_few_words_has_only_exact_copies(text: str) -> None:
    assert len(shingles(text)) == 1
    assert jaccard(shingles(text), shingles(text)) == 1
    for other in (f"{text} ", f"\n{text}", text.upper() + "!", f"{text} and more words than that"):
        assert jaccard(shingles(text), shingles(other)) == 0
    same, spaced = signatures([shingles(text), shingles(f"{text} ")])
    assert not (same == spaced).all(axis=1).any()


@pytest.mark.parametrize("text", ["x = 1", "def square(x):\n    return x * x  # of any number\n"])
def test_kinds_have_nothing_in_common(text: str) -> None:
    kinds = ("code", "notebook-script", "notebook", "issue", "commit")
    sets = [shingles(text, kind) for kind in kinds]
    assert len(set(np.concatenate(sets).tolist())) == 5 * len(sets[0])
    assert stars(sets, 0.01) == [None] * 5
    assert np.array_equal(shingles(text), sets[0])


def test_places_of_signatures_agree_with_probability_j(pairs: list[Pair]) -> None:
    """The share of 250 equal places is J ± 0.032 at most; here for the forks of real files, each beside each."""
    forks = [pair for pair in pairs if pair.kind == "forks"]
    if not forks:
        pytest.skip("lightning and pytorch-lightning, which are near-copies of each other, are not installed")
    a, b = (signatures([windows(text) for text in texts]) for texts in zip(*((p.a, p.b) for p in forks), strict=True))
    assert a.shape == (len(forks), 25, 10)
    places = list(product(range(len(forks)), repeat=2))
    errors = np.array([(a[i] == b[j]).mean() - true_similarity(forks[i].a, forks[j].b) for i, j in places])
    assert max(true_similarity(pair.a, pair.b) for pair in forks) > 0.9
    assert abs(errors.mean()) < 0.005
    own = errors[[i == j for i, j in places]]
    assert np.sqrt((own**2).mean()) < 0.032
    assert abs(own).max() < 0.12


@pytest.mark.parametrize(("similarity", "expected"), [(0.5, 0.02), (0.7, 0.51), (0.8, 0.94), (0.9, 1.0)])
def test_candidates_are_as_many_as_the_formula_says(similarity: float, expected: float) -> None:
    """400 pairs of random sets of 1,000; three standard deviations of their share are 0.075."""
    draw = np.random.default_rng(0)
    common = round(2000 * similarity / (1 + similarity))
    numbers = draw.integers(2**64, size=(400, 2000 - common), dtype=np.uint64)
    first, second = (signatures(list(part)) for part in (numbers[:, :1000], numbers[:, 1000 - common :]))
    found = (first == second).all(axis=2).any(axis=1).mean()
    assert 1 - (1 - similarity**10) ** 25 == pytest.approx(expected, abs=0.005)
    assert found == pytest.approx(expected, abs=0.08)


def test_repetitions_do_not_change_a_signature(pairs: list[Pair]) -> None:
    texts = [pair.a for pair in pairs[::10]]
    assert np.array_equal(signatures([windows(t) for t in texts]), signatures([shingles(t) for t in texts]))
    assert signatures([]).shape == (0, 25, 10)


def test_signatures_are_the_same_in_every_process() -> None:
    program = (
        "from starcoder.corpus.dedup import signatures, windows\n"
        "print(signatures([windows('a b c d e f g'), windows('short')]).tobytes().hex())"
    )
    root = Path(__file__).parents[2]
    found = {
        subprocess.check_output(
            [sys.executable, "-c", program], cwd=root, env=os.environ | {"PYTHONHASHSEED": seed}, text=True
        )
        for seed in ("1", "2")
    }
    here = signatures([windows("a b c d e f g"), windows("short")])
    assert found == {here.tobytes().hex() + "\n"}


def test_the_cache_of_word_hashes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"word{n}" for n in range(100))
    before = windows(text)
    monkeypatch.setattr(dedup, "_word_hashes", cache := dedup._WordHashes())
    monkeypatch.setattr(dedup._WordHashes, "_MOST", 7)
    assert np.array_equal(windows(text), before)
    assert len(cache) <= 7


_SETS = st.lists(
    st.sets(st.integers(0, 9), min_size=1).map(lambda members: np.array(sorted(members), np.uint64)),
    max_size=12,
)


def oracle(sets: list[Hashes], threshold: float) -> list[Match | None]:
    """Who has a kept document before it that is similar goes to the first of them."""
    matches: list[Match | None] = []
    for members in sets:
        kept = [place for place, match in enumerate(matches) if match is None]
        near = [Match(place, similarity(members, sets[place])) for place in kept]
        matches.append(next((match for match in near if match.similarity >= threshold), None))
    return matches


def similarity(a: Hashes, b: Hashes) -> float:
    return len({*a.tolist()} & {*b.tolist()}) / len({*a.tolist()} | {*b.tolist()})


@given(_SETS, st.sampled_from([0.3, 0.5, 0.7, 1.0]))
def test_stars_equal_brute_force(sets: list[Hashes], threshold: float) -> None:
    assert stars(sets, threshold) == oracle(sets, threshold)


@given(_SETS, st.sampled_from([0.3, 0.7]), st.integers(1, 5))
def test_stars_of_a_large_cluster(sets: list[Hashes], threshold: float, piece: int) -> None:
    """Compared in pieces of similar length: each is removed for a kept one before it, and no pair of a piece stays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "_PIECE", piece)
        matches = stars(sets, threshold)
    for place, match in enumerate(matches):
        if match:
            assert match.kept < place
            assert matches[match.kept] is None
            assert match.similarity == similarity(sets[place], sets[match.kept]) >= threshold
    assert not matches or matches[0] is None
    distinct = [
        place for place, members in enumerate(sets) if not any(np.array_equal(members, s) for s in sets[:place])
    ]
    by_size = sorted(distinct, key=lambda place: len(sets[place]))
    assert all(matches[place] for place in range(len(sets)) if place not in distinct)
    for start in range(0, len(by_size), piece):
        kept = [place for place in by_size[start : start + piece] if matches[place] is None]
        assert all(similarity(sets[a], sets[b]) < threshold for a in kept for b in kept if a != b)


def test_the_end_of_a_chain_stays() -> None:
    """A is like B, and B like C, but C is not like A: LSH puts them into one cluster, and only B may go."""
    a, b, c = (np.arange(start, start + 100, dtype=np.uint64) for start in (0, 15, 30))
    assert jaccard(a, b) == jaccard(b, c) == pytest.approx(85 / 115)
    assert jaccard(a, c) == pytest.approx(70 / 130)
    assert stars([a, b, c]) == [None, Match(0, 85 / 115), None]
    assert stars([b, a, c]) == [None, Match(0, 85 / 115), Match(0, 85 / 115)]


def test_copies_of_a_text_are_all_found_in_a_piece() -> None:
    members = np.arange(5, dtype=np.uint64)
    assert stars([members] * 1000) == [None] + [Match(0, 1.0)] * 999


def test_only_true_duplicates_are_found_and_nearly_all_of_them(pairs: list[Pair]) -> None:
    found = labelled.verified(pairs)
    assert {pair.kind for pair in pairs} >= set(labelled.CHANGES) | {"neighbours"}
    assert all(pair.similarity >= 0.7 for pair, match in zip(pairs, found, strict=True) if match)
    # LSH finds 0.994 of the pairs with J = 0.85, and more above; half of those at 0.7.
    close = [match for pair, match in zip(pairs, found, strict=True) if pair.similarity >= 0.85]
    near = [match for pair, match in zip(pairs, found, strict=True) if pair.similarity >= 0.7]
    assert len(close) > 250
    assert np.mean(close) >= 0.98
    assert np.mean(near) >= 0.9
    unlike = [pair.similarity for pair in pairs if pair.kind in ("40 % renamed", "halves mixed", "neighbours")]
    assert np.mean([similarity < 0.7 for similarity in unlike]) > 0.98  # a file of few identifiers stays alike
    assert {pair.kind for pair, match in zip(pairs, found, strict=True) if match} >= {"reformatted", "header added"}


def test_stars_of_real_chains_remove_only_true_duplicates(pairs: list[Pair]) -> None:
    """The pairs of all kinds together: copies of copies, whose chains join what is not similar."""
    texts = sorted({text for pair in pairs for text in (pair.a, pair.b)})
    random.Random(0).shuffle(texts)
    wrong_in_chain = 0
    for places in labelled.chains(texts):
        cluster = [texts[place] for place in places]
        wrong_in_chain += sum(true_similarity(cluster[0], text) < 0.7 for text in cluster[1:])
        for place, match in enumerate(stars([shingles(text) for text in cluster])):
            if match:
                assert match.similarity == pytest.approx(true_similarity(cluster[place], cluster[match.kept]))
                assert match.similarity >= 0.7
    assert wrong_in_chain > 5


def test_copies_in_a_cluster_of_many_pieces_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "_PIECE", 3)
    a, b = shingles("a b c d e f g"), shingles("v w x y z")
    near = np.union1d(a, shingles("f g h i j")[:1])
    assert stars([a, b, a, near, b, near, a] * 5, 0.7)[:4] == [None, None, Match(0, 1.0), Match(0, 0.75)]
    assert sum(match is None for match in stars([a, b, near] * 10, 0.7)) == 2


def document(name: str, *licenses: str, stars: int | None = None, rejected: bool = False) -> Document:
    rejection = Rejection("longest line") if rejected else None
    return Document("owner", name, "python", "py", licenses, 1, "x", stars, rejection, source="folder")


def test_preference_keeps_what_is_freest_and_best_known() -> None:
    best_first = [
        document("free", "Unlicense"),
        document("two free ones", "0BSD", "MIT-0"),
        document("known", "MIT", stars=100),
        document("less known", "Apache-2.0", stars=2),
        document("a", "MIT"),
        document("b", "ISC", stars=0),  # unknown is like none
        document("two of them", "MIT", "BSD-3-Clause", stars=1000),
        document("free, or more than attribution", "0BSD", "MPL-2.0"),
        document("no licence", stars=10_000),
        document("filtered", "Unlicense", stars=10_000, rejected=True),
        document("filtered, no licence", rejected=True),
    ]
    for seed in range(5):
        shuffled = random.Random(seed).sample(best_first, len(best_first))
        assert sorted(shuffled, key=preference) == best_first
