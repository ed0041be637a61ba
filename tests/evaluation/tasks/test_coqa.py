"""CoQA: prompts, and scores against values worked by hand from the benchmark's rules."""

import json
from pathlib import Path
from typing import Any

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.tasks.coqa import CoQA, CoQAAll, exact_match, f1, leave_one_out, words

STORY = {
    "id": "s1",
    "source": "cnn",
    "story": "Ann has a red hat.",
    "questions": [{"input_text": "Who?", "turn_id": 1}, {"input_text": "What?", "turn_id": 2}],
    "answers": [{"input_text": "Ann", "turn_id": 1}, {"input_text": "a red hat", "turn_id": 2}],
    "additional_answers": {
        "0": [{"input_text": "Ann", "turn_id": 1}, {"input_text": "The hat", "turn_id": 2}],
        "1": [{"input_text": "she", "turn_id": 1}, {"input_text": "red", "turn_id": 2}],
    },
}


def write(folder: Path, *stories: dict[str, Any]) -> Path:
    path = folder / "coqa" / "coqa-dev-v1.0.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"version": "1.0", "data": stories}))
    return folder


def test_the_prompt_is_the_passage_and_the_conversation(tmp_path: Path) -> None:
    (last,) = CoQA().problems(write(tmp_path, STORY))
    first, same = CoQAAll().problems(tmp_path)
    assert first.prompt == "Ann has a red hat.\n\nQ: Who?\n\nA:"
    assert last.prompt == "Ann has a red hat.\n\nQ: Who?\n\nA: Ann\n\nQ: What?\n\nA:"
    assert (last, last.id, last.group, last.reference) == (same, "s1/2", "cnn", "a red hat")
    assert last.row["answers"] == ["a red hat", "The hat", "red"]


def test_case_punctuation_and_articles_do_not_count() -> None:
    assert words("The  Cat's an ANT, a-b!") == ["cats", "ant", "ab"]
    assert exact_match("a red hat", "Red hat.") == 1.0
    assert f1("a red hat", "the red dog house") == pytest.approx(2 * 1 / (2 + 3))
    assert f1("red red hat", "red red red") == pytest.approx(2 * 2 / 6)
    assert (f1("the", "a"), f1("the", "hat"), f1("hat", "")) == (1.0, 0.0, 0.0)


def test_each_person_is_left_out_in_turn(tmp_path: Path) -> None:
    (problem,) = CoQA().problems(write(tmp_path, STORY))
    # Without the first: best of "hat" (F1 2/3) and "red" (2/3); without the second or third: "red hat" (1).
    scores = CoQA().scores(problem, " red hat\n\nQ: more?")
    assert scores == {"f1": pytest.approx((2 / 3 + 1 + 1) / 3), "exact_match": pytest.approx(2 / 3)}
    assert CoQA().scores(problem, "\n") == {"f1": 0.0, "exact_match": 0.0}
    assert leave_one_out(f1, ["red hat"], "hat") == pytest.approx(2 / 3)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"coqa needs data.*downloads\.cs\.stanford\.edu"):
        CoQA().problems(None)
    with pytest.raises(UserError, match=r"no coqa-dev\*\.json in .*downloads\.cs\.stanford\.edu"):
        CoQA().problems(tmp_path)
    with pytest.raises(UserError, match="row 1 has no story"):
        CoQA().problems(write(tmp_path, {**STORY, "story": None}))
    with pytest.raises(UserError, match="conversation s1 has not one answer a question"):
        CoQA().problems(write(tmp_path, {**STORY, "answers": STORY["answers"][:1]}))  # type: ignore[index]
    with pytest.raises(UserError, match="conversation s1 lacks an input_text"):
        CoQA().problems(write(tmp_path, {**STORY, "questions": [{"turn_id": 1}]}))
    (tmp_path / "coqa/coqa-dev-v1.0.json").write_text('{"data": 3}')
    with pytest.raises(UserError, match="has no list of conversations under data"):
        CoQA().problems(tmp_path)
