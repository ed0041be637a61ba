import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from starcoder.errors import UserError
from starcoder.rows import read_rows

ROWS = [{"task_id": "a/1", "text": "é\u2028"}, {"task_id": "a/2", "text": ""}]


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz", "rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
        text = (lines if "jsonl" in name else json.dumps(ROWS)).encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert read_rows(path) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.jsonl", b'{"a": 1}\n{"a": \n', "rows.jsonl:2 is no JSON"),
        ("rows.jsonl", b'{"a": 1}\n[2]\n', "rows.jsonl:2 is no JSON object"),
        ("rows.jsonl", b"\xff\n", "rows.jsonl cannot be read"),
        ("rows.jsonl.gz", b"{}\n", "rows.jsonl.gz cannot be read"),
        ("rows.jsonl.gz", gzip.compress(b"{}\n" * 1000, mtime=0)[:-12], "rows.jsonl.gz cannot be read"),
        ("rows.json", b"[1, 2]", "holds no list of JSON objects"),
        ("rows.json", b"[", "rows.json is no JSON"),
        ("rows.parquet", b"PAR1", "cannot be read as parquet"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_rows(tmp_path / name)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.jsonl cannot be read"):
        read_rows(tmp_path / "missing.jsonl")
