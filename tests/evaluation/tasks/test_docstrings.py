"""Docstrings: prompts of both kinds, and BLEU against values worked by hand."""

import json
import math
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.tasks.docstrings import (
    Docstrings,
    DocstringsLeft,
    reference,
    smoothed_bleu,
    split_at_docstring,
)

CODE = 'def f(a):\n    """Add one.\n\n    More.\n    """\n    return a + 1\n'
ROW = {"original_string": CODE, "docstring": "Add one.\n\n    More.", "docstring_tokens": ["Add", "one", "."]}


def write(folder: Path, row: dict[str, object]) -> Path:
    path = folder / "code-to-text/python/test.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(row) + "\n")
    return folder


def test_both_prompts(tmp_path: Path) -> None:
    (infilled,) = Docstrings().problems(write(tmp_path, ROW))
    (left,) = DocstringsLeft().problems(tmp_path)
    assert infilled.prompt == left.prompt == 'def f(a):\n    """'
    assert (infilled.suffix, left.suffix) == ("\n\n    return a + 1\n", None)
    assert infilled.reference == "Add one ."


@pytest.mark.parametrize(
    ("before", "after", "prompt", "suffix"),
    [
        ("def f():\n    '''", "'''\n    pass", 'def f():\n    """', "\n\n    pass"),
        ('def f():\n    r"""', '"""', 'def f():\n    r"""', "\n"),
        ("def f():\n    '", "'\n    pass", 'def f():\n    """', "\n\n    pass"),
        ("def f(a='b'):\n    \"", '"\n    pass', 'def f(a=\'b\'):\n    """', "\n\n    pass"),
        ("def f():\n    ", '  """\n    pass', 'def f():\n    """', "\n\n    pass"),
    ],
)
def test_the_docstrings_own_quotes_are_replaced(before: str, after: str, prompt: str, suffix: str) -> None:
    assert split_at_docstring(before, after) == (prompt, suffix)


def test_the_reference_is_the_first_paragraphs_words() -> None:
    assert reference(["r", "Returns", "the", "x\n", "."]) == "Returns the x ."
    assert reference(["returns", "x"]) == "returns x"


def test_bleu_by_hand() -> None:
    # the cat sat on the mat / the cat on the mat: 5/5 words, (3+1)/(4+1), (1+1)/(3+1), (0+1)/(2+1), lengths 6 and 5.
    expected = (5 / 5 * 4 / 5 * 2 / 4 * 1 / 3) ** 0.25 * math.exp(1 - 7 / 6)
    assert smoothed_bleu("The cat sat on the mat", "the CAT on the mat") == pytest.approx(expected)
    # Longer than the reference: no penalty. "a b" / "a b c d e": 2/5, (1+1)/(4+1), 1/(3+1), 1/(2+1).
    assert smoothed_bleu("a b", "a b c d e") == pytest.approx((2 / 5 * 2 / 5 * 1 / 4 * 1 / 3) ** 0.25)
    # Two matches of "the" at most: 2/4, then (0+1)/(3+1), 1/3, 1/2.
    assert smoothed_bleu("the x the y", "the the the the") == pytest.approx((2 / 4 / 4 / 3 / 2) ** 0.25)


def test_bleu_of_texts_alike_and_of_none() -> None:
    assert smoothed_bleu("x", "X") == smoothed_bleu("get_name()", "get _ name ( )") == 1.0
    assert smoothed_bleu("a b\tc", "a b\td") == 1.0
    assert smoothed_bleu("a b c", "d e f") < 1e-70
    assert smoothed_bleu("a b c", "") == pytest.approx(math.exp(-3))


def test_the_first_line_counts(tmp_path: Path) -> None:
    task = Docstrings()
    (problem,) = task.problems(write(tmp_path, ROW))
    assert task.scores(problem, "\n    Add one.\n\n    Nothing more") == {"bleu": 1.0}
    assert task.scores(problem, "  \n") == {"bleu": pytest.approx(math.exp(-3))}


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no python/test\* in .*google/code_x_glue_ct_code_to_text"):
        Docstrings().problems(tmp_path)
    with pytest.raises(UserError, match="row 1 has no docstring_tokens"):
        Docstrings().problems(write(tmp_path, {**ROW, "docstring_tokens": None}))
    with pytest.raises(UserError, match="the docstring of row 1 is not in its original_string"):
        Docstrings().problems(write(tmp_path, {**ROW, "docstring": "Subtract."}))
