"""What an evaluation will do, settled and checked before the first token."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from starcoder.errors import UserError
from starcoder.evaluation import prompting
from starcoder.evaluation.engines.base import Engine, Request, Sampling
from starcoder.evaluation.engines.references import References
from starcoder.evaluation.engines.samples import SamplesFile
from starcoder.evaluation.presets import Preset
from starcoder.evaluation.results import PARTIAL
from starcoder.evaluation.task import Executed, Likelihood, Problem, Task
from starcoder.evaluation.tasks import TASKS, check_name, open_task

PAPER_K = (1, 10, 100)
"""The k of the paper's pass@k."""
Posed = tuple[Task, list[Problem]]
"""A task and all problems of it that can be judged on this machine."""
Key = tuple[str, int]
"""A problem's id and a sample's number."""
T = TypeVar("T")


@dataclass(frozen=True)
class Wishes:
    """What the user says of the settings; None leaves a setting to the preset, and then to the task.

    Args:
        n_samples: completions of each problem; 1 when nobody says another number.
        temperature: of the sampling.
        top_p: share of the probability that is sampled from.
        max_new_tokens: tokens of a completion at most; of a small model at most half its window when nobody says.
        k: the k of pass@k; those of the paper that `n_samples` allows when nobody says.
        prompt: a style of `starcoder.evaluation.prompting`.
        limit: problems of each row of a table, the first ones.
        groups: the rows, all when empty.

    Raises:
        UserError: naming every value that cannot be.
    """

    n_samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    k: tuple[int, ...] | None = None
    prompt: str | None = None
    limit: int | None = None
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("n_samples", "max_new_tokens", "limit")}
        wrong = {f"{name} is {count}, below 1": count is not None and count < 1 for name, count in counts.items()}
        wrong |= {
            f"temperature is {self.temperature}, below 0": self.temperature is not None and not self.temperature >= 0,
            f"top_p is {self.top_p}, outside (0, 1]": self.top_p is not None and not 0 < self.top_p <= 1,
            f"k is {self.k}, below 1": self.k is not None and min(self.k, default=0) < 1,
        }
        if any(wrong.values()):
            raise UserError("evaluate: " + "; ".join(problem for problem, holds in wrong.items() if holds))

    def over(self, preset: Preset | None) -> "Wishes":
        """These wishes, and the preset's where there is none."""
        own = self.given
        return self if preset is None else Wishes(**{name: getattr(preset, name) for name in _NAMES} | own)

    @property
    def given(self) -> dict[str, Any]:
        """Those that are not left to others."""
        return {name: value for name in _NAMES if (value := getattr(self, name)) not in (None, ())}


_NAMES = tuple(field.name for field in fields(Wishes))


@dataclass(frozen=True)
class Plan:
    """One task with everything settled.

    Args:
        task: the benchmark.
        problems: those that will be posed.
        skipped: groups that cannot be judged here, each with the reason.
        n_samples: completions of each problem.
        sampling: how tokens are chosen; None when nothing is sampled: completions made elsewhere, or the references.
        k: the k of pass@k.
        style: what stands around a prompt.
        counts: how many samples a problem has, where that differs; those that it does not name have none.
        notes: what a reader of the results must know.
    """

    task: Task
    problems: tuple[Problem, ...]
    skipped: dict[str, str]
    n_samples: int
    sampling: Sampling | None
    k: tuple[int, ...]
    style: prompting.Style
    counts: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()

    def samples(self, problem: Problem) -> range:
        """Numbers of the samples that there will be of a problem."""
        return range(self.n_samples if self.counts is None else self.counts.get(problem.id, 0))

    @property
    def keys(self) -> set[Key]:
        """All that will have a verdict."""
        return {(problem.id, sample) for problem in self.problems for sample in self.samples(problem)}

    def requests(self, done: Iterable[Key] = ()) -> list[Request]:
        """What is still to be completed, given what is there."""
        if isinstance(self.task, Likelihood):
            return []
        done = set(done)
        wanted = {
            problem.id: tuple(n for n in self.samples(problem) if (problem.id, n) not in done)
            for problem in self.problems
        }
        return [self._request(problem, wanted[problem.id]) for problem in self.problems if wanted[problem.id]]

    def _request(self, problem: Problem, samples: tuple[int, ...]) -> Request:
        stop = self.style.stop((*self.task.defaults.stop, *problem.stop))
        return Request(problem.id, self.style.apply(problem.prompt), problem.suffix, samples, stop, problem.reference)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the samples, besides model and data; fewer problems or samples are a part of the same."""
        known = {"task": self.task.name, "prompt": self.style.digest}
        if self.sampling is None:
            return known
        return known | asdict(self.sampling) | {"stop": list(self.style.stop(self.task.defaults.stop))}


def names_of(tasks: str, preset: Preset | None) -> list[str]:
    """The tasks that a comma-separated list means; `all` is every one, none the preset's.

    Raises:
        UserError: when there is no such task, or a preset comes with tasks that are not its own.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if preset is not None and names and (other := [name for name in names if name not in preset.tasks]):
        raise UserError(f"the preset {preset.name} is for {', '.join(preset.tasks)}, not for {', '.join(other)}")
    for name in names:
        if name != "all":
            check_name(name)
    if "all" in names:
        return list(TASKS)
    return list(dict.fromkeys(names)) or list(preset.tasks if preset else ["humaneval"])


def possible(makers: Mapping[str, Callable[[], T]], every: bool) -> tuple[list[T], list[str]]:
    """What can be made of several tasks.

    Args:
        makers: by the task's name.
        every: whether every task was asked for; otherwise what cannot be made is an error.

    Returns:
        What was made, and why the rest is left out.

    Raises:
        UserError: the first one, unless every task was asked for and some can be made.
    """
    made, left_out = [], []
    for name, make in makers.items():
        try:
            made.append(make())
        except UserError as error:
            if not every:
                raise
            left_out.append(f"skipped {name}: {error}")
    if not made:
        raise UserError("none of the tasks can be posed: name a folder of data with --data")
    return made, left_out


def pose(name: str, data: Path | None, python: str | None) -> Posed:
    """A task with all problems that can be judged here.

    Args:
        name: of the task.
        data: folder of benchmark data.
        python: the interpreter that runs Python programs; some tasks ask what it can import.

    Raises:
        UserError: when its data is missing or damaged.
    """
    task = open_task(name)
    task.python = python or task.python
    problems = task.problems(data)
    if len({problem.id for problem in problems}) < len(problems):
        twice, _ = Counter(problem.id for problem in problems).most_common(1)[0]
        raise UserError(f"{task.name}: two problems are called {twice!r}: keep one file of them in the data")
    return task, problems


def plan_task(posed: Posed, wishes: Wishes, style: prompting.Style, seed: int, engine: Engine) -> Plan:
    """Settle everything about one task.

    Raises:
        UserError: when the settings do not go together, or the engine cannot do it.
    """
    task, whole = posed
    task.window = engine.context_length
    if style.name not in task.styles:
        raise UserError(f"{task.name} takes the prompt {' or '.join(task.styles)}, not {style.name}")
    problems, skipped = _chosen(task, whole, wishes)
    sampled = not isinstance(engine, SamplesFile | References)
    counts = engine.counts if isinstance(engine, SamplesFile) else None
    n_samples = max(counts.values()) if counts else wishes.n_samples or 1
    n_samples = 1 if isinstance(task, Likelihood) else n_samples
    fewest = min(counts.values()) if counts else n_samples
    sampling = _sampling(task, wishes, seed, engine) if sampled else None
    plan = Plan(task, problems, skipped, n_samples, sampling, _k(task, wishes, fewest), style, counts)
    if isinstance(task, Likelihood):
        engine.check(_likelihoods(task, problems), 0, likelihood=True)
    else:
        engine.check(plan.requests(), sampling.max_new_tokens if sampling else 0, likelihood=False)
    plan = replace(plan, notes=tuple(_notes(plan, whole, engine)))
    if not plan.keys:
        raise UserError(f"{engine.name} holds no samples of the problems that are asked for")
    return plan


def _likelihoods(task: Likelihood, problems: Iterable[Problem]) -> list[Request]:
    """A request for each pair of a context, as its prompt, and a text, as its reference."""
    return [
        Request(problem.id, context, None, (0,), reference=text)
        for problem in problems
        for context, text in task.requests(problem)
    ]


def _chosen(task: Task, problems: list[Problem], wishes: Wishes) -> tuple[tuple[Problem, ...], dict[str, str]]:
    """The problems of the groups that are wished for, up to the limit, and the groups among them that are skipped."""
    skipped, wished = task.skipped(), tuple(group.lower() for group in wishes.groups)
    known = {problem.group for problem in problems} | (skipped.keys() if task.rows_skipped else set())
    if wished and known != {""}:
        if unknown := set(wished) - {group.lower() for group in known}:
            raise UserError(f"{task.name} has no group {', '.join(sorted(unknown))}, only {', '.join(sorted(known))}")
        problems = [problem for problem in problems if problem.group.lower() in wished]
        parts = tuple(f"{group} " for group in wished)  # such as "Java with tuples"
        skipped = {
            name: reason
            for name, reason in skipped.items()
            if not task.rows_skipped or f"{name.lower()} ".startswith(parts)
        }
    if not problems:
        raise UserError(f"{task.name}: no problem can be posed on this machine; {_reasons(skipped)}")
    kept, places = [], Counter[str]()
    for problem in problems:
        places[problem.group] += 1
        if wishes.limit is None or places[problem.group] <= wishes.limit:
            kept.append(problem)
    return tuple(kept), skipped


def _reasons(skipped: dict[str, str]) -> str:
    return "; ".join(f"{group}: {reason}" for group, reason in skipped.items())


def _sampling(task: Task, wishes: Wishes, seed: int, engine: Engine) -> Sampling:
    defaults, tokens = task.defaults, wishes.max_new_tokens
    if tokens is None:
        tokens = min(defaults.max_new_tokens, (engine.context_length or 2**31) // 2)
    return Sampling(
        temperature=defaults.temperature if wishes.temperature is None else wishes.temperature,
        top_p=defaults.top_p if wishes.top_p is None else wishes.top_p,
        max_new_tokens=tokens,
        seed=seed,
    )


def _k(task: Task, wishes: Wishes, n_samples: int) -> tuple[int, ...]:
    if not isinstance(task, Executed):
        return ()
    if wishes.k and max(wishes.k) > n_samples:
        raise UserError(f"pass@{max(wishes.k)} needs {max(wishes.k)} samples of each problem: n_samples is {n_samples}")
    return wishes.k or tuple(k for k in PAPER_K if k <= n_samples)


def _notes(plan: Plan, whole: list[Problem], engine: Engine) -> Iterable[str]:
    if len(plan.problems) < len(whole):
        yield f"{len(plan.problems):,} of {len(whole):,} problems, {PARTIAL}"
    if isinstance(engine, SamplesFile):
        if unknown := engine.unknown((problem.id for problem in whole), bool(plan.task.skipped())):
            yield f"{unknown:,} samples of {engine.name} are of problems that are skipped, or of none"
        completed = sum(problem.id in engine.counts for problem in plan.problems)
        if completed < len(plan.problems):
            yield f"{engine.name} has completions of {completed:,} of {len(plan.problems):,} problems"
    yield from (f"{measure} is missing: {reason}" for measure, reason in plan.task.missing().items())
    if isinstance(engine, References):
        yield "the benchmark's own solutions, no model's"
    if plan.sampling is None:
        return
    usual = plan.task.defaults.max_new_tokens
    if plan.sampling.max_new_tokens < usual and not isinstance(plan.task, Likelihood):
        yield f"completions of at most {plan.sampling.max_new_tokens} tokens (paper: {usual})"
    if truncated := engine.settings.get("truncated_prompts"):
        yield f"{truncated:,} prompts did not fit the window and lost what is farthest from the completion"
    if plan.n_samples < plan.task.defaults.n_samples:
        yield f"samples of each problem: {plan.n_samples} (paper: {plan.task.defaults.n_samples})"
