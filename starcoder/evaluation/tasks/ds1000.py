"""DS-1000 (paper §6.1.2, FACTS §7.3): questions from Stack Overflow on seven data science libraries.

The data is the authors' simplified release: each problem comes with trusted code that makes inputs, runs a solution
among lines of its own, and compares. So a completion is text that this code executes: the verdict comes from the
process in which the completion ran, and one that sets out to deceive the tests there can; it cannot leave the sandbox.

The references need libraries older than the kit's (`recipes/evaluation/ds1000.txt`), so the programs run in the
interpreter of an environment of their own.
"""

import functools
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from starcoder.errors import UserError, one_line
from starcoder.evaluation.data import HubFile, load_rows
from starcoder.evaluation.program import Limits, Program
from starcoder.evaluation.task import Defaults, Executed, Problem
from starcoder.rows import Row


@dataclass(frozen=True)
class Library:
    """What the problems of one library import.

    Args:
        title: its name in the table.
        preload: what nearly all of them use: the sandbox's worker has it before a program starts.
        others: what some of them use besides.
    """

    title: str
    preload: tuple[str, ...]
    others: tuple[str, ...] = ()

    @property
    def packages(self) -> frozenset[str]:
        """The top-level names that must be there for all the problems."""
        return frozenset(module.partition(".")[0] for module in self.preload + self.others)


LIBRARIES = {
    "Pandas": Library("Pandas", ("numpy", "pandas"), ("yaml",)),
    "Numpy": Library("NumPy", ("numpy", "pandas"), ("scipy", "sklearn", "tensorflow", "torch")),
    "Matplotlib": Library("Matplotlib", ("numpy", "pandas", "matplotlib.pyplot", "seaborn", "PIL.Image")),
    "Tensorflow": Library("TensorFlow", ("numpy", "tensorflow")),
    "Scipy": Library("SciPy", ("numpy", "pandas", "scipy")),
    "Sklearn": Library("scikit-learn", ("numpy", "pandas", "scipy", "sklearn"), ("statsmodels", "xgboost")),
    "Pytorch": Library("PyTorch", ("numpy", "pandas", "torch"), ("gensim", "sklearn")),
}
"""The libraries, as the data calls them."""

DOWNLOADS = {
    "exercise.csv": 'load_dataset("exercise")',
    "penguins.csv": 'load_dataset("penguins")',
    "planets.csv": 'load_dataset("planets")',
    "tips.csv": 'load_dataset("tips")',
    "cal_housing_py3.pkz": "fetch_california_housing(",
}
"""Files that some problems fetch from the network, which the sandbox does not have, and the call that does it."""

LIMITS = Limits(timeout=60, memory_mb=4096, processes=512)
"""The authors allow 120 seconds of wall time; the slowest reference takes 10 of CPU time, the largest 0.7 GB."""

_HUB = HubFile("xlangai/DS-1000", "test.jsonl")
_OFFLINE = """import os, pathlib
os.environ["SEABORN_DATA"] = os.environ["SCIKIT_LEARN_DATA"] = os.getcwd()
pathlib.Path({name!r}).write_bytes({content!r})
"""
_PROBE = """import importlib.util, json, os, sys
absent = [package for package in sys.argv[1:] if not importlib.util.find_spec(package)]
print(json.dumps([absent, os.path.realpath(sys.executable)]))
"""
_MISNAMED = "tensorflow that works in the sandbox: copy it to another name, as recipes/evaluation/ds1000.txt says"
_ASSIGNED = re.compile(r"\n([^\n]+) = \.\.\. # put solution in (?:this variable|these variables)(?=\nBEGIN SOLUTION\n)")
_CALLED = re.compile(r"\n    # (([^\n=]+) = \w+\([^\n]*\))\n    ### BEGIN SOLUTION$")


class DS1000Completion(Executed):
    """The prompt is the question and the code up to the solution."""

    name = "ds1000-completion"
    title = "DS-1000 completion"
    section = "§6.1.2"
    data = "ds1000"
    source = "data/ds1000.jsonl.gz of https://github.com/xlang-ai/DS-1000, or the Hub's xlangai/DS-1000"
    # The harness counts the prompt into its 1,024 tokens; the completion alone can only have more room.
    defaults = Defaults(n_samples=40, max_new_tokens=1024, stop=("</code>", "# SOLUTION END"))

    def __init__(self) -> None:
        self._unfetched: dict[str, str] = {}

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        absent = self._absent()
        problems = [problem for problem in self.read(folder) if problem.group not in absent]
        unready = [problem for problem in problems if _downloads(problem) - problem.row["files"].keys()]
        self._unfetched = _explain(unready)
        return [problem for problem in problems if problem not in unready]

    def read(self, folder: Path | None) -> list[Problem]:
        """All 1,000 problems, whether they can be judged here or not.

        Raises:
            UserError: when there is no data, or a row of it is not one of DS-1000's.
        """
        fields = ("prompt", "reference_code", "code_context", "metadata")
        rows = load_rows(folder, self.data, "ds1000.jsonl*", _HUB, fields)
        files = _read_downloads(folder)
        return [self._problem(number, row, files) for number, row in enumerate(rows, start=1)]

    @override
    def skipped(self) -> dict[str, str]:
        """Libraries that `python` lacks and, after `problems`, the problems that need the network."""
        return self._absent() | self._unfetched

    @override
    def program(self, problem: Problem, completion: str) -> Program:
        context: str = problem.row["code_context"]
        files = [_OFFLINE.format(name=name, content=content) for name, content in problem.row["files"].items()]
        calls = [f"\n{name}(solution)\n" for name in ("test_execution", "test_string") if f"def {name}(" in context]
        tests = "".join([*files, context, *calls])
        return Program(f"solution = {completion!r}\n", tests, libraries=problem.row["preload"], limits=LIMITS)

    def _pose(self, library: str, prompt: str) -> tuple[str, str | None]:
        """The text before the solution, and the text after it where the model is to infill."""
        return prompt, None

    def _problem(self, number: int, row: Row, files: dict[str, bytes]) -> Problem:
        try:
            name, library = f"DS-1000/{row['metadata']['problem_id']}", row["metadata"]["library"]
            context, needs = row["code_context"], LIBRARIES[library]
            prompt, suffix = self._pose(library, row["prompt"])
            own = {name: content for name, content in files.items() if DOWNLOADS[name] in context}
            judge = {"code_context": context, "preload": needs.preload, "files": own}
            return Problem(name, prompt, suffix, row["reference_code"], needs.title, row=judge)
        except (KeyError, TypeError) as error:
            raise UserError(f"row {number} of ds1000.jsonl is not of DS-1000's simplified release: {error}") from None

    def _absent(self) -> dict[str, str]:
        absent = _absent_packages(self.python)
        lacking = {library.title: sorted(library.packages & absent.keys()) for library in LIBRARIES.values()}
        return {
            group: f"{self.python} has no {', '.join(absent[name] for name in names)}"
            for group, names in lacking.items()
            if names
        }


class DS1000Insertion(DS1000Completion):
    """The model sees what follows the solution, too.

    The simplified release has no prompts for insertion. They are made from those for completion as the first release
    (commit 49c1c54) had them: its line "x = ... # put solution in this variable" stood after the gap, as a line that
    prints x. Where the solution is a function's body, the line that calls the function follows. A prompt that holds
    "[insert]" is taken as it is. Matplotlib has no insertion: its completion is used, which the title says.
    """

    name = "ds1000-insertion"
    title = "DS-1000 insertion (Matplotlib: completion)"

    @override
    def _pose(self, library: str, prompt: str) -> tuple[str, str | None]:
        if library == "Matplotlib":
            return prompt, None
        prefix, _, suffix = _with_gap(prompt).partition("[insert]")
        return f"{prefix.strip()}\n", f"\n{suffix.strip()}\n"


def _with_gap(prompt: str) -> str:
    """The prompt with "[insert]" where the solution belongs, and what follows it."""
    if "[insert]" in prompt:
        return prompt
    prompt = prompt.rstrip()
    if call := _CALLED.search(prompt):
        return f"{prompt}\n[insert]\n{call[1]}\nprint({call[2]})\n</code>"
    result = _ASSIGNED.search(prompt)
    shown = f"\n<code>\nprint({result[1]})\n</code>" if result else ""
    return f"{_ASSIGNED.sub('', prompt)}\n[insert]\n</code>\nEND SOLUTION{shown}"


def _read_downloads(folder: Path | None) -> dict[str, bytes]:
    """Those files that the folder of benchmark data holds, in `ds1000/downloads`."""
    paths = [folder / DS1000Completion.data / "downloads" / name for name in DOWNLOADS] if folder else []
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _downloads(problem: Problem) -> set[str]:
    """The files that a problem fetches from the network."""
    return {name for name, call in DOWNLOADS.items() if call in problem.row["code_context"]}


def _explain(unready: list[Problem]) -> dict[str, str]:
    """What is said of the problems whose downloads are not there, for each group."""
    groups = {group: [p for p in unready if p.group == group] for group in dict.fromkeys(p.group for p in unready)}
    return {
        group: f"{len(problems)} of its problems download "
        + ", ".join(sorted(set[str]().union(*map(_downloads, problems))))
        + ": put these files into ds1000/downloads"
        for group, problems in groups.items()
    }


@functools.cache
def _absent_packages(python: str) -> dict[str, str]:
    """Those of the libraries' packages that programs cannot use in the interpreter `python`, and what is said of them.

    Where the path of the interpreter has "python" in it, TensorFlow reads /proc/self/cmdline; the sandbox hides that
    file, and TensorFlow aborts the process.
    """
    packages = sorted(frozenset[str]().union(*(library.packages for library in LIBRARIES.values())))
    command = [python, "-c", _PROBE, *packages]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        absent, program = json.loads(probe.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise UserError(f"{python} cannot run Python programs ({one_line(error)})") from error
    reasons = {package: package for package in absent}
    if "python" in program:
        reasons.setdefault("tensorflow", _MISNAMED)
    return reasons
