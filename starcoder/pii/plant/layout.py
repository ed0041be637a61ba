"""Brings templates into the syntax of a language: comments, strings that hold a sheet, indentation."""

import re
from random import Random

from starcoder.pii.plant.stretch import Point, Stretch

# How a comment starts, and ends where it has to: a line each, or a block.
_COMMENTS = """
# : python shell yaml ruby perl r makefile dockerfile cmake toml elixir julia powershell tcl tcsh awk coffeescript env
# : ini hosts codeowners nginx git log csv
//: c c++ cuda java javascript typescript go rust c-sharp kotlin scala dart groovy glsl php protocol-buffer solidity
//: thrift zig antlr f-sharp systemverilog
--: sql lua haskell ada elm vhdl agda idris
; : common-lisp emacs-lisp scheme clojure assembly racket
% : tex matlab erlang prolog mathematica
! : fortran
' : visual-basic
.. : restructuredtext
REM : batchfile
<!-- -->: html xml xslt markdown rmarkdown
(* *): ocaml pascal standard-ml isabelle
/* */: css yacc
"""
COMMENTS: dict[str, tuple[str, str]] = {}
"""Language → how a comment starts and ends; JSON has none."""
for _row in _COMMENTS.strip().splitlines():
    _signs, _, _languages = _row.partition(":")
    _start, _, _end = _signs.strip().partition(" ")
    COMMENTS.update(dict.fromkeys(_languages.split(), (_start, _end)))

_STATEMENTS = """
python: python
c: c c++ cuda
js: javascript typescript coffeescript
java: java kotlin scala c-sharp groovy
shell: shell
json: json
yaml: yaml
sql: sql
xml: xml html
markdown: markdown restructuredtext rmarkdown
"""
STATEMENTS = {
    language: row.partition(": ")[0]
    for row in _STATEMENTS.strip().splitlines()
    for language in row.partition(": ")[2].split()
}
"""Language → the place of its statements or entries."""

SHEETS = (
    *("env", "ini", "yaml", "hosts", "codeowners", "git", "sql"),
    *("nginx", "log", "xml", "toml", "csv", "json", "shell"),
)
"""Places whose rows make a file of their own, or the text in a string."""

# Kind of place → (how a statement starts, the scopes that it is written in); others may stand anywhere.
_SCOPES = {
    "python": (
        (re.compile("__"), "module"),
        (re.compile(r"self\."), "function"),
        (re.compile("class |def "), "module class"),
        (re.compile(r"[a-z]\w*\.|\w+\(|assert |[a-z_]+ = [\w.]+\(|\w+\["), "module function"),
    ),
    "c": (
        (re.compile("#|MODULE"), "module"),
        (re.compile("static|const"), "module function"),
        (re.compile(""), "function"),
    ),
    "js": ((re.compile("import|module"), "module"),),
}
_OF_FILES = re.compile(r"(?i)author|copyright|\(c\)|©|maintain|created by|written by|original|spdx|translation")
_SAMPLES = ("SAMPLE", "TEXT", "config", "example", "data", "content", "EXPECTED", "raw", "fixture", "document")


def indented(text: str, indent: str) -> str:
    """`text` with `indent` before each of its lines that is not empty, or the first one of a long string."""
    if '"""' in text:
        return indent + text
    return "\n".join(indent + line if line else line for line in text.split("\n"))


def commented(text: str, language: str, indent: str, random: Random) -> str:
    """`text` as a comment of `language`; of several lines, a block where the language has blocks."""
    start, end = COMMENTS[language]
    lines = text.split("\n")
    if start == "//" and (len(lines) > 2 or random.random() < 0.25):
        if len(lines) == 1:
            return f"{indent}/* {text} */"
        return "\n".join([f"{indent}/*", *(f"{indent} * {line}".rstrip() for line in lines), f"{indent} */"])
    if end and len(lines) > 1:
        return "\n".join([f"{indent}{start}", *(f"{indent}  {line}".rstrip() for line in lines), f"{indent}{end}"])
    ending = f" {end}" if end else ""
    return "\n".join(f"{indent}{start} {line}".rstrip() + ending for line in lines)


def tail(line: str, comment: str, language: str) -> str:
    """`line` with `comment`, which starts with #, after it."""
    start, end = COMMENTS[language]
    return f"{line}  {start}{comment[1:]}" + (f" {end}" if end else "")


def sheet(rows: list[str], language: str, indent: str, random: Random) -> str:
    """`rows` as text inside a file of `language`: in a string of Python, a fence of Markdown."""
    text = "\n".join(rows)
    if language == "python":
        return f'{indent}{random.choice(_SAMPLES)} = """\\\n{text}\n"""'
    return f"```\n{text}\n```\n"


def fits(text: str, place: str, point: Point) -> bool:
    """Whether a template of `place` reads well at `point`."""
    if place in ("header", "docstring", "tail", "note"):
        return True
    if place == "comment":
        return not (point.scope == "function" and _OF_FILES.search(text))
    pattern, scopes = next(((p, s) for p, s in _SCOPES.get(place, ()) if p.match(text)), (None, ""))
    return point.statement and (pattern is None or point.scope in scopes)


def header(text: str, host: Stretch, random: Random) -> str:
    """A header for `host`: a comment, or in Python also a docstring."""
    quoted = '"' in host.lines[0] or '"' in text or "\\" in text
    if host.language == "python" and not quoted and random.random() < 0.35:
        return f'"""{text}"""\n' if "\n" not in text else f'"""\n{text}\n"""\n'
    blank = "" if _is_comment(host.lines[0]) and random.random() < 0.5 else "\n"
    return commented(text, host.language, "", random) + blank


def _is_comment(line: str) -> bool:
    return not line or line.startswith(("#", "//", "/*"))
