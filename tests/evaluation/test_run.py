"""The loop over tasks: samples, verdicts and tables, and what is left of them when a run is ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from starcoder.errors import UserError
from starcoder.evaluation import prompting
from starcoder.evaluation.engines.base import Completion, Request, Sampling
from starcoder.evaluation.engines.kit import KitEngine, open_kit
from starcoder.evaluation.engines.references import References
from starcoder.evaluation.evaluate import _folder_name, evaluate
from starcoder.evaluation.plan import Plan, Wishes, plan_task, pose
from starcoder.evaluation.results import Results, read_report
from starcoder.evaluation.run import Run, completions, verdicts
from starcoder.evaluation.score import task_result
from tests import nursery
from tests.conftest import ROOT
from tests.evaluation import sums

TASKS = ("Sums", "Spelling", "Surprise")


@pytest.fixture
def engine(folder: Path) -> KitEngine:
    return open_kit(str(folder), device="cpu")


def plans(engine: Any, *tasks: str, **wishes: Any) -> list[Plan]:
    posed = [pose(f"tests.evaluation.sums:{task}", None, None) for task in tasks]
    return [plan_task(one, Wishes(**wishes), prompting.style("plain"), 0, engine) for one in posed]


def run(engine: Any, output: Path, *tasks: str, fresh: bool = False, **wishes: Any) -> list[Plan]:
    found = plans(engine, *tasks, **wishes)
    assert Run(found, engine, output).run(1, None, False, None, fresh) is not None
    return found


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def report_of(output: Path) -> Results:
    return read_report(output / "report")


class Reference:
    """Right for half of the problems; it may fail half way."""

    name, context_length = "reference", None

    def __init__(self, fails_after: int | None = None) -> None:
        self.settings: dict[str, Any] = {"engine": "reference"}
        self.fails_after, self.made = fails_after, 0

    def check(self, requests: Sequence[Request], max_new_tokens: int, likelihood: bool) -> None:
        pass

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in requests:
            for sample in request.samples:
                if self.made == self.fails_after:
                    raise KeyboardInterrupt
                self.made += 1
                number = int(request.problem.split("/")[1])
                yield Completion(request.problem, sample, f" {number}" if (number + sample) % 2 else " 'x'", "stop")

    def nats(self, pairs: Sequence[tuple[str, str]]) -> Iterator[list[float]]:
        yield from ([0.5] * len(text) for _, text in pairs)


def test_a_whole_run_measures_what_is_right(tmp_path: Path) -> None:
    engine = Reference()
    found = run(engine, tmp_path, *TASKS, n_samples=2)
    added, spelling, surprise = (task_result(plan, tmp_path / plan.task.name) for plan in found)
    assert added.total is not None
    assert [row.group for row in added.rows] == ["even", "odd"]
    assert added.total.measures["pass@1"].value == 0.5
    assert added.total.measures["maj@2"].value == 1.0  # " 'x'" prints nothing, so that the right answer alone votes
    assert (added.total.n_problems, added.total.n_samples) == (8, 16)
    assert added.verdicts == {"passed": 8, "failed": 8}
    assert added.skipped == {"imaginary": "there is no interpreter of it"}
    assert spelling.total is not None
    assert spelling.total.measures["exact_match"].value == 0.5
    assert spelling.verdicts == {"right": 8, "wrong": 8}
    assert surprise.total is not None
    assert surprise.total.measures["nats_answer"].value == 0.5
    assert surprise.verdicts == {}


def test_what_ends_a_run_loses_no_sample(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Reference(fails_after=7), tmp_path, "Sums", n_samples=2)
    assert len(completions(tmp_path / "sums")) == 7
    engine = Reference()
    (plan,) = run(engine, tmp_path, "Sums", n_samples=2)
    assert engine.made == 9
    (whole,) = run(Reference(), tmp_path / "whole", "Sums", n_samples=2)
    assert task_result(plan, tmp_path / "sums") == task_result(whole, tmp_path / "whole" / "sums")


def test_more_samples_go_on_from_those_that_are_there(tmp_path: Path, engine: KitEngine) -> None:
    run(engine, tmp_path, "Sums", n_samples=2)
    before = completions(tmp_path / "sums")
    run(engine, tmp_path, "Sums", n_samples=4)
    after = completions(tmp_path / "sums")
    assert {key: after[key] for key in before} == before
    assert len(after) == 2 * len(before)
    run(engine, tmp_path / "once", "Sums", n_samples=4)
    assert completions(tmp_path / "once" / "sums") == after


def test_samples_of_other_settings_are_not_mixed(tmp_path: Path, engine: KitEngine) -> None:
    run(engine, tmp_path, "Sums", limit=1)
    with pytest.raises(UserError, match="samples made with another temperature: name another --output, or start over"):
        run(engine, tmp_path, "Sums", limit=1, temperature=0.3)
    run(engine, tmp_path, "Sums", limit=1, temperature=0.3, fresh=True)
    assert len(completions(tmp_path / "sums")) == 2


def test_other_conditions_judge_the_same_samples_again(tmp_path: Path) -> None:
    (plan,) = run(Reference(), tmp_path, "Sums")
    engine = Reference()
    assert Run([plan], engine, tmp_path).run(1, None, True, None, False) is not None
    assert engine.made == 0
    found = verdicts(plan, tmp_path / "sums").values()
    assert len(found) == 8
    assert all(row["strict"] for row in found)


def test_a_verdict_that_the_machine_failed_to_find_is_sought_again(tmp_path: Path) -> None:
    (plan,) = run(Reference(), tmp_path, "Sums")
    path = tmp_path / "sums" / "verdicts.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write(path, [rows[0] | {"status": "sandbox_error", "passed": False}, *rows[1:]])
    result = task_result(plan, tmp_path / "sums")
    assert result.verdicts["sandbox_error"] == 1
    assert result.total is not None
    assert result.total.n_samples == 7
    run(Reference(), tmp_path, "Sums")
    assert "sandbox_error" not in task_result(plan, tmp_path / "sums").verdicts
    path.rename(tmp_path / "sums" / "verdicts-1.jsonl")  # that of another process, which is read first
    write(path, [rows[0] | {"status": "sandbox_error", "passed": False}])
    assert "sandbox_error" not in task_result(plan, tmp_path / "sums").verdicts


def test_verdicts_that_are_nowhere_are_no_result(tmp_path: Path) -> None:
    (plan,) = run(Reference(), tmp_path, "Sums")
    path = tmp_path / "sums" / "verdicts.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(UserError, match="lacks the verdicts on 3 of 8 samples"):
        task_result(plan, tmp_path / "sums")


def test_other_data_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(Reference(), tmp_path, "Sums")
    path = tmp_path / "sums" / "verdicts.jsonl"
    changed = [replace(problem, reference=" 99") for problem in sums.problems()]
    monkeypatch.setattr(sums, "problems", lambda: changed)
    engine = Reference()
    run(engine, tmp_path, "Sums")  # the same prompts, so the samples stay
    assert engine.made == 0
    assert path.read_text().count("\n") == 16
    changed[3] = replace(changed[3], prompt="def g(x):")
    with pytest.raises(UserError, match="holds samples of other data, where sums/3 asks for something else"):
        run(Reference(), tmp_path, "Sums")
    run(Reference(), tmp_path, "Sums", groups=("even",))


def test_conditions_of_programs_leave_probabilities_alone(tmp_path: Path) -> None:
    found = run(Reference(), tmp_path, "Sums", "Surprise")
    before = (tmp_path / "surprise" / "verdicts.jsonl").read_bytes()
    assert Run(found, Reference(), tmp_path).run(1, None, True, None, False) is not None
    assert Run(found[1:], Reference(), tmp_path).run(1, None, False, None, False) is not None
    assert (tmp_path / "surprise" / "verdicts.jsonl").read_bytes() == before


def test_the_samples_do_not_depend_on_the_batch_size(tmp_path: Path, folder: Path) -> None:
    found = []
    for size in (1, 5, 32):
        run(open_kit(str(folder), device="cpu", batch_size=size), tmp_path / str(size), "Spelling", n_samples=3)
        found.append(completions(tmp_path / str(size) / "spelling"))
    assert found[0] == found[1] == found[2]
    assert len(set(found[0].values())) > 12


def test_completions_made_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"task_id": f"sums/{n}", "completion": f" {n}" if n < 6 else " 0"} for n in range(8) for _ in range(2)]
    samples = write(tmp_path / "samples.jsonl", [*rows, {"task_id": "imaginary/0", "completion": ""}])
    evaluate(samples=samples, tasks="tests.evaluation.sums:Sums", output=tmp_path / "out", workers=1)
    (task,) = report_of(tmp_path / "out").tasks
    assert task.total is not None
    assert task.total.measures["pass@1"].value == 0.75
    assert "imaginary skipped, no total" in capsys.readouterr().out
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "sums/7" in page
    assert "temperature" not in task.settings
    assert task.notes == ("1 samples of samples.jsonl are of problems that are skipped, or of none",)
    evaluate(samples=samples, tasks="tests.evaluation.sums:Sums", limit=1, output=tmp_path / "two", workers=1)
    assert [row.n_samples for row in report_of(tmp_path / "two").tasks[0].rows] == [2, 2]
    with pytest.raises(UserError, match="without a model nothing is sampled: leave out n_samples, temperature"):
        evaluate(samples=samples, temperature=0.2, n_samples=3)


def test_references_in_the_place_of_a_model(tmp_path: Path) -> None:
    names = "tests.evaluation.sums:Sums,tests.evaluation.sums:Spelling"
    evaluate(references=True, tasks=names, output=tmp_path / "out", workers=1)
    added, spelling = report_of(tmp_path / "out").tasks
    assert added.total is not None
    assert spelling.total is not None
    assert added.total.measures["pass@1"].value == 1
    assert spelling.total.measures["exact_match"].value == 1
    assert added.notes == ("the benchmark's own solutions, no model's",)
    with pytest.raises(UserError, match="asks for probabilities: name a model"):
        evaluate(references=True, tasks="tests.evaluation.sums:Surprise", output=tmp_path / "none")
    with pytest.raises(UserError, match="no reference for its problem 'a': name a model"):
        References().check([Request("a", "x", None, (0,))], 8, likelihood=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no samples"),
        ('{"task_id": "sums/0"}\n', "samples.jsonl:1 needs a task_id and a completion"),
        ('{"task_id": "sums/0", "completion": ""}\nnonsense\n', "samples.jsonl:2 is no JSON"),
        ('{"task_id": "sums/9", "completion": ""}\n', "the task has no problem 'sums/9'"),
    ],
)
def test_a_samples_file_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "samples.jsonl").write_text(text)
    with pytest.raises(UserError, match=words):
        evaluate(samples=tmp_path / "samples.jsonl", tasks="tests.evaluation.sums:Sums", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_is_named_after_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    assert _folder_name("b") == _folder_name("./b/") == "b"
    assert _folder_name(".") == str(tmp_path / "a").strip("/").replace("/", "--")
    assert _folder_name("bigcode/starcoder") == "bigcode--starcoder"


def test_too_few_samples_for_k_and_no_model_or_two_are_one_line(tmp_path: Path) -> None:
    samples = write(tmp_path / "samples.jsonl", [{"task_id": "sums/0", "completion": " 0"}])
    with pytest.raises(UserError, match="pass@2 needs 2 samples"):
        evaluate(samples=samples, tasks="tests.evaluation.sums:Sums", k=[2], output=tmp_path / "out")
    for model, file in ((None, None), ("x", samples)):
        with pytest.raises(UserError, match="a model, or --samples FILE, or --references"):
            evaluate(model=model, samples=file)
    with pytest.raises(UserError, match="seed is -1, below 0"):
        evaluate(samples=samples, seed=-1)
    with pytest.raises(UserError, match="say --without_isolation if you mean it"):
        evaluate(samples=samples, isolation="none")
    with pytest.raises(UserError, match="contradict"):
        evaluate(samples=samples, isolation="landlock", without_isolation=True)


def test_killed_half_way_and_resumed_it_gives_the_same_table(tmp_path: Path, folder: Path) -> None:
    command = ["evaluate", str(folder), "--device", "cpu", "--seed", "5", "--output", str(tmp_path / "killed")]
    command += ["--tasks", "tests.evaluation.sums:Sums", "--n_samples", "40", "--batch_size", "4", "--workers", "1"]
    process = nursery.start(ROOT, *command)
    journal = tmp_path / "killed" / "sums" / "verdicts.jsonl"
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 20):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = journal.read_bytes().count(b"\n")
    assert left < 320
    for name in ("killed", "whole"):
        evaluate(
            str(folder),
            "tests.evaluation.sums:Sums",
            device="cpu",
            seed=5,
            n_samples=40,
            batch_size=4,
            workers=1,
            output=tmp_path / name,
        )
    killed, whole = report_of(tmp_path / "killed"), report_of(tmp_path / "whole")
    assert killed.tasks == whole.tasks
    assert journal.read_bytes().count(b"\n") == 320


def test_two_processes_share_the_problems_out(tmp_path: Path, folder: Path) -> None:
    options = ["--tasks", "tests.evaluation.sums:Sums,tests.evaluation.sums:Surprise", "--device", "cpu"]
    options += ["--n_samples", "2", "--workers", "1"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "starcoder.cli", "evaluate", str(folder), *options, "--output", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    evaluate(
        str(folder),
        "tests.evaluation.sums:Sums,tests.evaluation.sums:Surprise",
        device="cpu",
        n_samples=2,
        workers=1,
        output=tmp_path / "one",
    )
    (two, surprise), (one, expected) = report_of(tmp_path / "two").tasks, report_of(tmp_path / "one").tasks
    assert two == one
    assert surprise.total is not None
    assert expected.total is not None
    for name, estimate in expected.total.measures.items():  # other windows share a batch, so sums round otherwise
        assert list(surprise.total.measures[name]) == pytest.approx(list(estimate), rel=1e-5)
    counts = [len((tmp_path / "two" / "sums" / f"samples{rank}.jsonl").read_text().splitlines()) for rank in ("", "-1")]
    assert counts == [8, 8]
