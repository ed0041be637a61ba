"""Where the tasks of a long job run: here, on a Ray cluster, or under Slurm, with datatrove's executors.

A job is a list of stages, a stage a datatrove pipeline that runs once for each of its tasks. What the tasks need to
know lies in the job's work folder, from which each process reads it once. A task that has ended leaves a marker there:
a job that is started again runs only what is missing, in whichever executor.
"""

import fcntl
import hashlib
import os
import pickle
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, Literal

from datatrove.executor import LocalPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger
from tqdm import tqdm
from typing_extensions import override

from starcoder.errors import UserError
from starcoder.processes import start_worker
from starcoder.storage import atomic_file, check_replaceable
from starcoder.text import shown

_DECIDING = (
    *("ahocorasick-rs", "datatrove", "detect-secrets", "jupytext", "license-expression", "licenseclassifier"),
    *("polars", "pyarrow", "rensa", "tiktoken", "tokenizers"),
)


@dataclass(frozen=True)
class Execution:
    """Where and how widely the tasks run.

    Attributes:
        executor: `local` processes, a `ray` cluster (the one that RAY_ADDRESS names, or one on this machine), or
            `slurm`, which submits every stage as a job array that waits for the one before it.
        workers: Tasks at a time; by default one a CPU core here, and as many as there are elsewhere.
        memory_gb: Memory of a task on a cluster.
        partition: Partition of Slurm.
        time: Time limit of a task under Slurm.
        environment: Shell command that makes this package importable on a node, such as `source .venv/bin/activate`.
    """

    executor: Literal["local", "ray", "slurm"] = "local"
    workers: int | None = None
    memory_gb: int = 4
    partition: str = ""
    time: str = "24:00:00"
    environment: str | None = None

    def check(self) -> None:
        """Raise UserError for what cannot be."""
        if self.workers is not None and self.workers < 1:
            raise UserError("execution.workers must be at least 1")
        if self.executor == "slurm" and not self.partition:
            raise UserError("the executor slurm needs execution.partition")


HERE = Execution()


@dataclass(frozen=True)
class Stage:
    """A pipeline, and the number of tasks that share its work."""

    name: str
    steps: Sequence[PipelineStep]
    tasks: int = 1


@dataclass(frozen=True)
class Work:
    """The work folder of a job, beside what it makes.

    Attributes:
        output: What the job makes, a folder.
        digest: Changes with whatever the output depends on; the folder of another job is not gone on from.
    """

    output: Path
    digest: str

    @property
    def path(self) -> Path:
        """The folder."""
        return self.output.with_name(f"{self.output.name}.work")

    @property
    def logs(self) -> Path:
        """The executor's logs, statistics and markers."""
        return self.path / "logs"

    @property
    def _marker(self) -> Path:
        return self.path / "digest"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Keep other runs away from the folder until this one ends; what nobody can go on from is removed then.

        Raises:
            UserError: Another run is at work in it, or it is no work folder.
        """
        check_replaceable(self.path, "lock")
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another run is at work in {self.path}: wait for it, or name another output") from None
            try:
                yield
            except KeyboardInterrupt:
                print(f"stopped; the same command goes on from what lies in {shown(self.path)}", file=sys.stderr)
                raise
            finally:
                if not self._marker.exists():
                    shutil.rmtree(self.path)

    def prepare(self, job: object, first: Callable[[], None] = lambda: None) -> None:
        """Put `job` into the folder and call `first`, unless a killed run of the same job has done so before.

        Args:
            job: What the tasks need to know; they get it by `job_of`.
            first: What must be in the folder before the first stage.
        """
        if self._marker.is_file() and self._marker.read_text() == self.digest:
            print(f"going on from what an earlier run left in {shown(self.path)}", file=sys.stderr)
            return
        self.clear(logs=True)
        with atomic_file(self.path / "job.pickle") as partial:
            partial.write_bytes(pickle.dumps(job))
        first()
        with atomic_file(self._marker) as partial:
            partial.write_text(self.digest)

    def clear(self, logs: bool = False) -> None:
        """Remove what the stages left; first of all the marker, for no run can go on from a part of it."""
        self._marker.unlink(missing_ok=True)
        for path in self.path.iterdir():
            if path.is_dir() and (logs or path != self.logs):
                shutil.rmtree(path)
            elif path.is_file() and path.name != "lock":
                path.unlink()


def job_of(work: Work) -> Any:
    """What `prepare` put into the folder; a process reads it once."""
    return _load(work.path, work.digest)


@lru_cache(maxsize=1)
def _load(folder: Path, _digest: str) -> Any:
    return pickle.loads((folder / "job.pickle").read_bytes())


@cache
def code_digest() -> str:
    """Changes with the code of this package, and with the versions of the libraries that decide what it writes."""
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in _DECIDING).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_stages(stages: Iterable[Stage], folder: Path, execution: Execution) -> None:
    """Run the stages in order, each when the one before has ended; under Slurm only submit them.

    Args:
        stages: The job.
        folder: Where logs, statistics and the markers of finished tasks go, in a folder for each stage.
        execution: Where the tasks run.

    Raises:
        UserError: A task died, or the executor cannot be used here.
    """
    before: PipelineExecutor | None = None
    for number, stage in enumerate(stages):
        executor = _executor(stage, folder / f"{number}-{stage.name}", execution, before)
        executor.run()
        if execution.executor != "slurm" and executor.get_incomplete_ranks():
            raise UserError(f"tasks of the stage {stage.name} failed; see {folder / f'{number}-{stage.name}' / 'logs'}")
        before = executor


def _executor(stage: Stage, logs: Path, execution: Execution, before: PipelineExecutor | None) -> PipelineExecutor:
    common: dict[str, Any] = {"pipeline": list(stage.steps), "tasks": stage.tasks, "logging_dir": str(logs.resolve())}
    if execution.executor == "local":
        workers = min(execution.workers or os.cpu_count() or 1, stage.tasks)
        return _Local(**common, workers=workers, title=stage.name)
    everywhere = execution.workers or -1
    if execution.executor == "ray":
        return _ray(common | {"workers": everywhere, "mem_per_cpu_gb": execution.memory_gb})
    return _slurm(common | {"workers": everywhere, "job_name": stage.name, "depends": before}, execution)


class _Local(LocalPipelineExecutor):  # type: ignore[misc]  # datatrove ships no annotations
    """datatrove's local executor, silent, and on a pool that notices when one of its processes dies.

    The original waits for ever for the task of a process that the kernel killed, and takes longer to set up the log of
    a small task than the task itself.
    """

    def __init__(self, *, title: str, **options: Any) -> None:
        super().__init__(**options)
        self.title = title

    @override
    def run(self) -> None:
        ranks = self.get_incomplete_ranks()
        done = self.tasks - len(ranks)
        with tqdm(desc=self.title, total=self.tasks, initial=done, unit="task") as progress:
            for _ in self._run_here(ranks) if self.workers == 1 else self._run_in_pool(ranks):
                progress.update()

    def run_rank(self, rank: int) -> int:
        """Run one task in this process, and mark it as done."""
        logger.disable("datatrove")
        data = None
        for step in deepcopy(self.pipeline):
            data = step(data, rank, self.world_size)
        deque(data or (), maxlen=0)
        self.mark_rank_as_completed(rank)
        return rank

    def _run_here(self, ranks: Sequence[int]) -> Iterable[int]:
        return map(self.run_rank, ranks)

    def _run_in_pool(self, ranks: Sequence[int]) -> Iterable[int]:
        context = get_context("forkserver" if sys.platform == "linux" else "spawn")
        if sys.platform == "linux":
            context.set_forkserver_preload(sorted({type(step).__module__ for step in self.pipeline} | {__name__}))
        with ProcessPoolExecutor(min(self.workers, len(ranks) or 1), context, start_worker) as pool:
            try:
                for future in as_completed([pool.submit(self.run_rank, rank) for rank in ranks]):
                    yield future.result()
            except KeyboardInterrupt:  # a task that is not finished will be done again
                for process in active_children():
                    process.kill()
                raise
            except BrokenProcessPool:
                raise UserError(
                    f"a process of the stage {self.title} died, perhaps for want of memory; "
                    "run again with fewer workers: finished tasks are kept"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)


def _ray(options: dict[str, Any]) -> PipelineExecutor:
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("ray is not installed: pip install 'starcoder-kit[ray]'") from None
    from datatrove.executor.ray import RayPipelineExecutor

    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    return RayPipelineExecutor(**options)


def _slurm(options: dict[str, Any], execution: Execution) -> PipelineExecutor:
    from datatrove.executor.slurm import SlurmPipelineExecutor

    return SlurmPipelineExecutor(
        **options,
        time=execution.time,
        partition=execution.partition,
        mem_per_cpu_gb=execution.memory_gb,
        env_command=execution.environment,
        mail_type="NONE",
    )
