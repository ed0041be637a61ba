import platform
import re
import struct
import sys
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation import isolation
from starcoder.evaluation.isolation import Isolation, choose, missing, probe
from starcoder.evaluation.jail import cell as cells
from starcoder.evaluation.jail import seccomp
from starcoder.evaluation.jail import worker as workers
from starcoder.evaluation.jail.cell import ROLES, Cell
from starcoder.evaluation.jail.disks import Disks
from starcoder.evaluation.program import Program
from starcoder.evaluation.sandbox import Sandbox, run

ALLOW, EPERM, NO_SUCH_CALL, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
X86, ARM = 0xC000003E, 0xC00000B7


@pytest.fixture
def fresh() -> object:
    """Nothing remembered of this machine, before and after."""
    isolation._missing.cache_clear()
    yield
    isolation._missing.cache_clear()


def test_levels_are_in_order() -> None:
    none, limits, seccomp_, landlock, namespaces = Isolation
    assert none < limits < seccomp_ < landlock < namespaces
    assert namespaces > "landlock" >= landlock
    assert not limits <= none
    assert sorted([landlock, none, namespaces, limits]) == [none, limits, landlock, namespaces]


def test_offered_levels_work_and_the_others_say_why() -> None:
    offered = probe()
    assert offered[:2] == [Isolation.NONE, Isolation.LIMITS]
    for level in offered:
        result = run(Program("def f(): return 1", "assert f() == 1"), isolation=level)
        assert result.passed, result
        assert result.isolation == level
    for level in set(Isolation) - set(offered):
        assert missing(level)
        with pytest.raises(UserError, match=f"isolation {level} is not offered here: "):
            choose(level)


def test_an_environment_behind_links_is_found(tmp_path: Path) -> None:
    (tmp_path / "real").symlink_to(sys.prefix)
    (tmp_path / "link").symlink_to("real")
    for level in probe():
        with Sandbox(1, level, python=str(tmp_path / "link" / "bin" / Path(sys.executable).name)) as sandbox:
            assert sandbox.submit(Program("import sys\ndef f(): return 1", "assert f() == 1")).result().passed


def test_no_level_is_chosen_below_landlock(monkeypatch: pytest.MonkeyPatch, fresh: object) -> None:
    monkeypatch.setattr(isolation, "_failure", lambda command: "Function not implemented")
    with pytest.raises(
        UserError, match=r"no Landlock .*: Function not implemented: .* ask for isolation limits by name"
    ):
        choose(None)
    assert choose("limits") is Isolation.LIMITS


def test_other_systems_are_told_what_to_do(monkeypatch: pytest.MonkeyPatch, fresh: object) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    for level in (None, *Isolation):
        with pytest.raises(UserError, match="the sandbox needs Linux, this is darwin: use a container"):
            choose(level)


def test_an_unknown_level_lists_those_that_there_are() -> None:
    with pytest.raises(
        UserError, match="isolation docker is unknown: choose from none, limits, seccomp, landlock, name"
    ):
        Sandbox(isolation="docker")


def test_files_are_shut_away_at_landlock_and_open_below() -> None:
    look = Program("print(open('/etc/passwd').read())")
    assert "root:" in run(look, isolation="limits").stdout
    result = run(look, isolation="landlock")
    assert result.stdout == ""
    assert result.detail.startswith("PermissionError")


def test_its_own_memory_is_no_file_at_any_level() -> None:
    code = """
import opcode, os, sys, types
os.symlink(os.sep.join(["/proc/self", "mem"]) if LINK else "x", "link")
memory = os.open("link" if LINK else "/proc/self/mem", os.O_RDWR)
def f(x):
    frame = sys._getframe(1)
    start = id(frame.f_code) + types.CodeType.__basicsize__
    for offset in range(frame.f_lasti + 2, len(frame.f_code.co_code) - 4, 2):
        os.pwrite(memory, bytes([opcode.opmap["NOP"], 0]), start + offset)
    return 1
"""
    tests = "x = f(3)\nassert x == 9\nassert x * x == 81\nx = None"
    for level in probe()[1:]:
        with Sandbox(1, level) as sandbox:
            for link in (False, True):
                result = sandbox.submit(Program(code.replace("LINK", str(link)), tests, entry_point="f")).result()
                assert not result.passed, (level, link)


def test_bubblewrap_is_tried_with_the_options_of_a_worker(monkeypatch: pytest.MonkeyPatch, fresh: object) -> None:
    tried: list[list[str]] = []
    monkeypatch.setattr(isolation, "bubblewrap", lambda: "/usr/bin/bwrap")
    monkeypatch.setattr(isolation, "_failure", tried.append)
    assert missing(Isolation.NAMESPACES) is None
    command = workers.namespaces((), "/tmp/starcoder-sandbox")
    assert tried[0][: len(command)] == command
    assert "--unshare-pid" in command


def test_what_a_worker_says_when_it_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(workers, "namespaces", lambda *_: ["sh", "-c", "echo hm >&2; echo no name spaces >&2; exit 1"])
    worker = workers.Worker("namespaces", sys.executable, (), (), str(tmp_path / "0"))
    with pytest.raises(UserError, match="the sandbox's worker does not start: no name spaces"):
        worker.wait_ready()
    worker.close()


def test_who_may_not_read_what_a_user_may_not_gives_no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = object.__new__(Cell)
    cell._isolation, cell._users, cell.folder = "landlock", list(range(20_000, 20_000 + len(ROLES))), "/tmp/x"
    cell.disks = object.__new__(Disks)
    cell.disks.shared = False
    monkeypatch.setattr(cells, "reachable", lambda path: False)
    for held, (user, search) in {True: (20_000, True), False: (None, False)}.items():
        monkeypatch.setattr(cells, "holds", lambda *_, held=held: held)
        jail = cell.confinement("whole", (), ("/root/python",))
        assert (jail.user, jail.search) == (user, search)


@pytest.mark.parametrize(("machine", "architecture", "column"), [("x86_64", X86, 0), ("aarch64", ARM, 1)])
def test_the_filter_refuses_what_it_names_and_no_more(
    monkeypatch: pytest.MonkeyPatch, machine: str, architecture: int, column: int
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    code = seccomp.Filter(same_user=False, signals=True, protect=77, truncate=True).program()
    refused = {pair[column] for pair in seccomp._REFUSED.values()} - {None}
    for number in refused:
        assert _verdict(code, architecture, number) == EPERM
    partly = {seccomp._CLONE3, seccomp._SOCKETPAIR, seccomp._PRLIMIT, seccomp._AFFINITY, seccomp._PIDFD_SEND}
    for number in set(range(457)) - refused - {pair[column] for pair in partly}:
        assert _verdict(code, architecture, number) == ALLOW, number
    assert _verdict(code, X86 + ARM - architecture, 0) == KILL
    assert _verdict(code, architecture, 457) == _verdict(code, architecture, 0x40000029) == NO_SUCH_CALL


def test_the_filter_looks_at_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    code = seccomp.Filter(same_user=True, signals=True, protect=77, truncate=False).program()
    clone, socketpair, kill, tgkill, prlimit, chmod, truncate = 56, 53, 62, 234, 302, 90, 76
    assert _verdict(code, X86, clone, 0x01200011) == ALLOW  # as fork does
    assert _verdict(code, X86, clone, 0x10000000) == EPERM  # a name space of users
    assert _verdict(code, X86, 435) == NO_SUCH_CALL  # clone3
    assert _verdict(code, X86, socketpair, 1, 0x80001) == ALLOW
    assert _verdict(code, X86, socketpair, 1, 2) == EPERM  # datagrams
    assert _verdict(code, X86, socketpair, 2, 1) == EPERM  # the internet
    for target in (77, -77, -1):
        assert _verdict(code, X86, kill, target, 9) == EPERM
    assert _verdict(code, X86, kill, 78, 9) == ALLOW
    assert _verdict(code, X86, tgkill, 77, 77, 9) == EPERM
    assert _verdict(code, X86, prlimit, 0) == ALLOW
    assert _verdict(code, X86, prlimit, 77) == EPERM
    assert _verdict(code, X86, chmod) == 0x00050000  # does nothing, and says that all went well
    assert _verdict(code, X86, truncate) == EPERM
    quiet = seccomp.Filter(same_user=True, signals=False, protect=0, truncate=True).program()
    assert _verdict(quiet, X86, kill, 5) == _verdict(quiet, X86, tgkill, 5) == EPERM
    assert _verdict(quiet, X86, kill, 0) == _verdict(quiet, X86, truncate) == ALLOW


@pytest.mark.parametrize(
    ("header", "column"), [("x86_64-linux-gnu/asm/unistd_64.h", 0), ("asm-generic/unistd.h", 1)], ids=["x86_64", "arm"]
)
def test_call_numbers_are_the_kernels(header: str, column: int) -> None:
    path = Path("/usr/include") / header
    if not path.is_file():
        pytest.skip(f"{path} is not installed")
    found = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", path.read_text())
    numbers = {name: int(number) for name, number in found}
    tables = {**seccomp._REFUSED, **seccomp._METADATA, "clone": seccomp._CLONE, "kill": seccomp._KILL}
    tables |= {
        "prctl": seccomp._PRCTL,
        "prlimit64": seccomp._PRLIMIT,
        "tgkill": seccomp._TGKILL,
        "fcntl": seccomp._FCNTL,
    }
    for name, pair in tables.items():
        if name in numbers:
            assert pair[column] == numbers[name], name


def _verdict(code: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a filter says to a call: a machine for the instructions that it uses."""
    data = struct.pack("=II8x", number, architecture)
    data += b"".join(struct.pack("=q", argument) for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6])
    place, accumulator = 0, 0
    while True:
        operation, true, false, operand = struct.unpack_from("=HBBI", code, place * 8)
        place += 1
        if operation == 0x06:
            return operand
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x54:
            accumulator &= operand
        else:
            holds = {0x15: accumulator == operand, 0x25: accumulator > operand, 0x45: bool(accumulator & operand)}
            place += true if holds[operation] else false
