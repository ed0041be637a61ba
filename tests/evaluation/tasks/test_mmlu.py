"""MMLU: prompts of both formats, and accuracy from the likelihoods of the letters."""

import csv
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.tasks.mmlu import CATEGORIES, MMLU

SHOT = ["What is {} + 1?", "one", "two", "three", "four"]


def write_csv(folder: Path, subject: str, shots: int = 5) -> None:
    for split, rows in (
        ("dev", [[SHOT[0].format(number), *SHOT[1:], "BCDAB"[number]] for number in range(shots)]),
        ("test", [['Is "it", a\nquestion?', "a, b", "c", "d", "e", "C"], ["Second?", "1", "2", "3", "4", "A"]]),
    ):
        path = folder / "mmlu" / split / f"{subject}_{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(rows)


PROMPT = (
    "The following are multiple choice questions (with answers) about college biology.\n\n"
    + "".join(
        f"What is {number} + 1?\nA. one\nB. two\nC. three\nD. four\nAnswer: {letter}\n\n"
        for number, letter in enumerate("BCDAB")
    )
    + 'Is "it", a\nquestion?\nA. a, b\nB. c\nC. d\nD. e\nAnswer:'
)


def test_the_authors_files_make_five_shot_prompts(tmp_path: Path) -> None:
    write_csv(tmp_path, "college_biology")
    write_csv(tmp_path, "virology")
    first, second, third, _ = MMLU().problems(tmp_path)
    assert first.prompt == PROMPT
    assert (first.id, first.group, first.reference) == ("college_biology/0", "STEM", "C")
    assert (second.id, second.reference, third.id, third.group) == ("college_biology/1", "A", "virology/0", "other")
    assert MMLU().requests(first) == [(PROMPT, f" {letter}") for letter in "ABCD"]


def test_the_hubs_files_make_the_same_prompts(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def row(question: str, choices: list[str], answer: int) -> dict[str, object]:
        return {"question": question, "subject": "college_biology", "choices": choices, "answer": answer}

    dev = [row(SHOT[0].format(number), SHOT[1:], "ABCD".index("BCDAB"[number])) for number in range(5)]
    test = [row('Is "it", a\nquestion?', ["a, b", "c", "d", "e"], 2)]
    (tmp_path / "mmlu/all").mkdir(parents=True)
    for split, rows in (("dev", dev), ("test", test)):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"mmlu/all/{split}-00000-of-00001.parquet")
    (problem,) = MMLU().problems(tmp_path)
    assert (problem.prompt, problem.reference) == (PROMPT, "C")


def test_the_likeliest_letter_is_the_answer(tmp_path: Path) -> None:
    write_csv(tmp_path, "college_biology")
    problem = MMLU().problems(tmp_path)[0]
    assert MMLU().scores(problem, [[2.0], [1.5], [0.5, 0.4], [1.0]]) == {"accuracy": (1.0, 1.0)}
    assert MMLU().scores(problem, [[2.0], [1.5], [0.5, 0.6], [1.0]]) == {"accuracy": (0.0, 1.0)}


def test_there_are_57_subjects_in_four_categories() -> None:
    assert len(CATEGORIES) == 57
    assert sorted(CATEGORIES.values()).count("STEM") == 18
    assert set(CATEGORIES.values()) == {"STEM", "humanities", "social sciences", "other"}


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"all/dev-\*.parquet.*cais/mmlu"):
        MMLU().problems(tmp_path)
    write_csv(tmp_path, "college_biology", shots=4)
    with pytest.raises(UserError, match="college_biology has 4 answered questions in dev, and 5 are shown"):
        MMLU().problems(tmp_path)
    write_csv(tmp_path, "alchemy")
    with pytest.raises(UserError, match="'alchemy' is none of the benchmark's 57 subjects"):
        MMLU().problems(tmp_path)
    (tmp_path / "mmlu/test/college_biology_test.csv").write_text("Why?,1,2,3\n")
    with pytest.raises(UserError, match=r"college_biology_test\.csv:1 has not 6 columns"):
        MMLU().problems(tmp_path)
    (tmp_path / "mmlu/test/college_biology_test.csv").write_text("Why?,1,2,3,4,E\n")
    with pytest.raises(UserError, match="row 1 has the answer 'E', none of A, B, C, D"):
        MMLU().problems(tmp_path)
