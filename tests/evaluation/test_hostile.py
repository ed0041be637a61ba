"""Hostile programs in the real sandbox, honest ones beside them; and proof that the checks can fail."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from starcoder.evaluation.doctor import Finding, examine
from starcoder.evaluation.hostile import HOSTILE, VARIABLE, Hostile, World, canary
from starcoder.evaluation.hostile.honest import HONEST, Honest
from starcoder.evaluation.isolation import Isolation, missing
from starcoder.evaluation.program import Program, Result, Status

NAMED = {hostile.name: hostile for hostile in HOSTILE}
# What the level decides: limits and verdicts are the same at all levels.
NATIVE = {hostile.name: hostile for hostile in HOSTILE if hostile.native and not hostile.verdicts}
HARMLESS = (
    "sleep",
    "interrupt",
    "generator_exit",
    "exception_that_cannot_be_printed",
    "odd_output",
    "reads_everything",
)
UNPROTECTED = [hostile for hostile in HOSTILE if hostile.tame and not hostile.raw and hostile.name not in HARMLESS]


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def unprotected(program: Program, seconds: float = 10.0) -> Result:
    """What a harness without a sandbox says: a process of its own, whose exit code is the verdict."""
    folder = tempfile.mkdtemp()
    command = [sys.executable, "-c", f"{program.code}\n{program.tests}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, cwd=folder, errors="replace", check=False)
    finally:
        shutil.rmtree(folder)
    return Result(Status.FAILED if done.returncode else Status.PASSED, stdout=done.stdout, stderr=done.stderr)


@pytest.mark.parametrize("hostile", UNPROTECTED, ids=lambda hostile: hostile.name)
def test_what_nothing_protects_does_not_hold(hostile: Hostile) -> None:
    with canary(), World() as world:
        assert not hostile.held(unprotected(hostile.program(world)), world)


@pytest.mark.parametrize(
    ("code", "breach"),
    [
        ("if posix.fork() == 0: posix.closerange(0, 3); time.sleep(3); posix._exit(0)", "its processes live on"),
        ("libc.shmget(KEY, 4096, 0o1600)", "it left shared memory"),
        ("os.setpriority(os.PRIO_PROCESS, VICTIM, 19)", "it slowed down another process"),
        ("os.sched_setaffinity(VICTIM, {min(os.sched_getaffinity(0))})", "it confined another process"),
        ("import resource; resource.prlimit(VICTIM, resource.RLIMIT_CORE, (0, 0))", "it limited another process"),
        ("os.kill(VICTIM, 19)", "it stopped another process"),
        ("say('in ' + os.getcwd()); posix.close(posix.open('/tmp/' + MARK, os.O_CREAT))", "it left /tmp/"),
        ("show('x' * 600_000)", "its output has no limit"),
        ("reached('the moon')", "reached the moon"),
    ],
)
def test_world_sees_each_kind_of_damage(code: str, breach: str, world: World) -> None:
    if "confined" in breach and len(os.sched_getaffinity(0)) == 1:
        pytest.skip("this machine has one processor: nothing can be confined further")
    hostile = Hostile("x", "does one thing", code, native=True)
    breaches = hostile.breaches(unprotected(hostile.program(world)), world)
    assert len(breaches) == 1
    assert breaches[0].startswith(breach)


def test_world_is_whole_when_nothing_happens(world: World) -> None:
    hostile = Hostile("x", "does nothing", "VICTIM, OUTSIDE, PORT, UDP_PORT, UNIX, ABSTRACT, KEY")
    assert hostile.held(unprotected(hostile.program(world)), world)


@pytest.mark.parametrize("status", [Status.PASSED, Status.SANDBOX_ERROR, Status.CRASHED])
def test_verdicts_that_must_not_come_do_not_hold(status: Status, world: World) -> None:
    hostile = replace(NAMED["busy_loop"], verdicts=(Status.TIMED_OUT,))
    right = Result(Status.TIMED_OUT, stdout=f"{world.mark} started\n")
    assert hostile.held(right, world)
    assert hostile.breaches(replace(right, status=status), world) == [f"the verdict is {status}"]
    assert hostile.breaches(replace(right, stdout=""), world) == ["it did not start"]


def test_world_leaves_nothing() -> None:
    with World() as world:
        victim = world.victim
    assert not world.root.exists()
    assert victim.returncode is not None


def test_canary_is_in_the_environment_only_meanwhile() -> None:
    with canary():
        assert len(os.environ[VARIABLE]) == 32
    assert VARIABLE not in os.environ


def test_programs_have_names_of_their_own_and_compile(world: World) -> None:
    names = [program.name for program in (*HOSTILE, *HONEST)]
    assert len(set(names)) == len(names)
    for hostile in HOSTILE:
        compile(hostile.tests, hostile.name, "exec")
        if not hostile.raw:
            compile(hostile.program(world).code, hostile.name, "exec")


def findings(isolation: Isolation, hostile: Sequence[Hostile]) -> dict[str, Finding]:
    if reason := missing(isolation):
        pytest.skip(f"this machine does not offer {isolation}: {reason}")
    return {finding.program.name: finding for finding in examine(isolation, hostile=hostile)}


@pytest.fixture(scope="module")
def landlock() -> dict[str, Finding]:
    return findings(Isolation.LANDLOCK, HOSTILE)


@pytest.fixture(scope="module")
def namespaces() -> dict[str, Finding]:
    return findings(Isolation.NAMESPACES, list(NATIVE.values()))


@pytest.mark.parametrize("name", NAMED)
def test_landlock_holds(name: str, landlock: dict[str, Finding]) -> None:
    assert landlock[name].breaches == []
    assert landlock[name].result.isolation == "landlock"


@pytest.mark.parametrize("name", NATIVE)
def test_namespaces_hold(name: str, namespaces: dict[str, Finding]) -> None:
    assert namespaces[name].breaches == []
    assert namespaces[name].result.isolation == "namespaces"


@pytest.mark.parametrize("honest", HONEST, ids=lambda honest: honest.name)
def test_honest_verdicts_do_not_change_beside_hostile_programs(honest: Honest, landlock: dict[str, Finding]) -> None:
    assert landlock[honest.name].result.status is honest.status
