import json
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.journal import Journal, read_journals


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    rows = [{"task_id": "a", "completion": "é\n\u2028\udc80"}, {"task_id": "b", "sample": 1}]
    with Journal(tmp_path / "made" / "samples.jsonl") as journal:
        for row in rows:
            journal.append(row)
    assert list(read_journals(tmp_path / "made", "samples*.jsonl")) == rows


@pytest.mark.parametrize("cut", range(1, 20))
def test_a_line_that_was_cut_is_dropped_and_the_next_one_stands_alone(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "samples.jsonl"
    with Journal(path) as journal:
        journal.append({"n": 1})
        journal.append({"n": 2, "text": "x" * 20})
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path) as journal:
        journal.append({"n": 3})
    assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"n": 1}\nnonsense\n{"n": 2}\n')
    with pytest.raises(UserError, match=r"samples\.jsonl:2 is no JSON object"):
        Journal(path)
