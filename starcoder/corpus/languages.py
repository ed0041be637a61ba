"""Which file is in which language, and how strictly each kind of file is filtered (paper §5.1).

The paper's annotators looked at files of about 300 extensions and set thresholds for each; the outcome has 267 included
rows (one of them twice). The table below states them in one line a language: `ext` alone has the default thresholds,
`ext[rule=value,…]` changes some, `off` switches a rule off, `-` stands for a file without extension.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a file of one (language, extension) must satisfy; None switches a rule off.

    Attributes:
        line: Longest line, in characters. Where it is off, the mean line length is not looked at either.
        alnum: Least share of alphanumeric characters.
        alpha: Least share of letters.
        xml: Whether a file that starts as XML is left out.
    """

    line: int | None = 1000
    alnum: float | None = 0.25
    alpha: float | None = None
    xml: bool = True


_TABLE = """
ada: ada adb ads[alpha=0.25]
agda: agda
alloy: als
antlr: g4
applescript: applescript scpt
assembly: a51 asm[line=off] nasm
augeas: aug[alpha=0.25]
awk: auk awk gawk mawk nawk
batchfile: bat cmd
bluespec: bsv[line=off]
c: c h
c++: c++ cc cp cpp cxx h++ hh hpp hxx inl ipp tcc tpp
c-sharp: cake cs cshtml
clojure: boot clj cljc cljs cljx
cmake: cmake[line=off]
coffeescript: _coffee cjsx coffee cson iced
common-lisp: asd lisp lsp ny
css: css
cuda: cu cuh
dart: dart
dockerfile: 1 3 dockerfile mustache -
elixir: ex exs
elm: elm
emacs-lisp: el emacs
erlang: erl escript hrl yrl
f-sharp: fs fsi fsx
fortran: f f03 f08 f90 f95 for fpp
glsl: fp[alpha=0.25] frag fsh[line=500] fshader geom glsl glslv shader vert vsh vshader
go: go
groovy: groovy gtpl gvy
haskell: hs hsc
html: htm html xht xhtml
idris: idr lidr
isabelle: thy
java: java
java-server-pages: jsp
javascript: es6 js jsm pac sjs xsjslib
json: json[line=off,alpha=0.5]
julia: jl
kotlin: kt kts
lean: hlean lean
literate-agda: lagda
literate-coffeescript: litcoffee
literate-haskell: lhs
lua: lua nse wlua
makefile: cmake mak mk txt -
maple: mpl[alpha=0.25]
markdown: markdown[line=off] md[line=off] mkd[line=off] mkdn[line=off] ron[line=off]
mathematica: ma[line=off,alnum=off,alpha=0.25] mathematica mt nb[line=off,alnum=off,alpha=0.25] wl[alpha=0.25]
matlab: matlab[line=off,alpha=0.25]
ocaml: eliom eliomi ml ml4 mli mll mly
pascal: dfm lpr pas
perl: perl pl pm psgi t
php: ctp php phpt
powershell: ps1 psd1 psm1
prolog: prolog yap
protocol-buffer: proto
python: bzl gyp py pyde pyw
r: r[line=off] rd rsx
racket: scrbl
restructuredtext: rst[line=off]
rmarkdown: rmd[line=off]
ruby: builder gemspec jbuilder podspec rabl rake rb rbw ru ruby thor
rust: rs
sas: sas[alnum=off]
scala: sbt scala
scheme: scm[alpha=0.25] sld[alpha=0.25] sps[alpha=0.25]
shell: bash bats command ksh sh tmux tool zsh
smalltalk: st
solidity: sol
sparql: rq sparql
sql: cql db2 ddl pkb pks plb plsql prc[alpha=0.25] sql[line=off] udf
stan: stan
standard-ml: fun sml
stata: ado[line=off] do[line=off] doh mata matah
systemverilog: sv[alpha=0.25] svh vh
tcl: adp tcl tm
tcsh: csh tcsh
tex: bbx[line=off] bib[line=off] cbx[line=off] dtx[line=off] ins[line=off] lbx[line=off] mkii[line=off] mkiv[line=off]
tex: mkvi[line=off] sty[line=off] tex[line=off]
thrift: thrift
typescript: ts tsx
verilog: veo
vhdl: vhd[alpha=0.25] vhdl vhi vho vhw
visual-basic: bas[alpha=0.25] frm[line=off,alnum=off] vb vba vbhtml vbs
xslt: xsl[xml=off] xslt[xml=off]
yacc: y[alpha=0.25] yacc
yaml: yaml[alpha=0.5] yml[alpha=0.5]
zig: zig
"""


def _thresholds(rules: str) -> Thresholds:
    given = dict(rule.split("=") for rule in rules.split(",") if rule)
    number = {name: None if value == "off" else float(value) for name, value in given.items() if name != "xml"}
    line = number.get("line", 1000.0)
    return Thresholds(
        line=None if line is None else int(line),
        alnum=number.get("alnum", 0.25),
        alpha=number.get("alpha"),
        xml=given.get("xml") != "off",
    )


def _parse(table: str) -> dict[tuple[str, str], Thresholds]:
    rows = {}
    for line in table.strip().splitlines():
        language, _, entries = line.partition(": ")
        for extension, rules in re.findall(r"([^\s\[]+)(?:\[(.*?)\])?", entries):
            rows[language, "" if extension == "-" else extension] = _thresholds(rules)
    return rows


THRESHOLDS: dict[tuple[str, str], Thresholds] = _parse(_TABLE)
"""(language, extension) → thresholds; the extension is lower-case and without its dot."""

# These rows mean "Makefile.txt" or "Dockerfile.1": alone, such an extension says nothing about the language.
_ONLY_WITH_NAME = {"dockerfile": {"", "1", "3", "mustache"}, "makefile": {"", "txt", "cmake"}}
_BY_NAME = {"dockerfile": "dockerfile", "makefile": "makefile", "gnumakefile": "makefile"}
_BY_EXTENSION = {
    extension: language for language, extension in THRESHOLDS if extension not in _ONLY_WITH_NAME.get(language, ())
}


def language_of(path: str) -> tuple[str, str] | None:
    """Return the (language, extension) of the table for the file at `path`, or None if the table has no row for it.

    Precedence: the file's name up to its first dot (Makefile, GNUmakefile, Dockerfile), then its last extension. Each
    extension has one language in the table, whatever else uses it: `.h` is C (C++ headers too, as in the paper's data),
    `.t` is Perl, `.cmake` is CMake; `.txt`, `.1`, `.3`, `.mustache` and no extension count only beside those names.
    """
    stem, _, rest = PurePosixPath(path).name.lower().partition(".")
    extension = rest.rpartition(".")[2]
    for language in (_BY_NAME.get(stem), _BY_EXTENSION.get(extension)):
        if language and (language, extension) in THRESHOLDS:
            return language, extension
    return None
