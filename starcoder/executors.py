"""Where the tasks of a long job run: here, on a Ray cluster, or under Slurm, with datatrove's executors.

A job is a list of stages, a stage a datatrove pipeline that runs once for each of its tasks. A task that has ended
leaves a marker in the job's folder: a job that is started again runs only what is missing, in whichever executor.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

from datatrove.executor import LocalPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger
from tqdm import tqdm
from typing_extensions import override

from starcoder.errors import UserError


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
            except BrokenProcessPool:
                raise UserError(
                    f"a process of the stage {self.title} died, perhaps for want of memory; "
                    "run again with fewer workers: finished tasks are kept"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)


def start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: a parent that was killed cannot tell its workers to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


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
