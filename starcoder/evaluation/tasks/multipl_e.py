"""MultiPL-E (Cassano et al. 2022): HumanEval and MBPP, translated into other languages (paper §6.1.1 and §6.2.1).

A prompt is stripped of white space on both sides, a program is the stripped prompt, the completion, a line break and
the tests: so does the harness that measured the paper's numbers. Compiler's and runtime's commands are in
`starcoder.evaluation.languages`; a program has the 15 seconds that MultiPL-E's scripts give it.

The paper's column MBPP is the Python file of this translation: 397 problems with prompts and stop strings of their own,
not comparable with the 500 of the benchmark (`mbpp`). MultiPL-E's C# tests compare lists by identity, so that no answer
passes 45 of the 158 problems of HumanEval and 92 of the 386 of MBPP; they count, as they did for the paper.

The licence of the data forbids training on it (BSD-3-Clause with a machine-learning restriction): evaluate only.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import HubFile, load_rows
from starcoder.evaluation.languages import LANGUAGES, javatuples, missing
from starcoder.evaluation.program import Limits, Program
from starcoder.evaluation.prompting import STYLES
from starcoder.evaluation.task import Defaults, Executed, Problem
from starcoder.rows import Row

TITLES = {**{name: toolchain.title for name, toolchain in LANGUAGES.items()}, "py": "Python"}
"""The languages of MultiPL-E by their names in its files, and as the paper's tables write them."""

_REVISION = "28441b6024e71d4a1c1c0f6bf171c935cd5a43f2"  # of the data set, as the harness has it
_FIELDS = ("name", "prompt", "tests", "stop_tokens")
_LIMITS = Limits(timeout=15.0)
_TUPLES_IMPORT = "import org.javatuples.*;\n"
_TUPLES = re.compile(r"\b(?:Unit|Pair|Triplet|Quartet|Quintet|Sextet|Septet|Octet|Ennead|Decade)[<.]")
_CHECKED = re.compile(r"\bcheck\((\w+)\)")


class MultiPLE(Executed):
    """One of the two translated benchmarks; its rows are the languages.

    Args:
        languages: names in MultiPL-E's files, such as `cpp`; all when there is none.

    Raises:
        UserError: for a language that MultiPL-E does not have.
    """

    section = "§6.2.1"
    data = "multipl-e"
    source = "the folder prompts of github.com/nuprl/MultiPL-E, or huggingface.co/datasets/nuprl/MultiPL-E"
    defaults = Defaults(n_samples=200, temperature=0.2, top_p=0.95, max_new_tokens=512, stop=("<file_sep>",))
    benchmark: ClassVar[str]

    def __init__(self, languages: Sequence[str] = ()) -> None:
        if unknown := [name for name in languages if name not in TITLES]:
            raise UserError(f"MultiPL-E has no {', '.join(unknown)}: its languages are {', '.join(sorted(TITLES))}")
        self.languages = tuple(languages) or tuple(sorted(TITLES, key=lambda name: TITLES[name].lower()))

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        unable = self._missing()
        able = [name for name in self.languages if name not in unable]
        return [problem for name in able for problem in self._translated(folder, name)]

    @override
    def skipped(self) -> dict[str, str]:
        unable = self._missing()
        reasons = {TITLES[name]: reason for name, reason in unable.items()}
        if "java" in self.languages and "java" not in unable and not javatuples():
            lacks = "needs javatuples.jar (Debian: libjavatuples-java, or Maven Central and CLASSPATH)"
            reasons[f"{TITLES['java']} with tuples"] = f"{TITLES['java']} with tuples {lacks}"
        return reasons

    @override
    def program(self, problem: Problem, completion: str) -> Program:
        language, tests = problem.row["language"], problem.row["tests"]
        code = f"{problem.prompt}{completion}\n"
        if language == "py":
            return Program(code, tests, entry_point=_CHECKED.findall(tests)[-1], limits=_LIMITS)
        if language == "java" and not javatuples():
            code = code.replace(_TUPLES_IMPORT, "", 1)
        return Program(code, tests, language, limits=_LIMITS)

    def _missing(self) -> dict[str, str]:
        return missing(name for name in self.languages if name != "py")

    def _translated(self, folder: Path | None, language: str) -> list[Problem]:
        file = f"{self.benchmark}-{language}-reworded.json"
        hub = HubFile("nuprl/MultiPL-E", f"{self.benchmark}-{language}/test-00000-of-00001.parquet", _REVISION)
        rows = load_rows(folder, self.data, file, hub, fields=_FIELDS, source=self.source)
        return [self._problem(row, language) for row in rows if language != "java" or javatuples() or not _tuples(row)]

    def _problem(self, row: Row, language: str) -> Problem:
        return Problem(
            id=f"{language}/{row['name']}",
            prompt=row["prompt"].strip(),
            group=TITLES[language],
            stop=tuple(row["stop_tokens"]),
            row={**row, "language": language},  # the files call Go `go_test.go`
        )


class HumanEvalMultiPLE(MultiPLE):
    """HumanEval in 19 languages, 154 to 161 of its 164 problems in each."""

    name = "humaneval-multipl-e"
    title = "MultiPL-E HumanEval"
    benchmark = "humaneval"


class MBPPMultiPLE(MultiPLE):
    """MBPP in 19 languages, 354 to 397 problems in each."""

    name = "mbpp-multipl-e"
    title = "MultiPL-E MBPP"
    benchmark = "mbpp"


class MBPPPaper(MBPPMultiPLE):
    """The 397 Python problems that the paper calls MBPP."""

    name = "mbpp-paper"
    title = "MBPP (MultiPL-E's 397 problems)"
    section = "§6.1.1"
    styles = STYLES

    def __init__(self) -> None:
        super().__init__(("py",))

    @override
    def _problem(self, row: Row, language: str) -> Problem:
        problem = super()._problem(row, language)
        return Problem(row["name"], problem.prompt, stop=problem.stop, row=problem.row)


def _tuples(row: Row) -> bool:
    """Whether a Java problem uses the library of tuples in its signature or its tests."""
    return _TUPLES.search(row["prompt"] + row["tests"]) is not None
