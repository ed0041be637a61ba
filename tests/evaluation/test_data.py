"""Which files of a folder are a benchmark, and which file of the Hub is."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from starcoder.errors import UserError
from starcoder.evaluation.data import HubFile, find_files, load_rows
from starcoder.evaluation.tasks.gsm8k import GSM8KPAL
from starcoder.evaluation.tasks.mbpp import MBPP
from starcoder.evaluation.tasks.multipl_e import HumanEvalMultiPLE, MBPPPaper

PART = "test-00000-of-00001.parquet"


def write(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def multipl_e(name: str) -> dict[str, Any]:
    tests = "def check(candidate):\n    pass\n\ndef test_check():\n    check(f)\n"
    return {"name": name, "prompt": "def f():\n", "tests": tests, "stop_tokens": ["\ndef"]}


def test_each_language_of_a_hubs_folder_has_its_own_problems(tmp_path: Path) -> None:
    for name in ("humaneval-py", "mbpp-py", "humaneval-jl"):
        write(tmp_path / "multipl-e" / name / PART, multipl_e(f"of_{name}"))
    (problem,) = HumanEvalMultiPLE(["py"]).problems(tmp_path)
    assert problem.id == "py/of_humaneval-py"
    (problem,) = MBPPPaper().problems(tmp_path)
    assert problem.id == "of_mbpp-py"
    (tmp_path / "multipl-e" / "mbpp-py").rename(tmp_path / "multipl-e" / "mbpp-lua")
    with pytest.raises(UserError, match=r"no mbpp-py-reworded\.json in"):
        MBPPPaper().problems(tmp_path)


def test_other_parts_of_a_data_set_are_left_alone(tmp_path: Path) -> None:
    for part in ("main", "socratic"):
        write(tmp_path / "gsm8k" / part / PART, {"question": f"Of {part}?", "answer": "1 #### 1"})
    (problem,) = GSM8KPAL().problems(tmp_path)
    assert problem.row["question"] == "Of main?"
    row = {"task_id": 11, "code": "def f(): pass", "test_list": ["assert f() is None"]}
    write(tmp_path / "mbpp/full" / PART, {**row, "text": "Of full."})
    write(tmp_path / "mbpp/sanitized" / PART, {**row, "prompt": "Of sanitized."})
    (problem,) = MBPP().problems(tmp_path)
    assert problem.row["text"] == "Of full."


def test_a_snapshot_may_lie_deeper_and_the_authors_file_comes_first(tmp_path: Path) -> None:
    hub = HubFile("a/b", "full/part.jsonl")
    write(tmp_path / "x/snapshots/0123/full/part.jsonl", {"text": "deep"})
    assert load_rows(tmp_path, "x", "x.jsonl", hub) == [{"text": "deep"}]
    write(tmp_path / "x/x.jsonl", {"text": "published"})
    assert load_rows(tmp_path, "x", "x.jsonl", hub) == [{"text": "published"}]
    with pytest.raises(UserError, match=r"no y\.jsonl in .*datasets/a/b has the data"):
        find_files(tmp_path, "y", "y.jsonl", hub)


def test_downloads_are_of_the_named_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[str, ...], dict[str, Any]]] = []

    def download(*names: str, **options: Any) -> str:
        asked.append((names, options))
        write(tmp_path / PART, multipl_e("f"))
        return str(tmp_path / PART)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert [problem.id for problem in MBPPPaper().problems(None)] == ["f"]
    assert load_rows(None, "x", "*", HubFile("a/b", "c.parquet"))
    assert asked == [
        (
            ("nuprl/MultiPL-E", f"mbpp-py/{PART}"),
            {"repo_type": "dataset", "revision": "28441b6024e71d4a1c1c0f6bf171c935cd5a43f2"},
        ),
        (("a/b", "c.parquet"), {"repo_type": "dataset", "revision": None}),
    ]
