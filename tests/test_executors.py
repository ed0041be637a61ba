from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datatrove.pipeline.base import PipelineStep

from starcoder import executors
from starcoder.errors import UserError
from starcoder.executors import Execution, Stage, Work, code_digest, job_of, run_stages


@dataclass(frozen=True)
class Job:
    number: int


def prepared(work: Work, job: Job, first: Any = lambda: None) -> Work:
    with work.claim():
        work.prepare(job, first)
    return work


def test_a_work_folder_belongs_to_one_job(tmp_path: Path) -> None:
    work = prepared(Work(tmp_path / "out", "a"), Job(1))
    (work.path / "documents").mkdir()
    assert job_of(work) == Job(1)
    assert (prepared(work, Job(1)).path / "documents").exists()
    other = prepared(Work(tmp_path / "out", "b"), Job(2))
    assert not (other.path / "documents").exists()
    assert job_of(other) == Job(2)


def test_a_run_killed_in_its_preparations_begins_anew(tmp_path: Path) -> None:
    work, calls = Work(tmp_path / "out", "a"), []

    def killed() -> None:
        calls.append("killed")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(work, Job(1), killed)
    prepared(work, Job(1), lambda: calls.append("first"))
    prepared(work, Job(1), lambda: calls.append("again"))
    assert calls == ["killed", "first"]


def test_only_one_run_is_at_work_in_a_folder_and_only_in_its_own(tmp_path: Path) -> None:
    work = Work(tmp_path / "out", "a")
    with work.claim(), pytest.raises(UserError, match="another run is at work"), Work(tmp_path / "out", "b").claim():
        pass
    prepared(work, Job(1))
    (tmp_path / "mine.work").mkdir()
    (tmp_path / "mine.work" / "notes.txt").write_text("not to be lost")
    with pytest.raises(UserError, match="holds something else"):
        prepared(Work(tmp_path / "mine", "a"), Job(1))
    assert (tmp_path / "mine.work" / "notes.txt").exists()


def test_logs_alone_stay_when_a_job_is_done(tmp_path: Path) -> None:
    work = prepared(Work(tmp_path / "out", "a"), Job(1))
    for folder in (work.logs, work.path / "documents"):
        folder.mkdir()
    work.clear()
    work.clear()  # a task that was killed just then is run again
    assert sorted(path.name for path in work.path.iterdir()) == ["lock", "logs"]


def test_the_digest_of_the_code_changes_with_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code_digest()
    monkeypatch.setattr(executors, "version", lambda name: f"another {name}")
    code_digest.cache_clear()
    assert code_digest() != before
    code_digest.cache_clear()


class Count(PipelineStep):  # type: ignore[misc]
    """Writes a file for its task; the task of an odd number fails as long as there is a file `broken`."""

    type, name = "test", "count"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        if rank % 2 and (self.folder / "broken").exists():
            raise UserError(f"task {rank} of {world_size} is broken")
        with (self.folder / str(rank)).open("a") as file:
            file.write("done\n")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failed_job_goes_on_with_what_is_missing(tmp_path: Path, workers: int) -> None:
    stages = [Stage("count", [Count(tmp_path)], 4)]
    (tmp_path / "broken").touch()
    with pytest.raises(UserError, match="is broken"):
        run_stages(stages, tmp_path / "logs", Execution(workers=workers))
    (tmp_path / "broken").unlink()
    run_stages(stages, tmp_path / "logs", Execution(workers=workers))
    run_stages(stages, tmp_path / "logs", Execution(workers=workers))
    assert [(tmp_path / str(rank)).read_text() for rank in range(4)] == ["done\n"] * 4
