"""A piece of a file, and the places in it that something can be put without harm to its syntax."""

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass, field

from starcoder.corpus.document import Document

_FEWEST = 15
_SHORT_LINE = 70
_START = re.compile(r" *(?:(?:def|class|import|from|if|for|with|try|return|raise|assert|async)\b|@|\w[\w.]* =)")
_INDENT = re.compile(r"[ \t]*")
_ENTRY = re.compile(r'\s*"[^"]*"\s*:')
_ALONE = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Import, ast.ImportFrom)
_SCOPES: dict[type[ast.AST], str] = {
    ast.ClassDef: "class",
    ast.FunctionDef: "function",
    ast.AsyncFunctionDef: "function",
}
_BRACES = {"c", "c++", "cuda", "java", "javascript", "typescript", "c-sharp", "go", "rust", "php", "dart", "css"}


@dataclass(frozen=True)
class Point:
    """A line before which something can stand.

    Attributes:
        line: Number of the line.
        indent: The indentation that is needed there.
        scope: "module", "class" or "function".
        statement: Whether a statement reads well there; before a function or an import only a comment does.
    """

    line: int
    indent: str
    scope: str
    statement: bool = True


@dataclass(frozen=True)
class Stretch:
    """A piece of a file.

    Attributes:
        lines: Its lines.
        language: Language of the file.
        name: Repository and path of the file.
        top: Whether it starts where a header can stand.
        points: Where comments and statements can be put.
        tails: Lines that end a statement and have no comment.
        notes: Lines that are the last of a comment.
        docstrings: Lines that close a docstring → its indentation.
    """

    lines: tuple[str, ...]
    language: str
    name: str
    top: bool
    points: tuple[Point, ...]
    tails: tuple[int, ...] = ()
    notes: tuple[int, ...] = ()
    docstrings: dict[int, str] = field(default_factory=dict)


def stretch(lines: tuple[str, ...], document: Document, *, first: bool) -> Stretch | None:
    """A stretch of `lines` of `document`, shortened until it can stand alone; None when too little is left.

    Args:
        lines: Lines in a row.
        document: The file that they are of.
        first: Whether they are its first.
    """
    return (_python if document.language == "python" else _other)(lines, document, first)


def _python(lines: tuple[str, ...], document: Document, first: bool) -> Stretch | None:
    """With the places that its syntax tree allows."""
    if not first:
        lines = lines[next((n for n, line in enumerate(lines) if _START.match(line)), len(lines)) :]
    base = len(_indent(lines[0])) if lines else 0
    lines = lines[: next((n for n, line in enumerate(lines) if line.strip() and len(_indent(line)) < base), len(lines))]
    for _ in range(3):
        if len(lines) < _FEWEST:
            return None
        if tree := _parsed("\n".join(lines)):
            break
        lines = lines[: max((n for n in range(len(lines) - 1, 0, -1) if _START.match(lines[n])), default=0)]
    else:
        return None
    found = _Places(lines)
    found.look(tree, "function" if base > 4 else "class" if base else "module")
    top = not base and not lines[0].startswith("#!") and (first or lines[0].startswith(("import ", "from ")))
    notes = _notes(lines, "#", found.starts)
    points, tails = tuple(found.points), tuple(found.tails)
    return (
        Stretch(lines, document.language, document.name, top, points, tails, notes, found.docstrings)
        if points
        else None
    )


def _parsed(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(textwrap.dedent(text))
    except (SyntaxError, ValueError):
        return None
    return tree if tree.body else None


class _Places:
    """What the syntax tree of Python tells of its lines."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        self.points: list[Point] = []
        self.tails: list[int] = []
        self.docstrings: dict[int, str] = {}
        self.starts: set[int] = set()
        self._lines = lines
        self._base = len(_indent(lines[0]))

    def look(self, node: ast.AST, scope: str) -> None:
        """Note the places in `node`, whose body is in `scope`."""
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            for number, child in enumerate(getattr(node, name, ())):
                if isinstance(child, ast.stmt):
                    self._statement(child, scope, first=number == 0)
                self.look(child, _SCOPES.get(type(child), scope))

    def _statement(self, node: ast.stmt, scope: str, *, first: bool) -> None:
        start, end = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        line = self._lines[start]
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            if first and end > start and self._lines[end].strip() in ('"""', "'''"):
                self.docstrings[end] = _indent(self._lines[end])
            return
        # Not what shares its line with another statement, nor what has to be where it is.
        if line[: self._base + node.col_offset].strip() or line.lstrip().startswith(("elif", "from __future__")):
            return
        decorators = getattr(node, "decorator_list", [])
        above = min([node.lineno, *(decorator.lineno for decorator in decorators)]) - 1
        if above in self.starts:
            return
        self.starts.add(above)
        if start == end and "#" not in line and not line.endswith((":", "\\", ",")) and len(line) < _SHORT_LINE:
            self.tails.append(end)
        if isinstance(node, ast.Import | ast.ImportFrom) and above and self._lines[above - 1].strip():
            return
        while above and _is_comment(self._lines[above - 1], "#") and above - 1 not in self.starts:
            above -= 1
        self.points.append(Point(above, _indent(line), scope, not isinstance(node, _ALONE)))


def _other(lines: tuple[str, ...], document: Document, first: bool) -> Stretch | None:
    """With the places before lines that start after a finished one, outside block comments."""
    points: list[Point] = []
    tails: list[int] = []
    commented = False
    previous = ";" if first else "("
    for number, line in enumerate(lines):
        words = line.strip()
        if words and not commented and _starts(words, previous, document.language):
            indent = _indent(line)
            points.append(Point(number, indent, "function" if indent else "module"))
        if words.endswith(";") and len(line) < _SHORT_LINE and not re.search(r"//|\*|#|--", words) and not commented:
            tails.append(number)
        commented = "/*" in words.rpartition("*/")[2] or (commented and "*/" not in words)
        previous = words
    ends = {n for n, line in enumerate(lines) if not _is_comment(line, "//")} if document.language in _BRACES else set()
    notes = _notes(lines, "//", ends)
    top = first and not lines[0].startswith("#!")
    return Stretch(lines, document.language, document.name, top, tuple(points), tuple(tails), notes) if points else None


def _starts(words: str, previous: str, language: str) -> bool:
    """Whether a line of `words` starts something, after a line of `previous`."""
    if language == "json":
        return bool(_ENTRY.match(words)) and previous.endswith(("{", ","))
    if language not in _BRACES:
        return not previous.endswith(("\\", "&", ",", "(")) and not words.startswith(("#", "!", "--", "%", ";", "*"))
    if previous.startswith(("enum", "typedef enum")):
        return False
    finished = not previous or previous.endswith((";", "{", "}", "*/")) or previous.startswith("#")
    opens = words.startswith(("*", "#", "{", "else", "case", ")", "}", "&", "|", "\\", "//", "/*"))
    return finished and not opens and not previous.endswith("\\")


def _notes(lines: tuple[str, ...], sign: str, starts: set[int]) -> tuple[int, ...]:
    """The comment lines right above `starts`, which are no part of a string."""
    return tuple(
        n - 1
        for n in sorted(starts)
        if n and _is_comment(lines[n - 1], sign) and len(lines[n - 1]) < _SHORT_LINE and lines[n - 1][-1].isalpha()
    )


def _is_comment(line: str, sign: str) -> bool:
    return line.lstrip().startswith(sign + " ")


def _indent(line: str) -> str:
    return _INDENT.match(line).group()  # type: ignore[union-attr]
