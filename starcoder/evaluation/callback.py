"""Cheap evaluations while a model trains: does it infill, does it solve anything yet?

trainer:
  callbacks:
    - class_path: starcoder.evaluation.callback.Evaluation
      init_args: {tasks: "humaneval,humaneval-infilling-single", data: build/benchmarks, every_n_steps: 1000, limit: 20}
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation import prompting
from starcoder.evaluation.engines.kit import KitEngine
from starcoder.evaluation.plan import Plan, Wishes, names_of, plan_task, pose
from starcoder.evaluation.run import completed, judged, key_of, measured
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.score import measures
from starcoder.evaluation.task import Likelihood


class Evaluation(Callback):
    """Evaluates now and then, and logs each measure as `task/measure`.

    All ranks complete the same problems together, since a sharded model needs them all; the first one judges. Training
    goes on as if nothing had been evaluated: samples have random numbers of their own.

    Args:
        tasks: names of benchmarks, separated by commas, as for `starcoder evaluate`.
        data: folder of benchmark data.
        every_n_steps: optimizer steps between two evaluations.
        limit: problems of each row of a task's table, the first ones.
        n_samples: completions of each problem.
        temperature: of the sampling; 0 takes the likeliest token.
        max_new_tokens: tokens of a completion at most.
        batch_size: completions that grow together.
        workers: processes that run programs.

    Raises:
        UserError: for what cannot be, such as a task without data.
    """

    def __init__(
        self,
        tasks: str = "humaneval",
        data: Path | None = None,
        every_n_steps: int = 1000,
        limit: int = 20,
        n_samples: int = 1,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        batch_size: int = 32,
        workers: int = 2,
    ) -> None:
        if every_n_steps < 1 or workers < 1:
            raise UserError(f"every_n_steps is {every_n_steps} and workers {workers}: both must be at least 1")
        self.wishes = Wishes(n_samples, temperature, max_new_tokens=max_new_tokens, limit=limit)
        self.every_n_steps, self.batch_size, self.workers = every_n_steps, batch_size, workers
        self.posed = [pose(name, data, None) for name in names_of(tasks, None)]
        self._open = ExitStack()
        self._last = 0

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Settle everything; open the sandbox on the rank that judges."""
        tokenizer = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
        if tokenizer is None:
            raise UserError("the callback Evaluation needs a TokenDataModule, whose tokenizer it uses")
        self.engine = KitEngine(pl_module.model, tokenizer, "in training", self.batch_size)  # type: ignore[arg-type]
        style = prompting.style("plain")
        self.plans = [plan_task(posed, self.wishes, style, 0, self.engine) for posed in self.posed]
        if trainer.is_global_zero and any(plan.task.runs for plan in self.plans):
            sandbox = self._open.enter_context(Sandbox(self.workers))
            for plan in self.plans:
                plan.task.sandbox = sandbox
        self._last = trainer.global_step

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Evaluate after every `every_n_steps`-th optimizer step."""
        step = trainer.global_step
        if step == self._last or step % self.every_n_steps:
            return
        self._last = step
        for plan in self.plans:
            found = self.evaluate(plan, trainer.is_global_zero)
            pl_module.log_dict(found, rank_zero_only=True)

    def evaluate(self, plan: Plan, judges: bool) -> dict[str, float]:
        """The measures of one task, by the name that they are logged under; none on a rank that does not judge."""
        likelihood = isinstance(plan.task, Likelihood)
        # A cache that grows with every token would make compiled blocks compile again and again.
        with torch.compiler.set_stance("force_eager"):
            rows = list(measured(plan, plan.problems, self.engine)) if likelihood else []
            completions = list(completed(plan, plan.requests(), self.engine))
        if not judges:
            return {}
        found = {key_of(row): row for row in rows or judged(plan, completions)}
        return {f"{plan.task.name}/{name}": estimate.value for name, estimate in measures(plan, found).items()}

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the sandbox."""
        self._open.close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the sandbox."""
        self._open.close()
