"""Hostile programs, each bounded, with checks from outside: what the sandbox must hold, in one table.

The programs lie in `programs/*.txt`, each under a line `## name: what it does` and lines `#: key value`: `verdicts`
that may come, `tame` (does no harm where no sandbox holds), `strict` (only the strict mode sees through it), `native`
(it has ctypes), `timeout` in seconds; after `#: tests` follows what judges it. A program holds no secret: what it
prints of the planted ones it has read. Whether the sandbox held is decided from outside, by files, connections,
processes and the verdict.
"""

from dataclasses import dataclass, field
from pathlib import Path

from starcoder.evaluation.hostile.world import VARIABLE, World, canary
from starcoder.evaluation.program import Limits, Program, Result, Status

__all__ = ["HOSTILE", "VARIABLE", "Hostile", "World", "canary"]

_FOLDER = Path(__file__).parent / "programs"
_TOOLS, _NATIVE_TOOLS = ((_FOLDER / name).read_text() for name in ("tools.txt", "native.txt"))
_STARTED = 'say("started")\n'
_NATIVE_THEMES = ("resources", "processes", "files", "network")
_THEMES = (*_NATIVE_THEMES, "exits", "verdict")
_KEPT = (Status.PASSED, Status.SANDBOX_ERROR)


@dataclass(frozen=True)
class Hostile:
    """A hostile program; it never solves the task that it is given, so that "passed" is always a lie.

    Args:
        name: what tables call it.
        what: what it does, for a reader.
        code: its text. It uses the facts of its `World` (`MARK`, `OUTSIDE`, …) and the tools that precede it.
        tests: what judges it.
        verdicts: those that may come; when empty any but passed and sandbox_error.
        strict: only the strict mode sees through it.
        tame: it does no harm where no sandbox holds.
        native: it declares ctypes among its libraries: it may call the system without Python.
        raw: its text is all there is: no tools precede it, and it need not start.
        limits: what it may use.
    """

    name: str
    what: str
    code: str
    tests: str = "assert solve(3) == 9"
    verdicts: tuple[Status, ...] = ()
    strict: bool = False
    tame: bool = False
    native: bool = False
    raw: bool = False
    limits: Limits = field(default_factory=lambda: Limits(timeout=1.0))

    def program(self, world: World) -> Program:
        """What the sandbox is given."""
        tools = _TOOLS + _NATIVE_TOOLS * self.native + _STARTED
        code = self.code if self.raw else world.facts(self.code) + tools + self.code
        libraries = ("ctypes",) if self.native else ()
        return Program(code, self.tests, entry_point="solve", libraries=libraries, limits=self.limits)

    def breaches(self, result: Result, world: World) -> list[str]:
        """What it reached that it must not, in words; empty when the sandbox held."""
        found = world.damage(result)
        if result.status in _KEPT or (self.verdicts and result.status not in self.verdicts):
            found.append(f"the verdict is {result.status}")
        if not self.raw and f"{world.mark} started" not in result.stdout:
            found.append("it did not start")
        if len(result.stdout) + len(result.stderr) > 2 * 1024 * self.limits.output_kb:
            found.append("its output has no limit")
        return found

    def held(self, result: Result, world: World) -> bool:
        """Whether the sandbox held."""
        return not self.breaches(result, world)


def _parse(text: str, native: bool) -> Hostile:
    """A program from the text after its `## `; `native` when its whole theme is."""
    title, *lines = text.rstrip().split("\n")
    keys = dict[str, str]()
    while lines[0].startswith("#: "):
        key, _, keys[key] = lines.pop(0)[3:].partition(" ")
    code, _, tests = "\n".join(lines).partition("\n#: tests\n")
    name, _, what = title.partition(": ")
    return Hostile(
        name,
        what,
        code,
        tests or Hostile.tests,
        tuple(map(Status, keys.get("verdicts", "").split())),
        strict="strict" in keys,
        tame="tame" in keys,
        native=native or "native" in keys,
        limits=Limits(timeout=float(keys.get("timeout", 1.0))),
    )


def _read(theme: str) -> list[Hostile]:
    _, *texts = (_FOLDER / f"{theme}.txt").read_text().split("\n## ")
    return [_parse(text, theme in _NATIVE_THEMES) for text in texts]


def _raw(name: str, what: str, code: str, *verdicts: Status) -> Hostile:
    return Hostile(name, what, code, verdicts=verdicts, tame=True, raw=True)


_ODD_TEXTS = (
    _raw("open_string", "ends in an open string, to swallow the tests", "def solve(x): return '''", Status.FAILED),
    _raw("odd_characters", "contains NUL bytes and lone surrogates", "x = '\0\ud800'", Status.FAILED),
    _raw("deep_brackets", "breaks the compiler by 100,000 brackets", "(" * 100_000),
    _raw("deep_operators", "breaks the compiler by 100,000 operators", f"x = {'-' * 100_000}1"),
    _raw("large_constants", "has the compiler compute large constants", "x = 2 ** 126 ** 4 * ('x' * 4000)"),
)

HOSTILE: tuple[Hostile, ...] = (*(program for theme in _THEMES for program in _read(theme)), *_ODD_TEXTS)
