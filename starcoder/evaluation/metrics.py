"""Measures of the evaluation, each with a 95 % interval; they add up over ranks.

Shapes: P problems of the benchmark, N samples of one update, M measures, R resamples.

Every metric keeps one number or row for each problem, so the samples of a problem may come in any order, from any
rank: a sum over ranks restores what one process would have. The interval is the percentile bootstrap over problems: the
problems are drawn again, with replacement, `RESAMPLES` times, and the middle 95 % of the measure's values are given.
That covers which problems the benchmark happens to pose and the samples' chance together. It has no width where all
problems score the same, however few they are.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from starcoder.evaluation.results import Estimate
from starcoder.evaluation.similarity import edit_similarity, exact_match

RESAMPLES = 2000
_LEVEL = 0.95
_DRAWS = 1 << 22
"""Random numbers that are held at once."""
_VOTES = 256
_NO_ANSWER = -1
_NO_BALLOTS = torch.empty(0, 3, dtype=torch.int64)

Summary = Callable[[Mapping[str, float]], Mapping[str, float]]


def resample(sums: Tensor, weights: Tensor, seed: int) -> Tensor:
    """Σ sums / Σ weights of `RESAMPLES` resamples of the problems.

    Args:
        sums: (P, M), on the CPU.
        weights: (P, M).
        seed: the same seed and P draw the same problems, whatever they scored.

    Returns:
        (R, M); NaN where a resample has no weight.
    """
    n, generator = len(sums), torch.Generator().manual_seed(seed)
    values = []
    for rows in torch.split(torch.arange(RESAMPLES), max(1, _DRAWS // n)):
        drawn = torch.randint(n, (len(rows), n), generator=generator)
        times = torch.zeros(drawn.shape, dtype=sums.dtype)  # how often each problem is drawn
        times.scatter_add_(1, drawn, torch.ones_like(times))
        values.append((times @ sums) / (times @ weights))
    return torch.cat(values)


def interval(values: Tensor) -> tuple[float, float]:
    """The middle 95 % of resampled values (R,)."""
    ends = torch.tensor([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], dtype=values.dtype)
    low, high = torch.nanquantile(values, ends).tolist()
    return low, high


def estimate_means(values: Tensor, seed: int) -> list[Estimate]:
    """The mean over problems of each measure, from (P, M)."""
    n = len(values)
    if not n:
        return [Estimate(float("nan"), float("nan"), float("nan"))] * values.shape[1]
    resampled = resample(values, torch.ones_like(values), seed)
    return [Estimate(float(values[:, m].mean()), *interval(resampled[:, m]), n) for m in range(values.shape[1])]


class PerProblem(Metric):
    """Mean over problems of each problem's mean; problems without samples are left out (`Estimate.n` counts the rest).

    Args:
        n_problems: P; the problems are numbered from 0.
        seed: of the bootstrap.
    """

    is_differentiable = False
    full_state_update = False
    totals: Tensor  # (P,)
    counts: Tensor  # (P,)

    def __init__(self, n_problems: int, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_problems, self.seed = n_problems, seed
        self.add_state("totals", torch.zeros(n_problems, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(n_problems, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, problems: Tensor, values: Tensor) -> None:
        """Add samples.

        Args:
            problems: (N,) numbers of the samples' problems.
            values: (N,) what each scored.
        """
        values = values.to(self.totals)
        self.totals.index_add_(0, problems.to(self.totals.device), values)
        self.counts.index_add_(0, problems.to(self.counts.device), torch.ones_like(values))

    def compute(self) -> Any:
        """The estimate."""
        counts, totals = self._seen()
        return estimate_means((totals / counts)[:, None], self.seed)[0]

    def _seen(self) -> tuple[Tensor, Tensor]:
        """How many samples the problems with any have, and their sums, on the CPU."""
        seen = self.counts > 0
        return self.counts[seen].cpu(), self.totals[seen].cpu()


class Accuracy(PerProblem):
    """Share of right samples."""

    higher_is_better = True


class PassAtK(PerProblem):
    """Share of problems that k samples solve: the unbiased estimate of Chen et al. 2021, 1 − C(n−c, k) / C(n, k).

    `compute` gives an estimate for each k that some problem has samples enough for; problems with fewer are left out
    of it (`Estimate.n` counts the rest).

    Args:
        n_problems: P.
        k: how many samples.
        seed: of the bootstrap.
    """

    higher_is_better = True

    def __init__(self, n_problems: int, k: Sequence[int] = (1, 10, 100), seed: int = 0, **kwargs: Any) -> None:
        super().__init__(n_problems, seed, **kwargs)
        self.k = tuple(k)

    def compute(self) -> dict[int, Estimate]:
        """Estimates by k."""
        n, c = self._seen()
        enough = {k: n >= k for k in self.k if (n >= k).any()}
        return {k: estimate_means(pass_at_k(n[p], c[p], k)[:, None], self.seed)[0] for k, p in enough.items()}


def pass_at_k(n: Tensor, c: Tensor, k: int) -> Tensor:
    """1 − C(n−c, k) / C(n, k) as a product of k factors, which no large n overflows.

    Args:
        n: (P,) samples, at least k each.
        c: (P,) right ones.
        k: how many samples are looked at.
    """
    drawn = torch.arange(k, dtype=torch.float64)
    wrong = (n - c).double()[:, None] - drawn  # (P, k)
    return 1 - (wrong.clamp(min=0) / (n.double()[:, None] - drawn)).prod(dim=1)


class ExactMatch(PerProblem):
    """Share of completions with the reference's words (CodeXGLUE's exact match: white space does not count)."""

    higher_is_better = True

    def update(self, problems: Tensor, completions: Sequence[str], references: Sequence[str]) -> None:  # type: ignore[override]
        """Add samples: (N,) numbers of their problems, their completions and what is right."""
        super().update(problems, _scores(exact_match, completions, references))


class EditSimilarity(PerProblem):
    """Mean edit similarity (CodeXGLUE's, between 0 and 1) of completions and references."""

    higher_is_better = True

    def update(self, problems: Tensor, completions: Sequence[str], references: Sequence[str]) -> None:  # type: ignore[override]
        """Add samples: (N,) numbers of their problems, their completions and what is right."""
        super().update(problems, _scores(edit_similarity, completions, references))


def _scores(score: Callable[[str, str], float], completions: Sequence[str], references: Sequence[str]) -> Tensor:
    return torch.tensor([score(*pair) for pair in zip(completions, references, strict=True)], dtype=torch.float64)


class WeightedMean(Metric):
    """Measures that are a sum divided by a weight, both taken over all problems, such as nats per token.

    Args:
        n_problems: P.
        measures: their names, M of them.
        summary: makes the numbers to report from the means; their intervals come from the same resamples.
        seed: of the bootstrap.
    """

    is_differentiable = False
    full_state_update = False
    totals: Tensor  # (P, M)
    weights: Tensor  # (P, M)

    def __init__(
        self, n_problems: int, measures: Sequence[str], summary: Summary = dict, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.measures, self.summary, self.seed = tuple(measures), summary, seed
        shape = (n_problems, len(self.measures))
        self.add_state("totals", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("weights", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, problems: Tensor, sums: Tensor, weights: Tensor) -> None:
        """Add problems: their numbers (N,), and the sums and weights of each measure, both (N, M)."""
        for state, values in ((self.totals, sums), (self.weights, weights)):
            state.index_add_(0, problems.to(state.device), values.to(state))

    def compute(self) -> dict[str, Estimate]:
        """Estimates by the names that `summary` gives; none when there is no weight at all."""
        seen = (self.weights > 0).any(dim=1)
        totals, weights = self.totals[seen].cpu(), self.weights[seen].cpu()
        if not len(totals):
            return {}
        found = self._summaries((totals.sum(0) / weights.sum(0))[None])
        resampled = self._summaries(resample(totals, weights, self.seed))
        n = dict(zip(self.measures, (weights > 0).sum(0).tolist(), strict=True))
        return {
            name: Estimate(float(found[name]), *interval(resampled[name]), n.get(name, len(totals))) for name in found
        }

    def _summaries(self, means: Tensor) -> dict[str, Tensor]:
        """The summary of each row of means (R, M), by name, each (R,)."""
        rows = [self.summary(dict(zip(self.measures, row, strict=True))) for row in means.tolist()]
        return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}


class MajorityAtK(Metric):
    """Share of problems whose most frequent answer among k samples is right (maj@k).

    With more than k samples of a problem it is the mean over `_VOTES` random choices of k of them, with fewer the vote
    of those that there are. Samples without an answer do not vote; answers that tie share the vote. Neither the order
    of the samples nor the rank that they come from changes anything.

    Args:
        n_problems: P.
        k: samples that vote.
        seed: of the choices and of the bootstrap.
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = True
    ballots: list[Tensor]  # (N, 3) each: problem, code of the answer, whether it is right

    def __init__(self, n_problems: int, k: int = 40, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_problems, self.k, self.seed = n_problems, k, seed
        self.add_state("ballots", [], dist_reduce_fx="cat")

    def update(self, problems: Tensor, answers: Sequence[str | None], right: Sequence[bool]) -> None:
        """Add samples: (N,) numbers of their problems, their answers (None: none), and whether those are right."""
        codes = torch.tensor([_code(answer) for answer in answers], dtype=torch.int64)
        columns = (problems.cpu(), codes, torch.tensor(right, dtype=torch.int64))
        self.ballots.append(torch.stack(columns, dim=1).to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the ballots of all ranks; torchmetrics cannot tell the type of those that a rank does not have."""
        self.ballots.append(_NO_BALLOTS.to(self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> Estimate:
        """The estimate."""
        parts = [self.ballots] if isinstance(self.ballots, Tensor) else self.ballots
        ordered = sorted(ballot for part in parts for ballot in part.tolist())
        generator = torch.Generator().manual_seed(self.seed)
        votes = [
            _vote(torch.tensor(list(of_problem)), self.k, generator)
            for _, of_problem in groupby(ordered, key=itemgetter(0))
        ]
        return estimate_means(torch.tensor(votes, dtype=torch.float64)[:, None], self.seed)[0]


def _code(answer: str | None) -> int:
    """A number that stands for an answer, the same in every process."""
    if answer is None:
        return _NO_ANSWER
    return int.from_bytes(blake2b(answer.encode(errors="surrogatepass"), digest_size=7).digest())


def _vote(ballots: Tensor, k: int, generator: torch.Generator) -> float:
    """How often the vote of k of a problem's ballots (N, 3), sorted, is right."""
    codes, answers = torch.unique(ballots[:, 1], return_inverse=True)
    right = torch.zeros(len(codes), dtype=torch.float64).scatter_(0, answers, ballots[:, 2].double())
    rounds = 1 if len(answers) <= k else _VOTES
    order = torch.rand(rounds, len(answers), generator=generator).argsort(dim=1)
    voters = answers[order[:, :k]]  # (rounds, k)
    votes = torch.zeros(rounds, len(codes)).scatter_add_(1, voters, torch.ones_like(voters, dtype=torch.float32))
    votes[:, codes == _NO_ANSWER] = 0
    winners = (votes == votes.amax(dim=1, keepdim=True)) & (votes > 0)
    return float(((winners * right).sum(dim=1) / winners.sum(dim=1).clamp(min=1)).mean())
