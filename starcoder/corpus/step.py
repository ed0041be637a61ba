"""A step of the corpus pipeline: datatrove's, with the plan and the places of what the stages pass on."""

from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from starcoder.corpus.plan import Plan
from starcoder.executors import Work, job_of


class Step(PipelineStep):  # type: ignore[misc]  # datatrove ships no annotations
    """A step that knows the plan."""

    type = "corpus"

    def __init__(self, work: Work) -> None:
        self.name = type(self).__name__.lower()
        super().__init__()
        self.work = work

    @property
    def plan(self) -> Plan:
        """The plan, which a process reads once."""
        plan: Plan = job_of(self.work)
        return plan

    def path(self, folder: str, number: int, suffix: str = ".parquet") -> Path:
        """The file of a shard or partition in the work folder."""
        return self.plan.work / folder / f"{number:05d}{suffix}"
