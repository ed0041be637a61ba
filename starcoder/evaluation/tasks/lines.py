"""Line completion as CodeXGLUE poses it: the rest of a line, given all that is before it.

Its problems are CodeXGLUE's own (py150 and the GitHub Java corpus) where the folder of benchmark data has them, and
otherwise made from held-out code in the same way: a file is cut at a token drawn at random, the rest of that line is
wanted. Both are compared as CodeXGLUE does: same words, and `fuzz.ratio`. The paper has no such table.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.similarity import edit_similarity, exact_match
from starcoder.evaluation.task import Defaults, Matched, Problem
from starcoder.evaluation.tasks import held_out
from starcoder.rows import Row, read_rows

if TYPE_CHECKING:
    from starcoder.corpus.document import Document

CODEXGLUE = "codexglue-line"
"""Sub-folder with `python.jsonl` and `java.jsonl`: the test.json of CodeXGLUE's py150 and javaCorpus."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_LITERAL = re.compile(r"<(?:STR|NUM|CHAR)_LIT:(.*?)>", re.DOTALL)
_EMPTY_LITERALS = {"<NUM_LIT>": "0", "<STR_LIT>": "", "<CHAR_LIT>": ""}
_JAVA_END = re.compile(r"[^;{}]*[;}]?")


class LineCompletion(Matched):
    """One line of each file.

    Args:
        per_language: files of each language at most, of held-out code.
        characters: what the model sees of a file at most, the end before the cut.
        seed: of the draw of files, lines and tokens.
    """

    name = "line-completion"
    title = "Line completion"
    section = ""
    data = held_out.FOLDER
    source = f"{held_out.SOURCE}; or {CODEXGLUE}/python.jsonl and java.jsonl, CodeXGLUE's line_completion/test.json"
    defaults = Defaults(temperature=0.0, top_p=1.0, max_new_tokens=100, stop=("\n",))

    def __init__(self, per_language: int = 200, characters: int = 8192, seed: int = 0) -> None:
        self.per_language, self.characters, self.seed = per_language, characters, seed

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        if folder is not None and (folder / CODEXGLUE).is_dir():
            return list(_read_codexglue(folder / CODEXGLUE))
        posed = [problem for document in held_out.read_code(folder) if (problem := self._cut(document))]
        if not posed:
            raise UserError(f"no file in {held_out.FOLDER} has a second line to complete: build a larger corpus")
        return held_out.choose(posed, self.per_language, self.seed, lambda p: p.group, lambda p: p.id)

    @override
    def scores(self, problem: Problem, completion: str) -> dict[str, float]:
        line = completion.partition("\n")[0].strip()
        if problem.row.get("language") == "java" and (end := _JAVA_END.match(line)):
            line = end[0].strip()
        return {
            "exact_match": exact_match(line, problem.reference),
            "edit_similarity": edit_similarity(line, problem.reference),
        }

    def _cut(self, document: "Document") -> Problem | None:
        """The document, cut before a token that is not in its first line; None when there is none.

        White space before the token is the model's to write: a prompt that ends with it is an unusual one.
        """
        text = document.content
        tokens = [token.start() for token in _TOKEN.finditer(text, text.find("\n") + 1 or len(text))]
        if not tokens:
            return None
        at = tokens[held_out.draw(self.seed, document.name) % len(tokens)]
        prompt = text[:at].rstrip(" \t")[-self.characters :]
        rest = text[at:].partition("\n")[0].strip()
        return Problem(document.name, prompt, reference=rest, group=held_out.title(document.language))


def _read_codexglue(folder: Path) -> Iterator[Problem]:
    """Problems of CodeXGLUE; the language is the file's name.

    Raises:
        UserError: when there is no file, or it has other rows.
    """
    files = sorted(folder.glob("*.jsonl*"))
    if not files:
        raise UserError(f"{folder} holds no python.jsonl or java.jsonl: they are CodeXGLUE's line_completion/test.json")
    for file in files:
        language = file.name.partition(".")[0]
        for number, row in enumerate(read_rows(file), start=1):
            yield _codexglue_problem(f"{file}:{number}", f"{language}/{number}", language, row)


def _codexglue_problem(where: str, name: str, language: str, row: Row) -> Problem:
    texts = row.get("input"), row.get("gt")
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where} has no texts `input` and `gt`: it is not CodeXGLUE's line completion")
    prompt, line = (_plain(str(text)) for text in texts)
    return Problem(name, prompt, reference=line.strip(), group=held_out.title(language), row={"language": language})


def _plain(text: str) -> str:
    """CodeXGLUE's tokens as code: lines end where <EOL> stands, and literals have their values."""
    text = re.sub(r" ?<EOL> ?", "\n", text.removeprefix("<s> "))
    for token, value in _EMPTY_LITERALS.items():
        text = text.replace(token, value)
    return _LITERAL.sub(r"\1", text)
