"""What the sandbox runs, and what it says of it: the words that tasks, sandbox and report share."""

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """How a run ended."""

    PASSED = "passed"
    FAILED = "failed"
    """An assertion or another exception, a compiler's error, or an exit code of its own."""
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    EXITED_EARLY = "exited_early"
    """The process ended in order, but not at the end of the tests."""
    CRASHED = "crashed"
    """A signal that the limits did not send."""
    OUTPUT_LIMIT = "output_limit"
    """More output, larger files or more of them than the limits allow."""
    SANDBOX_ERROR = "sandbox_error"
    """The machine's failure, never the program's: it counts for nothing."""


@dataclass(frozen=True)
class Limits:
    """What one program may use, all its processes together.

    Args:
        timeout: CPU seconds, and seconds in which it may do nothing at all; the wall clock is only the backstop.
        memory_mb: memory.
        processes: processes and threads.
        output_kb: standard output and standard error.
        disk_mb: files in its working directory.
    """

    timeout: float = 3.0
    memory_mb: int = 1024
    processes: int = 64
    output_kb: int = 256
    disk_mb: int = 64


@dataclass(frozen=True)
class Program:
    """A program to judge.

    Args:
        code: the candidate: prompt, completion and what belongs to them. Hostile until proved otherwise.
        tests: trusted code that runs after it; passing means that its end was reached. What they import or define is
            not visible to the candidate.
        language: a key of `starcoder.evaluation.languages.LANGUAGES`.
        entry_point: the function that the tests call; strict mode runs them outside the candidate's process. Without
            it nothing is run a second time there: what needs machine code and does not declare it fails.
        reference: trusted code that passes the tests and defines what else they use, for strict mode.
        libraries: modules that the program imports: the worker has them loaded before it starts (Python).
        limits: what it may use.
    """

    code: str
    tests: str = ""
    language: str = "python"
    entry_point: str | None = None
    reference: str = ""
    libraries: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Args:
        status: the verdict.
        detail: one line that explains it, such as the exception; empty when it passed.
        stdout: what was printed, cut at the limit, undecodable bytes replaced.
        stderr: the same of standard error.
        isolation: the level that held, a `starcoder.evaluation.isolation.Isolation`'s value.
        strict: whether the tests ran outside the candidate's process.
        cpu_seconds: CPU time of all its processes.
        wall_seconds: time from start to verdict.
    """

    status: Status
    detail: str = ""
    stdout: str = ""
    stderr: str = ""
    isolation: str = "none"
    strict: bool = False
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the program is right."""
        return self.status is Status.PASSED
