"""Which file is in which language, and how strictly each kind of file is filtered (paper §5.1).

The paper's annotators looked at files of about 300 extensions and set thresholds for each; the outcome has 267 included
rows (one of them twice). The table below states them in one line a language: `ext` alone has the default thresholds,
`ext[rule=value,…]` changes some, `off` switches a rule off, `-` stands for a file without extension.
"""

import re
from dataclasses import dataclass


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
    stem, _, rest = path.rpartition("/")[2].lower().partition(".")
    extension = rest.rpartition(".")[2]
    for language in (_BY_NAME.get(stem), _BY_EXTENSION.get(extension)):
        if language and (language, extension) in THRESHOLDS:
            return language, extension
    return None


# What interpreters, Emacs modes and Vim's file types are called, by the (language, extension) of the table.
_NAMES = """
awk.awk: awk gawk mawk nawk
c.c: c
c++.cpp: c++ cpp
c-sharp.cs: cs csharp
clojure.clj: clojure bb
cmake.cmake: cmake
coffeescript.coffee: coffee
common-lisp.lisp: lisp common-lisp sbcl clisp ecl
css.css: css
dart.dart: dart
dockerfile.: dockerfile
elixir.exs: elixir
emacs-lisp.el: emacs emacs-lisp
erlang.escript: erlang escript
f-sharp.fsx: fsharp
fortran.f90: f90 fortran
go.go: go
groovy.groovy: groovy
haskell.hs: haskell runghc runhaskell
html.html: html
java.java: java
javascript.js: javascript js node nodejs rhino
json.json: json
julia.jl: julia
kotlin.kts: kotlin
lua.lua: lua luajit texlua
makefile.: make makefile gmake
markdown.md: markdown
ocaml.ml: ocaml ocamlrun tuareg
pascal.pas: pascal instantfpc
perl.pl: perl cperl
php.php: php
powershell.ps1: powershell pwsh ps
prolog.prolog: prolog swipl
python.py: python pypy ipython jython micropython
r.r: r rscript
restructuredtext.rst: rst
ruby.rb: ruby jruby macruby rbx
rust.rs: rust
scala.scala: scala
scheme.scm: scheme guile gosh
shell.sh: sh bash dash ash ksh mksh zsh shell-script bats
sql.sql: sql
standard-ml.sml: sml
tcl.tcl: tcl tclsh wish expect jimsh
tcsh.tcsh: csh tcsh
tex.tex: tex latex plaintex
typescript.ts: typescript deno ts-node
yaml.yaml: yaml
"""
_BY_TOOL = {
    name: (language, extension)
    for key, _, names in (line.partition(": ") for line in _NAMES.strip().splitlines())
    for language, _, extension in [key.partition(".")]
    for name in names.split()
}
_INTERPRETER = re.compile(r"#!\s*(?:\S*/env\s+(?:-\S+\s+|\w+=\S*\s+)*)?(?:\S*/)?([^\s/]+)")
_VIM = re.compile(r"(?:^|\s)(?:vim?|ex)[<=>\d]*:.*?\b(?:ft|filetype|syn|syntax)=([\w+-]+)")
_VERSION = re.compile(r"\d[\d.]*(?:-.*)?$")  # python3.11, perl5.36-x86_64-linux-gnu
_VIM_LINES = 5
_LOOKED_AT = 2000  # bytes at either end of a file


def language_of_content(data: bytes) -> tuple[str, str] | None:
    """Return the (language, extension) that a file without extension states for itself, or None.

    Precedence: the mode that it asks Emacs or Vim for, as some scripts begin in another language only to find their
    interpreter; then the interpreter on its first line. The extension is the language's most usual one in the table.
    """
    head = data[:_LOOKED_AT].decode(errors="replace").split("\n")
    tail = data[-_LOOKED_AT:].decode(errors="replace").split("\n")
    matches = [_VIM.search(line) for line in (*head[:_VIM_LINES], *tail[-_VIM_LINES - 1 :])]
    matches.append(_INTERPRETER.match(head[0]))
    names = [*map(_emacs_mode, head[:2]), *(match[1] for match in matches if match)]
    spellings = [spelling for name in map(str.lower, names) for spelling in (name, _VERSION.sub("", name))]
    return next((_BY_TOOL[name] for name in spellings if name in _BY_TOOL), None)


def _emacs_mode(line: str) -> str:
    """`-*- python -*-`, or `-*- coding: utf-8; mode: python -*-`; empty when there is nothing of the kind."""
    inside = line.split("-*-")[1:-1]
    stated = [part.strip() for part in "".join(inside[:1]).split(";")]
    modes = [part[5:].strip() for part in stated if part.lower().startswith("mode:")]
    return (modes or stated)[0]
