import csv
import shutil
import subprocess
from pathlib import Path

import pytest

from starcoder.corpus.languages import THRESHOLDS, Thresholds, language_of, language_of_content

ORACLE = Path(__file__).parents[2] / "../shared/data/stack-filters/filters.csv"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@pytest.mark.skipif(not ORACLE.exists(), reason="the table of the released preprocessing is not here")
def test_table_equals_the_released_one() -> None:
    with ORACLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["include"] == "1"]
    expected = {
        (row["language"], row["extension"]): Thresholds(
            line=int(row["long_line_threshold"]) if row["long_line_threshold"].isdigit() else None,
            alnum=_number(row["alphanumeric_threshold"]),  # "remove" and remarks mean that there is no rule
            alpha=_number(row["alphabetic_threshold"]),
            xml=row["xml_filter"] == "1",
        )
        for row in rows
    }
    assert len(rows) == 267
    assert expected == THRESHOLDS


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.py", ("python", "py")),
        ("A.PY", ("python", "py")),
        ("x.tar.cpp", ("c++", "cpp")),
        ("include/x.h", ("c", "h")),
        ("x.h++", ("c++", "h++")),
        ("t/basic.t", ("perl", "t")),
        ("FindX.cmake", ("cmake", "cmake")),
        ("Makefile", ("makefile", "")),
        ("src/GNUmakefile", ("makefile", "")),
        ("Makefile.txt", ("makefile", "txt")),
        ("Makefile.cmake", ("makefile", "cmake")),
        ("rules.mk", ("makefile", "mk")),
        ("Dockerfile", ("dockerfile", "")),
        ("Dockerfile.1", ("dockerfile", "1")),
        ("base.dockerfile", ("dockerfile", "dockerfile")),
        ("makefile.py", ("python", "py")),
        ("dockerfile.json", ("json", "json")),
        ("requirements.txt", None),
        ("CMakeLists.txt", None),
        ("man/git.1", None),
        ("page.mustache", None),
        ("LICENSE", None),
        ("stubs/x.pyi", None),
        ("core.pyx", None),
        (".gitignore", None),
        ("Makefile.am", None),
        ("py", None),
    ],
)
def test_language_of(path: str, expected: tuple[str, str] | None) -> None:
    assert language_of(path) == expected


def test_every_row_can_be_reached() -> None:
    names = {"makefile": "Makefile", "dockerfile": "Dockerfile"}
    for language, extension in THRESHOLDS:
        path = names.get(language, "file") + (f".{extension}" if extension else "")
        assert language_of(path) == (language, extension)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("#!/usr/bin/python", ("python", "py")),
        ("#!/usr/bin/env python3.11\n", ("python", "py")),
        ("#! /usr/bin/env -S FOO=bar PyPy3 -u\r\n", ("python", "py")),
        ("#!/bin/sh", ("shell", "sh")),
        ("#!/bin/bash -eu", ("shell", "sh")),
        ("#!/usr/bin/env zsh", ("shell", "sh")),
        ("#!/bin/csh -f", ("tcsh", "tcsh")),
        ("#!/usr/bin/perl5.30 -w", ("perl", "pl")),
        ("#!/usr/bin/perl5.36-x86_64-linux-gnu", ("perl", "pl")),
        ("#!/usr/bin/env ruby", ("ruby", "rb")),
        ("#!/usr/bin/env node", ("javascript", "js")),
        ("#!/usr/bin/env -S deno run", ("typescript", "ts")),
        ("#!/usr/bin/php", ("php", "php")),
        ("#!/usr/bin/lua5.4", ("lua", "lua")),
        ("#!/usr/bin/tclsh8.6", ("tcl", "tcl")),
        ("#!/usr/bin/env Rscript", ("r", "r")),
        ("#!/usr/bin/awk -f", ("awk", "awk")),
        ("#!/usr/bin/make -f", ("makefile", "")),
        ("#!/usr/bin/env runhaskell", ("haskell", "hs")),
        ("#!python", ("python", "py")),
        ("# -*- Python -*-", ("python", "py")),
        ("! -*- f90 -*-", ("fortran", "f90")),
        ("\n; -*- coding: utf-8; Mode: Emacs-Lisp; fill-column: 80 -*-", ("emacs-lisp", "el")),
        ("#!/bin/sh\n# -*-tcl-*- \\\nexec tclsh", ("tcl", "tcl")),
        ("// -*- mode: c++ -*-", ("c++", "cpp")),
        ("#!/bin/sh\n# vim: set sw=4 filetype=perl :", ("perl", "pl")),
        ("text\n" * 1000 + "# vi:ft=ruby\n", ("ruby", "rb")),
        ("/* vim600: ft=c: */", ("c", "c")),
        ("", None),
        ("#!", None),
        ("#!/usr/bin/env", None),
        ("#!/usr/bin/unheard", None),
        ("text #!/bin/sh", None),
        ("\n#!/bin/sh", None),
        ("# -*- coding: utf-8 -*-", None),
        ("# -*- python", None),
        ("\n\n# -*- python -*-", None),
        ("text\n" * 10 + "# vim: ft=ruby\n" + "text\n" * 10, None),
        ("see vim: the filetype=python option of novim", ("python", "py")),  # as Vim itself takes it
        ("-*-" * 5000 + ";" * 5000, None),
    ],
)
def test_language_of_content(content: str, expected: tuple[str, str] | None) -> None:
    assert language_of_content(content.encode()) == expected


def test_language_of_content_of_real_scripts() -> None:
    """The scripts among the programs of this machine, by what `file` says about them."""
    if not shutil.which("file"):
        pytest.skip("the program `file`, the reference, is not installed")
    programs = [path for path in Path("/usr/bin").iterdir() if path.is_file() and path.stat().st_size < 100_000]
    contents = {path: path.read_bytes() for path in programs}
    scripts = [path for path in programs if contents[path].startswith(b"#!")]
    done = subprocess.run(["file", "-b", "-L", "--", *scripts], capture_output=True, text=True, check=True)
    names = {"Python": "python", "POSIX shell": "shell", "Bourne-Again shell": "shell", "Perl": "perl"}
    checked = 0
    for path, said in zip(scripts, done.stdout.splitlines(), strict=True):
        expected = next((names[name] for name in names if said.startswith(f"{name} script")), None)
        found = language_of_content(contents[path])
        assert not expected or (found and found[0] == expected), path
        checked += expected is not None
    assert checked


def test_every_language_of_content_is_a_row() -> None:
    known = [language_of_content(f"-*- {language} -*-".encode()) for language, _ in THRESHOLDS]
    assert {key for key in known if key} <= set(THRESHOLDS)
    assert {"python", "c++", "makefile", "typescript"} < {key[0] for key in known if key}
