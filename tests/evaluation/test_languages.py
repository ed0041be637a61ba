"""Other languages in the sandbox: right and wrong programs, those that leave early, loop, hoard or are none."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.languages import LANGUAGES, Toolchain, missing
from starcoder.evaluation.program import Limits, Program, Status
from starcoder.evaluation.sandbox import Sandbox
from tests.evaluation.programs import EXAMPLES

LIMITS = Limits(timeout=10.0, memory_mb=1024)
TOOL = Toolchain("tool", "Tool", "program.tool", ("tool",), ("", "\nLEFT RIGHT"), "Debian: tool-bin")
VERDICTS = {
    "right": Status.PASSED,
    "wrong": Status.FAILED,
    "leave": Status.EXITED_EARLY,
    "loop": Status.TIMED_OUT,
    "hoard": Status.OUT_OF_MEMORY,
    "broken": Status.FAILED,
}
CPP_HEAD = "\n#undef NDEBUG\n#include <cassert>\n"
SLOW = ("go", "rkt", "scala", "ts")


@pytest.mark.parametrize("language", EXAMPLES)
def test_verdicts(language: str) -> None:
    """Right, wrong and broken programs of the slow languages are in MultiPL-E's tests."""
    if reason := missing([language]).get(language):
        pytest.skip(reason)
    expected = {case: status for case, status in VERDICTS.items() if language not in SLOW or case in ("leave", "loop")}
    if language == "lua":  # luaunit stumbles over the error that has no memory left for its message
        expected["hoard"] = Status.FAILED
    with Sandbox(workers=2) as sandbox:
        futures = {case: sandbox.submit(_program(language, case)) for case in expected}
        results = {case: future.result() for case, future in futures.items()}
    told = {case: f"{result.detail} | {result.stderr[-300:]}" for case, result in results.items()}
    assert {case: result.status for case, result in results.items()} == expected, told


@pytest.mark.parametrize(
    ("language", "before", "body"),
    [
        ("cpp", "#define NDEBUG\n", "return 2;"),
        ("sh", "set() { :; }\n", "echo 2"),
    ],
)
def test_what_tests_rely_on_is_put_back(language: str, before: str, body: str) -> None:
    if reason := missing([language]).get(language):
        pytest.skip(reason)
    example = EXAMPLES[language]
    with Sandbox(workers=1) as sandbox:
        result = sandbox.submit(Program(before + example.head + body, example.tail, language, limits=LIMITS)).result()
    assert result.status is Status.FAILED, result


def test_the_mark_stays_in_one_piece_whatever_is_printed_beside_it() -> None:
    if reason := missing(["cpp"]).get("cpp"):
        pytest.skip(reason)
    code = """
#include <iostream>
#include <cstdio>
#include <string>
int main() {
    std::ios::sync_with_stdio(false);
    for (int i = 0; i < 5000; i++) std::cout << "aaaaaaaaaa" << '\\n';
    printf("%s", std::string(4096 - 5, 'x').c_str());
"""
    with Sandbox(workers=1) as sandbox:
        assert sandbox.submit(Program(code, "}", "cpp", limits=LIMITS)).result().passed


def test_a_folder_that_may_not_be_searched_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", closed)
    assert replace(TOOL, folders=("/home/other",)).readable == ()


def _program(language: str, case: str) -> Program:
    example = EXAMPLES[language]
    limits = replace(LIMITS, timeout=0.5) if case == "loop" else LIMITS
    return Program(example.head + getattr(example, case), example.tail, language, limits=limits)


@pytest.mark.parametrize("language", EXAMPLES)
def test_end_marker(language: str) -> None:
    """It comes once, its halves apart, behind all that the tests have; nothing of the tests is lost."""
    toolchain, tests = LANGUAGES[language], EXAMPLES[language].tail
    marked = toolchain.with_end_marker(tests, "<<left", "right>>").removeprefix(CPP_HEAD)
    assert marked.count("<<left") == 1
    assert marked.count("right>>") == 1
    assert "<<leftright>>" not in marked
    kept = re.sub(r"\W*(os\.exit\(.*)?\s*\Z", "", tests).replace("\nset -e", "\nbuiltin set -e")
    assert marked.startswith(kept)
    assert marked.index("<<left") > len(kept)


@pytest.mark.parametrize("language", ["cpp", "java", "cs", "scala", "d", "go", "rs", "lua"])
def test_tests_of_another_form_are_refused(language: str) -> None:
    with pytest.raises(UserError, match=rf"{re.escape(LANGUAGES[language].title)} tests do not end with"):
        LANGUAGES[language].with_end_marker("assert f() == 1", "a", "b")


def _install(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_what_is_not_installed_is_named_with_its_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert TOOL.lacks() == "Tool needs tool (Debian: tool-bin)"
    both = replace(TOOL, compile=("toolc", "program.tool"), title="Both")
    assert both.lacks() == "Both needs toolc and tool (Debian: tool-bin)"
    built = replace(TOOL, compile=("toolc",), run=("./program",), title="Built")
    assert built.lacks() == "Built needs toolc (Debian: tool-bin)"


def test_what_is_installed_and_broken_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    _install(tmp_path, "tool", 'test "$1$FLAVOUR" = --versionsweet || { echo "no libtool.so" >&2; exit 3; }')
    broken, works = replace(TOOL, title="Sour"), replace(TOOL, title="Sweet", environment={"FLAVOUR": "sweet"})
    assert broken.lacks() == "Sour does not work: tool --version: no libtool.so (Debian: tool-bin)"
    assert works.lacks() is None


def test_a_sandbox_may_read_the_installation_and_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, shims = tmp_path / "home", tmp_path / "shims"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", str(shims))
    shims.mkdir()
    places = {
        tmp_path / "opt/tool-1.2/bin": tmp_path / "opt/tool-1.2",
        home / "bin": home / "bin",
        home / ".tool/bin": home / ".tool/bin",
        home / ".versions/tool-1.2/bin": home / ".versions/tool-1.2",
    }
    for folder, readable in places.items():
        (shims / "tool").unlink(missing_ok=True)
        (shims / "tool").symlink_to(_install(folder, "tool", "true"))
        assert TOOL.readable == (str(shims / "tool"), str(readable))


def test_what_the_system_has_needs_no_permission() -> None:
    assert replace(TOOL, run=("sh",), folders=("/usr/share", "/etc/hostname", "/nowhere")).readable == (
        "/etc/hostname",
    )


def test_missing_asks_for_the_named_languages_only() -> None:
    assert set(missing(["sh", "cpp"])) <= {"sh", "cpp"}
    assert missing([]) == {}
