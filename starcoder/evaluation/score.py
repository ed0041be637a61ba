"""From verdicts to the rows of a table."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from starcoder.errors import UserError
from starcoder.evaluation.metrics import MajorityAtK, PassAtK, WeightedMean
from starcoder.evaluation.plan import Key, Plan
from starcoder.evaluation.program import Status
from starcoder.evaluation.results import Estimate, Row, Sample, TaskResult
from starcoder.evaluation.run import completions, verdicts
from starcoder.evaluation.task import Executed, Likelihood, Matched, Problem, Task
from starcoder.rows import Row as Verdict


def task_result(plan: Plan, folder: Path) -> TaskResult:
    """What was found of a task, from the verdicts in its folder.

    Raises:
        UserError: when some are not there.
    """
    found = verdicts(plan, folder)
    if missing := len(plan.keys) - len(found):
        raise UserError(
            f"{folder} lacks the verdicts on {missing:,} of {len(plan.keys):,} samples: all processes must write into "
            "one folder that they share; run the same command again"
        )
    task = plan.task
    groups = dict.fromkeys(problem.group for problem in plan.problems)
    rows = [_row(plan, group, [p for p in plan.problems if p.group == group], found) for group in groups]
    return TaskResult(
        name=task.name,
        title=task.title,
        section=task.section,
        settings=plan.settings | {"n_samples": plan.n_samples},
        rows=tuple(rows),
        total=_row(plan, "", list(plan.problems), found) if len(rows) > 1 else None,
        verdicts={} if isinstance(task, Likelihood) else _counts(task, found.values()),
        skipped=plan.skipped,
        notes=(*plan.notes, *_weaker(found.values())),
    )


def _weaker(rows: Iterable[Verdict]) -> Iterator[str]:
    """What to say when strict mode could not judge all programs."""
    strict = Counter(row.get("strict", False) for row in rows)
    if strict[True] and strict[False]:
        yield f"{strict[False]:,} samples were judged in their own process: their tests pass more than plain values"


def samples(plan: Plan, folder: Path) -> Iterator[Sample]:
    """What was completed, and what came of it, to look at."""
    texts, problems = completions(folder), {problem.id: problem for problem in plan.problems}
    prompts = {request.problem: request.prompt for request in plan.requests()}
    for key, row in verdicts(plan, folder).items():
        if key in texts:
            yield _sample(plan.task, problems[key[0]], prompts[key[0]], texts[key], row)


def _sample(task: Task, problem: Problem, prompt: str, completion: str, row: Verdict) -> Sample:
    scores = row.get("scores", {})
    return Sample(
        task=task.name,
        problem=problem.id,
        sample=row["sample"],
        verdict=_word(task, row),
        right=_right(task, row),
        prompt=prompt,
        completion=completion,
        suffix=problem.suffix or "",
        expected=problem.reference,
        detail=row.get("detail", ", ".join(f"{name} {value:.3g}" for name, value in scores.items())),
        stdout=row.get("stdout", ""),
        stderr=row.get("stderr", ""),
        group=problem.group,
    )


def _right(task: Task, row: Verdict) -> bool:
    return task.right(row["scores"]) if isinstance(task, Matched) else bool(row["passed"])


def _word(task: Task, row: Verdict) -> str:
    return row["status"] if "status" in row else ("right" if _right(task, row) else "wrong")


def _counts(task: Task, rows: Iterable[Verdict]) -> dict[str, int]:
    return dict(Counter(_word(task, row) for row in rows).most_common())


def _row(plan: Plan, group: str, problems: list[Problem], found: dict[Key, Verdict]) -> Row:
    ids = {problem.id for problem in problems}
    judged = [row for row in found.values() if row["task_id"] in ids and row.get("status") != Status.SANDBOX_ERROR]
    return Row(group, _measures(plan, problems, judged), len({row["task_id"] for row in judged}), len(judged))


def measures(plan: Plan, found: dict[Key, Verdict]) -> dict[str, Estimate]:
    """The measures of all problems of a task together, by name."""
    return _row(plan, "", list(plan.problems), found).measures


def _measures(plan: Plan, problems: list[Problem], judged: list[Verdict]) -> dict[str, Estimate]:
    task, places = plan.task, {problem.id: place for place, problem in enumerate(problems)}
    if isinstance(task, Executed):
        return _passing(plan, task, problems, places, judged)
    assert isinstance(task, Matched | Likelihood)
    return _means(task, places, judged)


def _passing(
    plan: Plan, task: Executed, problems: list[Problem], places: dict[str, int], judged: list[Verdict]
) -> dict[str, Estimate]:
    numbers = torch.tensor([places[row["task_id"]] for row in judged], dtype=torch.long)
    right = [bool(row["passed"]) for row in judged]
    metric = PassAtK(len(places), plan.k, sync_on_compute=False)  # one process has all verdicts
    metric.update(numbers, torch.tensor(right, dtype=torch.float64))
    measures = {f"pass@{k}": estimate for k, estimate in metric.compute().items()}
    expected = [task.right_answer(problem) for problem in problems]
    if plan.n_samples > 1 and any(answer is not None for answer in expected):
        vote = MajorityAtK(len(places), plan.n_samples, sync_on_compute=False)
        vote.update(numbers, [row.get("answer") for row in judged], right)
        measures[f"maj@{plan.n_samples}"] = vote.compute()
    return measures


def _means(task: Matched | Likelihood, places: dict[str, int], judged: list[Verdict]) -> dict[str, Estimate]:
    names = list(dict.fromkeys(name for row in judged for name in row["scores"]))
    if not names:
        return {}
    metric = WeightedMean(len(places), names, task.summary, sync_on_compute=False)
    numbers = torch.tensor([places[row["task_id"]] for row in judged], dtype=torch.long)
    pairs = torch.tensor([list(_pairs(row["scores"], names)) for row in judged], dtype=torch.float64)  # (N, M, 2)
    metric.update(numbers, pairs[..., 0], pairs[..., 1])
    return metric.compute()


def _pairs(scores: Mapping[str, float | Sequence[float]], names: Iterable[str]) -> Iterator[tuple[float, float]]:
    """Each measure of a sample as a sum and its weight; a comparison's has the weight 1."""
    for name in names:
        score = scores.get(name, [0.0, 0.0])
        yield (score[0], score[1]) if isinstance(score, Sequence) else (score, 1.0)
