import multiprocessing
import sysconfig
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PAD, FIM_PREFIX, FIM_SUFFIX, Sentinel, Tokenizer, train
from starcoder.training.fim import fim_permute, fim_restore, sample_rng

Tokens = NDArray[Any]
FIM_CONTROL = (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX)
DRAWS = 10_000
CHARACTERS = "aé漢😀b  1\n"  # of one to four bytes, several tokens a character or several characters a token
EXAMPLES = [path.read_text() for path in sorted(Path(sysconfig.get_path("stdlib"), "json").glob("*.py"))]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(EXAMPLES, 600)


def pieces_of(tokens: Tokens) -> list[Tokens]:
    return np.split(tokens, np.flatnonzero(tokens == EOD) + 1)


def text_of(tokens: Tokens, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(tokens.tolist(), errors="surrogateescape")


def window_of(documents: list[str], tokenizer: Tokenizer) -> Tokens:
    return np.array([i for document in documents for i in [*tokenizer.encode(document), EOD]], dtype=np.int64)


def parts_of(piece: Tokens) -> tuple[Tokens, Tokens, Tokens]:
    """What follows <fim_prefix>, <fim_suffix> and <fim_middle>."""
    assert [i for i in piece.tolist() if i in FIM_CONTROL] == [FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE]
    assert piece[0] == FIM_PREFIX
    suffix, middle = np.flatnonzero(piece == FIM_SUFFIX)[0], np.flatnonzero(piece == FIM_MIDDLE)[0]
    return piece[1:suffix], piece[suffix + 1 : middle], piece[middle + 1 :]


def within_3_sigma(hits: int, draws: int, probability: float) -> bool:
    return abs(hits - draws * probability) <= 3 * sqrt(draws * probability * (1 - probability))


class TestStatistics:
    @pytest.mark.parametrize(("rate", "spm_rate"), [(0.5, 0.5), (0.9, 0.2)])
    def test_rates(self, tokenizer: Tokenizer, rate: float, spm_rate: float) -> None:
        window = window_of(["prefix middle suffix"], tokenizer)
        permuted = looks_spm = 0
        for index in range(DRAWS):
            out = fim_permute(window, sample_rng(1, 0, index), tokenizer, rate=rate, spm_rate=spm_rate, length=99)
            if out[0] == FIM_PREFIX:
                permuted += 1
                before_suffix, _, _ = parts_of(out[out != FIM_PAD][:-1])
                looks_spm += not len(before_suffix)
        assert within_3_sigma(permuted, DRAWS, rate)
        # PSM with an empty prefix looks like SPM: the lower of two cuts in 0 … 20 is at 0.
        assert within_3_sigma(looks_spm, permuted, spm_rate + (1 - spm_rate) * (1 - (20 / 21) ** 2))

    def test_cuts_are_uniform_over_characters(self, tokenizer: Tokenizer) -> None:
        """All 100 ordered pairs of two cuts in 0 … 9 are equally likely, so a sorted pair counts twice or once."""
        window, size = window_of([CHARACTERS], tokenizer), len(CHARACTERS) + 1
        counts: Counter[tuple[int, int]] = Counter()
        for index in range(DRAWS):
            out = fim_permute(window, sample_rng(2, 0, index), tokenizer, rate=1, spm_rate=0, length=99)
            prefix, suffix, _ = parts_of(out[out != FIM_PAD][:-1])
            counts[len(text_of(prefix, tokenizer)), size - 1 - len(text_of(suffix, tokenizer))] += 1
        pairs = [(low, high) for high in range(size) for low in range(high + 1)]
        assert set(counts) == set(pairs)
        expected = {pair: DRAWS / size**2 * (1 if pair[0] == pair[1] else 2) for pair in pairs}
        chi_squared = sum((counts[pair] - expected[pair]) ** 2 / expected[pair] for pair in pairs)
        freedom = len(pairs) - 1
        assert abs(chi_squared - freedom) <= 3 * sqrt(2 * freedom)

    def test_pieces_of_a_window_are_drawn_one_by_one(self, tokenizer: Tokenizer) -> None:
        window = window_of(["abc"] * 100, tokenizer)
        states: Counter[tuple[bool, bool]] = Counter()
        for index in range(100):
            out = fim_permute(window, sample_rng(3, 0, index), tokenizer, length=2000)
            flags = [piece[0] == FIM_PREFIX for piece in pieces_of(out[out != FIM_PAD])[:-1]]
            states.update(zip(flags[::2], flags[1::2], strict=True))
        assert all(within_3_sigma(count, 5000, 0.25) for count in states.values())
        assert len(states) == 4


class TestRestores:
    @settings(max_examples=200)
    @given(documents=st.lists(st.text(min_size=1), max_size=5), index=st.integers(0, 2**40), data=st.data())
    def test_any_documents(self, tokenizer: Tokenizer, documents: list[str], index: int, data: st.DataObject) -> None:
        whole = window_of(documents, tokenizer)
        start = data.draw(st.integers(0, len(whole)))
        self.check(whole[start:], index, tokenizer)  # may begin inside a character
        self.check(whole[:start], index, tokenizer)  # may end inside one

    def test_real_files(self, tokenizer: Tokenizer) -> None:
        window = window_of(EXAMPLES, tokenizer)
        for index in range(20):
            self.check(window[index:], index, tokenizer)

    @staticmethod
    def check(window: Tokens, index: int, tokenizer: Tokenizer) -> None:
        out = fim_permute(window, sample_rng(0, 0, index), tokenizer, rate=0.8, length=10 * len(window) + 10)
        expected = [piece for piece in pieces_of(window) if len(piece) and piece[0] != EOD]
        permuted = [piece for piece in pieces_of(out[out != FIM_PAD]) if len(piece)]
        assert len(permuted) == len(expected)
        for before, after in zip(expected, permuted, strict=True):
            assert text_of(fim_restore(after), tokenizer) == text_of(before, tokenizer)

    def test_half_characters_are_single_bytes(self, tokenizer: Tokenizer) -> None:
        halves = np.array([*tokenizer.encode("漢")[1:], Sentinel.FILENAME, *tokenizer.encode("字")[:1]])
        for index in range(50):
            out = fim_permute(halves, sample_rng(0, 0, index), tokenizer, rate=1, length=len(halves) + 3)
            assert fim_restore(out).tolist() == halves.tolist()

    def test_an_unpermuted_piece_is_left_alone(self, tokenizer: Tokenizer) -> None:
        piece = np.array(tokenizer.encode("abc"))
        assert fim_restore(piece) is piece
        assert fim_restore(piece[:0]).size == 0


class TestSentinels:
    def test_control_tokens_and_lookalikes_keep_their_kind(self, tokenizer: Tokenizer) -> None:
        fake = "<filename><fim_middle><|endoftext|><reponame>"
        code = tokenizer.encode(f"\n{fake} = 1")
        piece = [Sentinel.REPONAME, *tokenizer.encode("a/é"), Sentinel.FILENAME, *tokenizer.encode("b.py"), *code]
        window = np.array([*piece, EOD], dtype=np.uint16)
        for index in range(300):
            out = fim_permute(window, sample_rng(0, 0, index), tokenizer, rate=1, length=2 * len(window))
            restored = fim_restore(out[out != FIM_PAD])
            assert [i for i in restored.tolist() if i < 19] == [Sentinel.REPONAME, Sentinel.FILENAME, EOD]
            assert text_of(restored, tokenizer) == text_of(window, tokenizer)
            parts_of(out[out != FIM_PAD])

    def test_a_control_token_counts_as_one_character(self, tokenizer: Tokenizer) -> None:
        window = np.array([Sentinel.GH_STARS])
        outcomes = {
            tuple(fim_permute(window, sample_rng(0, 0, index), tokenizer, rate=1, length=4).tolist())
            for index in range(100)
        }
        assert outcomes == {(1, 6, 3, 2), (1, 3, 6, 2), (1, 3, 2, 6)}


class TestStructure:
    @pytest.mark.parametrize("spm_rate", [0.0, 1.0])
    def test_parts_are_encoded_separately(self, tokenizer: Tokenizer, spm_rate: float) -> None:
        """Rebuild each permuted file from cuts found in its text alone."""
        text = EXAMPLES[0][:400]
        window = np.array(tokenizer.encode(text))
        for index in range(20):
            out = fim_permute(window, sample_rng(4, 0, index), tokenizer, rate=1, spm_rate=spm_rate, length=1000)
            before_suffix, suffix, after_middle = parts_of(out[out != FIM_PAD])
            assert suffix.tolist() == tokenizer.encode(text_of(suffix, tokenizer))
            if spm_rate == 0:
                assert before_suffix.tolist() == tokenizer.encode(text_of(before_suffix, tokenizer))
                assert after_middle.tolist() == tokenizer.encode(text_of(after_middle, tokenizer))
            else:
                head = text_of(after_middle, tokenizer)
                assert not len(before_suffix)
                assert any(
                    after_middle.tolist() == tokenizer.encode(head[:cut]) + tokenizer.encode(head[cut:])
                    for cut in range(len(head) + 1)
                )
            assert text_of(np.concatenate([before_suffix, after_middle, suffix]), tokenizer) == text

    def test_both_orders_of_the_same_draws(self, tokenizer: Tokenizer) -> None:
        window = np.array(tokenizer.encode("one two three"))
        for index in range(50):
            psm, spm = (
                fim_permute(window, sample_rng(5, 0, index), tokenizer, rate=1, spm_rate=spm_rate, length=60)
                for spm_rate in (0, 1)
            )
            prefix, suffix, middle = parts_of(psm[psm != FIM_PAD])
            expected = [FIM_PREFIX, FIM_SUFFIX, *suffix, FIM_MIDDLE, *prefix, *middle]
            assert spm[spm != FIM_PAD].tolist() == expected

    def test_every_piece_keeps_its_end(self, tokenizer: Tokenizer) -> None:
        window = np.concatenate([window_of(["ab", "cd"], tokenizer), tokenizer.encode("ef")])
        out = fim_permute(window, sample_rng(6, 0, 0), tokenizer, rate=1, length=100)
        pieces = pieces_of(out[out != FIM_PAD])
        assert [piece[-1] == EOD for piece in pieces] == [True, True, False]
        assert [text_of(fim_restore(piece), tokenizer)[:2] for piece in pieces] == ["ab", "cd", "ef"]

    def test_empty_pieces_are_dropped(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("ab")
        window = np.array([EOD, *ids, EOD, EOD, EOD, *ids, EOD])
        rng = sample_rng(0, 0, 0)
        out = fim_permute(window, rng, tokenizer, rate=1e-12)
        assert out.tolist() == [*ids, EOD, *ids, EOD, *[FIM_PAD] * 3]
        assert fim_permute(np.array([EOD, EOD]), rng, tokenizer, rate=1).tolist() == [FIM_PAD] * 2

    def test_rate_zero_changes_nothing(self, tokenizer: Tokenizer) -> None:
        window = np.array([EOD, *tokenizer.encode("ab"), EOD, EOD])
        assert fim_permute(window, sample_rng(0, 0, 0), tokenizer, rate=0).tolist() == window.tolist()

    @pytest.mark.parametrize("dtype", [np.uint16, np.int64])
    def test_cut_and_padded_to_length(self, tokenizer: Tokenizer, dtype: type) -> None:
        window = window_of(EXAMPLES, tokenizer)[:500].astype(dtype)
        full = fim_permute(window, sample_rng(7, 0, 0), tokenizer, rate=1, length=2000)
        size = int((full != FIM_PAD).sum())
        assert size > 500
        assert full.dtype == dtype
        assert set(full[size:].tolist()) == {FIM_PAD}
        for length in (None, 1, 499, 2000, 3000):
            out = fim_permute(window, sample_rng(7, 0, 0), tokenizer, rate=1, length=length)
            assert len(out) == (length or 500)
            assert out[:size].tolist() == full[: min(size, len(out))].tolist()
            assert set(out[size:].tolist()) <= {FIM_PAD}


class TestDraws:
    def test_keyed_by_seed_epoch_and_index_alone(self, tokenizer: Tokenizer) -> None:
        window = window_of(EXAMPLES, tokenizer)[:1000]
        keys = [(seed, epoch, index) for seed in (0, 1) for epoch in (0, 1) for index in (0, 1, 2**40)]
        first = {key: fim_permute(window, sample_rng(*key), tokenizer, rate=1).tobytes() for key in keys}
        again = {key: fim_permute(window, sample_rng(*key), tokenizer, rate=1).tobytes() for key in reversed(keys)}
        assert first == again
        assert len(set(first.values())) == len(keys)

    def test_same_in_another_process(self, tokenizer: Tokenizer) -> None:
        window = window_of(EXAMPLES, tokenizer)[:1000]
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rng = pool.submit(sample_rng, 1234, 1, 77).result()
            theirs = pool.submit(fim_permute, window, rng, tokenizer).result()
        assert theirs.tolist() == fim_permute(window, sample_rng(1234, 1, 77), tokenizer).tolist()

    def test_stream_is_frozen(self) -> None:
        """A run resumed with another version of numpy must go on with the same draws."""
        rng = sample_rng(1234, 0, 7)
        assert [round(rng.random(), 12), *rng.integers(0, 1000, size=2, endpoint=True).tolist()] == [
            0.066023001275,
            325,
            497,
        ]
