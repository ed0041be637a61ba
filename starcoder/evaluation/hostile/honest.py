"""Honest programs, right and wrong ones: their verdicts must not change because hostile ones run beside them."""

from dataclasses import dataclass, field

from starcoder.evaluation.program import Limits, Program, Status

_HEAVY = """
import time
def solve(x):
    while time.process_time() - start < {seconds}:
        x * x
    return x * x
start = time.process_time()
"""


@dataclass(frozen=True)
class Honest:
    """An honest program and the verdict that it deserves."""

    name: str
    code: str
    status: Status = Status.PASSED
    tests: str = "assert solve(3) == 9\nassert solve(-1) == 1"
    limits: Limits = field(default_factory=Limits)

    @property
    def program(self) -> Program:
        """What the sandbox is given."""
        return Program(self.code, self.tests, entry_point="solve", limits=self.limits)


def _solve(lines: str, before: str = "") -> str:
    body = lines.replace("\n", "\n    ")
    return f"{before}\ndef solve(x):\n    {body}\n"


HONEST = (
    Honest("right", _solve("return x * x")),
    Honest("wrong", _solve("return x + 6"), Status.FAILED),
    Honest("raises", _solve("return x / 0"), Status.FAILED),
    Honest("misspelt", "def solve(x) return x * x", Status.FAILED),
    Honest("has_no_answer", "def answer(x):\n    return x * x", Status.FAILED),
    Honest("almost_too_long", _HEAVY.format(seconds=1.4), limits=Limits(timeout=2.0)),
    Honest(
        "almost_too_long_and_wrong",
        _HEAVY.format(seconds=1.4).replace("x * x\n", "9\n"),
        Status.FAILED,
        limits=Limits(timeout=2.0),
    ),
    Honest("too_long", _HEAVY.format(seconds=60), Status.TIMED_OUT, limits=Limits(timeout=1.0)),
    Honest("waits", _solve("time.sleep(0.2)\nreturn x * x", "import time")),
    Honest("much_memory", _solve("block = bytearray(b'x') * (400 << 20)\nreturn len(block[:x * x])")),
    Honest("too_much_memory", _solve("return len(b'x' * (8 << 30))"), Status.OUT_OF_MEMORY),
    Honest("deep", _solve("return x * x if not depth else solve(x, depth - 1)").replace("(x):", "(x, depth=700):")),
    Honest("too_deep", _solve("return solve(x)"), Status.FAILED),
    Honest("prints", _solve("print('é' * 50_000, file=sys.stderr)\nprint(x)\nreturn x * x", "import sys")),
    Honest(
        "threads",
        _solve(
            "return sum(pool.map(lambda _: abs(x), range(abs(x))))",
            """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(4)
""",
        ),
    ),
    Honest(
        "files",
        _solve(
            """
with tempfile.TemporaryFile("w+") as file, open("x", "w") as other:
    file.write(str(x * x))
    other.write("y" * 100_000)
    file.seek(0)
    return int(file.read())
""".strip(),
            "import tempfile",
        ),
    ),
    Honest("catches", _solve("try:\n    return {}[x]\nexcept BaseException:\n    return x * x")),
    Honest(
        "many_modules",
        _solve(
            "return int(Fraction(Decimal(x)) ** 2)",
            """
import asyncio, bisect, collections, copy, datetime, functools, hashlib, heapq, itertools, json, math, random, re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import *
""",
        ),
    ),
    Honest(
        "event_loop",
        _solve(
            "return asyncio.run(answer(x))",
            """
import asyncio
async def answer(x):
    await asyncio.sleep(0)
    return x * x
""",
        ),
    ),
    Honest(
        "another_process",
        _solve(
            """
done = subprocess.run([sys.executable, "-c", f"print({x} * {x})"], capture_output=True, text=True)
return int(done.stdout)
""".strip(),
            "import subprocess, sys",
        ),
    ),
)
