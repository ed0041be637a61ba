import json
from pathlib import Path
from typing import Any

import pytest

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.evaluation import prompting
from starcoder.evaluation.callback import Evaluation
from starcoder.evaluation.engines.kit import KitEngine
from starcoder.evaluation.plan import Wishes, plan_task, pose
from starcoder.evaluation.run import completed, judged, key_of, measured
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.score import measures
from starcoder.evaluation.task import Likelihood
from starcoder.training.module import load_trained
from tests.conftest import Tiny
from tests.training.layouts import EVALUATED, run_jobs

JOB: dict[str, Any] = {"steps": 4, "every_n_steps": 4, "dropout": 0.1, "strategy": {"checkpointing": "full"}}


@pytest.mark.parametrize("ranks", [1, 2])
def test_it_sees_the_model_in_training_and_changes_nothing(tiny: Tiny, tmp_path: Path, ranks: int) -> None:
    jobs = {
        "plain": JOB | {"folder": str(tmp_path / "plain")},
        "evaluated": JOB | {"folder": str(tmp_path / "evaluated"), "evaluate_every": 2},
    }
    told = run_jobs(jobs, tiny.corpus.parent, ranks, tmp_path)
    assert len(told["plain"]) == 4
    assert told["evaluated"] == told["plain"]
    found = json.loads((tmp_path / "evaluated.json").read_text())
    assert found == pytest.approx(expected(tiny, tmp_path / "evaluated"), abs=1e-9)
    completing = {"sums/pass@1", "sums/maj@2", "spelling/exact_match", "spelling/letters"}
    assert set(found) == completing | {"surprise/nats_answer", "surprise/nats_prompt"}
    assert 0 < found["spelling/letters"] < 1


def expected(tiny: Tiny, checkpoints: Path) -> dict[str, float]:
    """What the saved model of the last step is worth, outside of training."""
    engine = KitEngine(load_trained(checkpoints), tokenizers.load(tiny.tokenizer), "saved")
    posed = [pose(name, None, None) for name in EVALUATED["tasks"].split(",")]
    wishes = Wishes(EVALUATED["n_samples"], EVALUATED["temperature"], limit=2, max_new_tokens=8)
    plans = [plan_task(one, wishes, prompting.style("plain"), 0, engine) for one in posed]
    found = {}
    with Sandbox(workers=1) as sandbox:
        for plan in plans:
            plan.task.sandbox = sandbox
            completions = list(completed(plan, plan.requests(), engine))
            likelihood = isinstance(plan.task, Likelihood)
            told = measured(plan, plan.problems, engine) if likelihood else judged(plan, completions)
            rows = {key_of(row): row for row in told}
            found |= {f"{plan.task.name}/{name}": value.value for name, value in measures(plan, rows).items()}
    return found


def test_what_cannot_be_is_said_before_training() -> None:
    with pytest.raises(UserError, match="there is no task 'humanevil'"):
        Evaluation("humanevil")
    with pytest.raises(UserError, match="every_n_steps is 0"):
        Evaluation(every_n_steps=0)
