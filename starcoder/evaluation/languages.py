"""How programs of other languages are compiled and run: the toolchains of MultiPL-E's languages (paper §6.2).

The sandbox writes code and tests into one file, compiles it, runs it, and calls it right when it exits with code 0 and
has printed a mark from behind the last test: a program that leaves early with code 0 has not passed. Python is not
among the languages here, the sandbox runs it itself.

Commands and standards are those of MultiPL-E's own scripts, except that Rust is of edition 2021 and D is compiled by
LDC. Options beside them are there for speed: small Java heaps and the first compiler only, no check of TypeScript's own
declarations.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from starcoder.errors import UserError
from starcoder.evaluation.program import Limits

Memory = Literal["address_space", "data", "polled"]

_SYSTEM = ("/usr", "/bin", "/lib", "/lib64")
"""Folders that a sandbox shows anyway."""

_PROBE_SECONDS = 60
_COMPILING = Limits(timeout=30.0, memory_mb=2048)


@dataclass(frozen=True)
class Toolchain:
    r"""What compiles and runs a language's programs.

    Args:
        name: the language, as in `Program.language`.
        title: its name in tables.
        source: file name of the program in the working directory.
        run: command that runs it there, its home directory being the same.
        end: regular expression of what the tests end with, and what stands in its place: the same, with a statement
            that prints LEFT and RIGHT on one line. Empty: the statement comes after everything.
        package: where to get it.
        compile: command that compiles it; None when nothing is compiled.
        environment: variables that it needs.
        memory: the limit that suits it: V8, the JVM and their like reserve far more address space than they use.
        firm: regular expression of what the tests rely on, and what stands in its place lest the program redefine it.
        folders: what it reads outside the system's folders and its own.
        check: command that succeeds when everything is there; empty: `--version` of the first program.
        compile_limits: what the compiler may use.
    """

    name: str
    title: str
    source: str
    run: tuple[str, ...]
    end: tuple[str, str]
    package: str
    compile: tuple[str, ...] | None = None
    environment: dict[str, str] = field(default_factory=dict, hash=False)
    memory: Memory = "address_space"
    firm: tuple[str, str] = ("(?!)", "")
    folders: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    compile_limits: Limits = _COMPILING

    def with_end_marker(self, tests: str, left: str, right: str) -> str:
        """`tests` with a last statement that prints `left + right` on a line of its own.

        The halves are literals of their own: a program that prints its own source does not print the mark.

        Raises:
            UserError: when the tests do not end as MultiPL-E's tests of the language do.
        """
        pattern, replacement = self.end
        statement = replacement.replace("LEFT", left).replace("RIGHT", right)
        firm = re.sub(self.firm[0], lambda _: self.firm[1], tests, flags=re.MULTILINE)
        marked, found = re.subn(rf"{pattern}\s*\Z", lambda _: f"{statement}\n", firm, count=1)
        if not found:
            raise UserError(f"{self.title} tests do not end with {pattern}: is the data MultiPL-E's?")
        return marked

    @property
    def programs(self) -> tuple[str, ...]:
        """Programs that have to be installed; a path with a slash is made by the compiler."""
        first = [command[0] for command in (self.compile, self.run) if command]
        return tuple(dict.fromkeys(program for program in first if "/" not in program))

    @property
    def readable(self) -> tuple[str, ...]:
        """Paths outside the system's folders below which it reads and executes files."""
        homes = [home for program in self.programs if (found := shutil.which(program)) for home in _homes(Path(found))]
        paths = [Path(path) for path in dict.fromkeys((*homes, *self.folders)) if path]
        return tuple(str(path) for path in paths if _exists(path) and not any(map(path.is_relative_to, _SYSTEM)))

    def lacks(self) -> str | None:
        """Why it does not work here and where to get it; None when it works. Asked once in a process."""
        return _lacks(self)


def missing(names: Iterable[str] | None = None) -> dict[str, str]:
    """The languages (all, unless some are named) that cannot run here, each with the reason."""
    chosen = [LANGUAGES[name] for name in (LANGUAGES if names is None else names)]
    with ThreadPoolExecutor() as pool:
        reasons = dict(zip((toolchain.name for toolchain in chosen), pool.map(_lacks, chosen), strict=True))
    return {name: reason for name, reason in reasons.items() if reason}


def javatuples() -> str | None:
    """The library whose tuples some of MultiPL-E's Java programs use: from CLASSPATH, or Debian's."""
    paths = [path for path in os.environ.get("CLASSPATH", "").split(os.pathsep) if "javatuples" in Path(path).name]
    return next((path for path in (*paths, "/usr/share/java/javatuples.jar") if Path(path).is_file()), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # below a folder that this user may not search
        return False


def _homes(program: Path) -> Iterator[str]:
    """The links that lead to a program and the folder that it is installed in, which is never a user's home."""
    yield str(program)
    folder = program.resolve().parent
    prefix = folder.parent if folder.name == "bin" else folder
    home = Path.home()
    yield str(folder if home.is_relative_to(prefix) or prefix.parent == home else prefix)


@cache
def _lacks(toolchain: Toolchain) -> str | None:
    absent = [program for program in toolchain.programs if shutil.which(program) is None]
    if absent:
        return f"{toolchain.title} needs {' and '.join(absent)} ({toolchain.package})"
    command = toolchain.check or (toolchain.programs[0], "--version")
    environment = {**os.environ, **toolchain.environment}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{toolchain.title} does not work: {' '.join(command)}: {error} ({toolchain.package})"
    if done.returncode == 0:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
    return f"{toolchain.title} does not work: {' '.join(command)}: {said[0]} ({toolchain.package})"


def _append(statement: str) -> tuple[str, str]:
    return "", f"\n{statement}"


def _inside(closing: str, statement: str, after: str) -> tuple[str, str]:
    return closing, f"    {statement}\n{after}"


_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ActiveProcessorCount=2", "-Xshare:auto")
_UNDER_J = tuple(f"-J{option}" for option in _JVM)
_JDK_FOLDERS = ("/etc/alternatives", "/etc/java-17-openjdk", "/etc/ssl/certs/java")
_CLASSPATH = {"CLASSPATH": os.pathsep.join((".", javatuples() or "")).rstrip(os.pathsep)}
_RUSTUP = {"RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))}
# The system's linker: the compiler's own is not found where a sandbox's user may not enter the home that it lies in.
_LINKER = ("-C", "link-arg=-fuse-ld=bfd")
_TWO_BRACES = r"\}\s*\}"
_LUA_END = """local failures = lu.LuaUnit.run()
if failures == 0 then io.stdout:write("\\n", "LEFT", "RIGHT", "\\n") end
os.exit(failures == 0)"""
_RUBY_END = """Test::Unit::AutoRunner.need_auto_run = false
exit(false) unless Test::Unit::AutoRunner.run
puts "", "LEFT" + "RIGHT\""""
_RACKET_END = """(require (only-in rackunit/log (test-log end-of-tests)))
(void (end-of-tests #:display? #f #:exit? #t))
(printf "\\n~a~a\\n" "LEFT" "RIGHT")"""
# Mono goes on after a failed Debug.Assert unless a listener throws; a static constructor runs before Main.
_CSHARP_END = """    }
    static Problem() { Debug.Listeners.Clear(); Debug.Listeners.Add(new FailedAssertion()); }
    class FailedAssertion : TraceListener {
        public override void Write(string text) { Console.Error.Write(text); }
        public override void WriteLine(string text) { Console.Error.WriteLine(text); }
        public override void Fail(string text, string more) { throw new Exception("assertion failed " + text); }
    }
}"""
_D_END = r"""{
    import core.stdc.stdio : printf;
    printf("\n%s%s\n", "LEFT".ptr, "RIGHT".ptr);
}"""

_ALL = (
    Toolchain(
        name="cpp",
        title="C++",
        source="program.cpp",
        compile=("g++", "-std=c++17", "-include", "cassert", "-include", "cstdio", "-o", "program", "program.cpp"),
        run=("./program",),
        # In one piece, whatever else is waiting to be written.
        end=_inside(r"\}", r'std::fflush(stdout); std::printf("\n%s%s\n", "LEFT", "RIGHT"); std::fflush(stdout);', "}"),
        firm=(r"\A", "\n#undef NDEBUG\n#include <cassert>\n"),
        package="Debian: g++",
    ),
    Toolchain(
        name="cs",
        title="C#",
        source="program.cs",
        compile=("mcs", "-d:DEBUG", "-r:System.Numerics.dll", "-out:program.exe", "program.cs"),
        run=("mono", "program.exe"),
        end=_inside(_TWO_BRACES, r'Console.WriteLine("\n{0}{1}", "LEFT", "RIGHT");', _CSHARP_END),
        package="Debian: mono-mcs and mono-runtime",
        memory="data",
        folders=("/etc/alternatives", "/etc/mono"),
    ),
    Toolchain(
        name="d",
        title="D",
        source="program.d",
        compile=("ldc2", "-unittest", "-of=program", "program.d"),
        run=("./program", "--DRT-testmode=run-main"),  # else the tests' success ends the program before `main`
        end=(r"\{\s*\}", _D_END),
        package="Debian: ldc",
        folders=("/etc/ldc2.conf",),
    ),
    Toolchain(
        name="go",
        title="Go",
        source="program_test.go",
        # It runs no test yet, but `go vet`, whose complaints count as errors.
        compile=("go", "test", "-o", "program", "-run", "^$", "program_test.go"),
        run=("./program",),
        end=_inside(r"\}", r'fmt.Printf("\n%s%s\n", "LEFT", "RIGHT")', "}"),
        package="Debian: golang-go",
        environment={"GO111MODULE": "off", "GOMAXPROCS": "2", "GOTELEMETRY": "off", "GOTOOLCHAIN": "local"},
        memory="data",
        folders=("/etc/alternatives",),
        check=("go", "version"),
    ),
    Toolchain(
        name="java",
        title="Java",
        source="Problem.java",
        compile=("javac", *_UNDER_J, "-J-Xmx1g", "-encoding", "UTF8", "Problem.java"),
        run=("java", "-ea", *_JVM, "-Xmx512m", "Problem"),
        end=_inside(_TWO_BRACES, r'System.out.println("\n" + "LEFT".concat("RIGHT"));', "    }\n}"),
        package="Debian: default-jdk-headless",
        environment=_CLASSPATH,
        memory="data",
        folders=(*_JDK_FOLDERS, javatuples() or ""),
    ),
    Toolchain(
        name="jl",
        title="Julia",
        source="program.jl",
        run=("julia", "--startup-file=no", "program.jl"),
        end=_append(r'println("\n", "LEFT", "RIGHT")'),
        package="https://julialang.org/downloads",
        memory="data",
    ),
    Toolchain(
        name="js",
        title="JavaScript",
        source="program.js",
        run=("node", "program.js"),
        end=_append(r'console.log("\n" + "LEFT" + "RIGHT");'),
        package="Debian: nodejs",
        memory="data",
    ),
    Toolchain(
        name="lua",
        title="Lua",
        source="program.lua",
        run=("lua", "program.lua"),
        end=(r"os\.exit\(lu\.LuaUnit\.run\(\)\)", _LUA_END),
        package="Debian: lua5.4 and lua-unit",
        folders=("/etc/alternatives",),
        check=("lua", "-e", "require('luaunit')"),
    ),
    Toolchain(
        name="php",
        title="PHP",
        source="program.php",
        run=("php", "-d", "display_errors=stderr", "-d", "memory_limit=-1", "program.php"),
        end=_append(r'echo "\n", "LEFT", "RIGHT", "\n";'),
        package="Debian: php-cli",
        folders=("/etc/alternatives", "/etc/php"),
    ),
    Toolchain(
        name="pl",
        title="Perl",
        source="program.pl",
        run=("perl", "program.pl"),
        end=_append(r'print STDOUT "\n", "LEFT", "RIGHT", "\n";'),
        package="Debian: perl and libtest-deep-perl",
        folders=("/etc/perl",),
        check=("perl", "-MTest::Deep", "-e", "1"),
    ),
    Toolchain(
        name="r",
        title="R",
        source="program.r",
        run=("Rscript", "--vanilla", "program.r"),
        end=_append(r'cat("\n", "LEFT", "RIGHT", "\n", sep = "")'),
        package="Debian: r-base-core",
        folders=("/etc/R", "/etc/alternatives"),
    ),
    Toolchain(
        name="rb",
        title="Ruby",
        source="program.rb",
        run=("ruby", "program.rb"),
        end=_append(_RUBY_END),
        package="Debian: ruby and ruby-test-unit",
        check=("ruby", "-e", "require 'test/unit'; Test::Unit::AutoRunner.need_auto_run = false"),
    ),
    Toolchain(
        name="rkt",
        title="Racket",
        source="program.rkt",
        run=("racket", "program.rkt"),
        end=_append(_RACKET_END),
        package="Debian: racket",
        memory="data",
        folders=("/etc/racket",),
        check=("racket", "-l", "racket/base", "-l", "rackunit"),
    ),
    Toolchain(
        name="rs",
        title="Rust",
        source="program.rs",
        compile=("rustc", "--edition", "2021", "--cap-lints", "allow", *_LINKER, "-o", "program", "program.rs"),
        run=("./program",),
        end=_inside(r"\}", r'print!("\n"); print!("LEFT"); println!("RIGHT");', "}"),
        package="Debian: rustc, or https://rustup.rs",
        environment=_RUSTUP,
        folders=(_RUSTUP["RUSTUP_HOME"],),
    ),
    Toolchain(
        name="scala",
        title="Scala",
        source="program.scala",
        compile=("scalac", *_UNDER_J, "-J-Xmx1g", "-d", ".", "program.scala"),
        run=("scala", *_UNDER_J, "-J-Xmx512m", "-cp", ".", "Problem"),
        end=_inside(_TWO_BRACES, r'println("\n" + "LEFT".concat("RIGHT"))', "    }\n}"),
        package="Debian: scala",
        memory="data",
        folders=_JDK_FOLDERS,
        check=("scalac", "-version"),
    ),
    Toolchain(
        name="sh",
        title="Bash",
        source="program.sh",
        run=("bash", "program.sh"),
        end=_append(r"printf '\n%s%s\n' 'LEFT' 'RIGHT'"),
        firm=(r"^set -e$", "builtin set -e"),
        package="Debian: bash",
    ),
    Toolchain(
        name="swift",
        title="Swift",
        source="program.swift",
        compile=("swiftc", "-o", "program", "program.swift"),
        run=("./program",),
        end=_append(r'print("\nLEFT", terminator: ""); print("RIGHT")'),
        package="https://www.swift.org/install",
        memory="data",
    ),
    Toolchain(
        name="ts",
        title="TypeScript",
        source="program.ts",
        compile=("tsc", "--target", "esnext", "--skipLibCheck", "program.ts"),
        run=("node", "program.js"),
        end=_append(r'console.log("\n" + "LEFT" + "RIGHT");'),
        package="Debian: nodejs and node-typescript, or npm install --global typescript",
        memory="data",
    ),
)

LANGUAGES: dict[str, Toolchain] = {toolchain.name: toolchain for toolchain in _ALL}
