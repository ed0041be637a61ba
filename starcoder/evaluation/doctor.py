"""`starcoder evaluate --sandbox-doctor`: what the sandbox holds on this machine.

It runs every hostile program, honest ones beside them, and prints what each tried and whether the sandbox held.
"""

import platform
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from starcoder.evaluation.hostile import HOSTILE, Hostile, World, canary
from starcoder.evaluation.hostile.honest import HONEST, Honest
from starcoder.evaluation.isolation import Isolation, landlock_abi, missing
from starcoder.evaluation.program import Result
from starcoder.evaluation.sandbox import Sandbox


class Finding(NamedTuple):
    """What became of one program.

    Args:
        program: the program.
        result: what the sandbox said.
        breaches: what went wrong, in words; empty when the sandbox held, or judged an honest program rightly.
    """

    program: Hostile | Honest
    result: Result
    breaches: list[str]


def doctor(isolation: str | None = None, strict: bool = False, workers: int = 2) -> None:
    """Print what the sandbox holds at the level that evaluations use here.

    Args:
        isolation: the level; by default the strongest that this machine offers.
        strict: run all tests outside the candidate's process, and not only where nothing else sees through.
        workers: programs at a time.

    Raises:
        UserError: when the level is not offered here.
        SystemExit: with code 1 when something did not hold, or could not be tried.
    """
    print("\n".join(_levels()), end="\n\n")
    findings = []
    for finding in examine(isolation, strict, workers):
        print(_line(finding), flush=True)
        findings.append(finding)
    skipped = len(HOSTILE) + len(HONEST) - len(findings)
    print(f"\n{_summary(findings)}")
    if skipped:
        print(f"{skipped} hostile programs were not run: without isolation they would harm this machine")
    if skipped or any(finding.breaches for finding in findings):
        raise SystemExit(1)


def examine(
    isolation: str | None = None,
    strict: bool = False,
    workers: int = 2,
    hostile: Sequence[Hostile] | None = None,
) -> Iterator[Finding]:
    """Run the `hostile` programs (all, unless some are given), with honest ones beside them; see `doctor`.

    At the level `none` only those run that do no harm.
    """
    with ExitStack() as stack:
        stack.enter_context(canary())
        plain = stack.enter_context(Sandbox(workers=workers, isolation=isolation, strict=strict))
        apart = plain if strict else stack.enter_context(Sandbox(workers=1, isolation=isolation, strict=True))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        shut_in = plain.isolation != Isolation.NONE
        jobs: list[Callable[[], Finding]] = [
            partial(_attack, program, apart if program.strict else plain)
            for program in (HOSTILE if hostile is None else hostile)
            if program.tame or shut_in
        ]
        for place, honest in enumerate(HONEST):
            jobs.insert(place * (len(jobs) + 1) // len(HONEST), partial(_judge, honest, plain))
        yield from pool.map(lambda job: job(), jobs)


def _attack(program: Hostile, sandbox: Sandbox) -> Finding:
    with World() as world:
        result = sandbox.submit(program.program(world)).result()
        return Finding(program, result, program.breaches(result, world))


def _judge(program: Honest, sandbox: Sandbox) -> Finding:
    result = sandbox.submit(program.program).result()
    right = result.status is program.status
    return Finding(program, result, [] if right else [f"the verdict is {result.status}: {result.detail}"])


def _levels() -> Iterator[str]:
    """The levels from the weakest on, each with the reason when this machine does not offer it."""
    for level in Isolation:
        reason = missing(level)
        yield f"{level:<12} {f'not offered: {reason}' if reason else 'offered'}"


def _line(finding: Finding) -> str:
    program, result, breaches = finding
    what = program.what if isinstance(program, Hostile) else f"honest: {program.status}"
    held = "NOT HELD" if breaches else "held"
    line = f"{held:<9} {program.name:<32} {result.status:<14} {textwrap.shorten(what, 100)}"
    return "\n".join([line, *(f"{'':10}{breach}" for breach in breaches)])


def _summary(findings: Sequence[Finding]) -> str:
    hostile = [finding for finding in findings if isinstance(finding.program, Hostile)]
    honest = [finding for finding in findings if isinstance(finding.program, Honest)]
    held, right = (sum(not finding.breaches for finding in some) for some in (hostile, honest))
    system = f"{platform.system()} {platform.release().split('-')[0]}, Landlock ABI {landlock_abi()}"
    return (
        f"{held} of {len(hostile)} hostile programs held, {right} of {len(honest)} honest ones judged rightly, "
        f"at level {findings[0].result.isolation}, {system}"
    )
