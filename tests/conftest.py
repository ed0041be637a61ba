"""Small, real artefacts for all tests: documents of the standard library and their shards, and a whole smoke run."""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings

from starcoder import tokenizer as tokenizers
from starcoder.cli import main
from starcoder.corpus.document import Document, write_documents
from starcoder.executors import Execution
from starcoder.training.shards import tokenize
from tests import nursery

ROOT = Path(__file__).parents[1]
VOCAB_SIZE = 512
SMALL_RUN = ("smoke", "--steps", "40", "--max_bytes", "1000000", "--devices", "2")
HIDDEN_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
"""What Python does not show, unless told to."""
LONGEST = (
    "smoke/test_kill.py",
    "test_readme.py",
    "test_cli.py",
    "training/test_preemption.py",
    "training/planner/test_trace.py",
    "training/test_parallel.py",
    "training/planner/test_plan.py",
    "smoke/test_run.py",
)
"""Files of a good half minute or more."""
settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: one of them at the end would leave the other workers without work."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


@dataclass(frozen=True)
class Tiny:
    """Folders of the small chain."""

    corpus: Path
    tokenizer: Path
    train: Path
    validation: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny")
    chain = Tiny(root / "corpus", root / "tokenizer", root / "shards" / "train", root / "shards" / "validation")
    documents = [
        Document("cpython", path.name, "python", "py", ("PSF-2.0",), path.stat().st_size, path.read_text())
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))
    ]
    chain.corpus.mkdir()
    for split, part in (("train", documents[2:]), ("validation", documents[:2])):
        write_documents(chain.corpus, split, part)
    tokenizers.train((document.content for document in documents), VOCAB_SIZE).save(chain.tokenizer)
    for split, folder in (("train", chain.train), ("validation", chain.validation)):
        tokenize(chain.corpus, chain.tokenizer, folder, split=split, execution=Execution(workers=1))
    return chain


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a short smoke run has ended, sharded over two processes: `build/smoke` with 1 MB of corpus.

    It has a HOME of its own, in which nothing must appear. One of pytest's workers runs it, each gets a copy.
    """
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    ended = session / "smoke-run"
    with (session / "smoke-run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ended.exists():
            root = tmp_path_factory.mktemp("running")
            (root / "recipes").symlink_to(ROOT / "recipes")
            (root / "home").mkdir()
            starcoder(root, *SMALL_RUN, check=True, begin=start)
            root.rename(ended)
    return Path(shutil.copytree(ended, tmp_path_factory.mktemp("copied") / "checkout", symlinks=True))


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """What runs the command line as `starcoder` does, but in this process: without the seconds that imports take.

    For what ends before anything is trained. Environment and random numbers are left as they were.
    """
    from lightning.pytorch.utilities.seed import isolate_rng

    def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        capfd.readouterr()
        code = None
        with patch.dict(os.environ), isolate_rng(include_cuda=False), warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("default")
            for hidden in HIDDEN_WARNINGS:
                warnings.simplefilter("ignore", hidden)
            try:
                main(args)
            except SystemExit as stop:
                code = stop.code
        out, errors = capfd.readouterr()
        errors += "".join(f"{warning.message}\n" for warning in shown)
        return subprocess.CompletedProcess(args, int(code or 0), out, errors)

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    """Start the command line in `folder`, in an interpreter of its own: `tests.nursery.start` takes less time."""
    # What a shell runs in the background ignores Ctrl-C, and so do its children, unless told otherwise.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = [sys.executable, "-c", program + "from starcoder.cli import main; main()", *args]
    environment = os.environ | nursery.ENVIRONMENT
    environment.pop("MPLCONFIGDIR", None)
    if (folder / "home").is_dir():
        environment["HOME"] = str(folder / "home")
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def starcoder(
    folder: Path,
    *args: str,
    timeout: float = 300,
    check: bool = False,
    begin: Callable[..., nursery.Process | subprocess.Popen[str]] = nursery.start,
) -> subprocess.CompletedProcess[str]:
    """Run the command line in `folder` to its end; with `begin=start` in an interpreter of its own."""
    result = nursery.end(begin(folder, *args), timeout)
    assert not check or result.returncode == 0, result.stderr
    return result
