import json
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.pii.entity import Entity
from starcoder.pii.examples import Example, read_examples, write_examples

TEXT = "# Ada Lovelace <ada@example.org>, TODO(jd): 10.2.3.4"
EXAMPLE = Example(
    TEXT,
    (
        Entity(2, 14, "NAME_LICENSE"),
        Entity(16, 31, "EMAIL_EXAMPLE"),
        Entity(39, 41, "USERNAME"),
        Entity(44, 52, "IP_ADDRESS"),
    ),
    "python",
    "comment",
    3,
)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    write_examples(tmp_path / name, [EXAMPLE, Example("x = 1\n", ())])
    assert read_examples(tmp_path / name) == [EXAMPLE, Example("x = 1\n", ())]


def test_licences_count_and_examples_do_not() -> None:
    assert [(e.label, TEXT[e.start : e.end]) for e in EXAMPLE.entities] == [
        ("NAME", "Ada Lovelace"),
        ("USERNAME", "jd"),
        ("IP_ADDRESS", "10.2.3.4"),
    ]
    assert [e.label for e in EXAMPLE.ignored] == ["EMAIL_EXAMPLE"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"fragments": []}, "row 1 has no text"),
        ({"text": "a"}, "fragments are a list"),
        ({"text": "a", "fragments": [{"category": "NAME"}]}, "fragments are a list"),
        ({"text": "a", "fragments": [{"category": "NAME", "position": [0, 1, 2]}]}, "fragments are a list"),
        ({"text": "a", "fragments": [{"category": "PHONE", "position": [0, 1]}]}, "no category 'PHONE'"),
        ({"text": "a", "fragments": [{"category": "NAME", "position": [0, 2]}]}, "outside its 1 characters"),
        ({"text": "a", "fragments": [{"category": "NAME", "position": [1, 1]}]}, "outside its 1 characters"),
    ],
)
def test_what_is_wrong_with_a_row(tmp_path: Path, row: dict[str, object], message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(row))
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        read_examples(file)


def test_whatever_a_data_set_calls_its_texts(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(
        "".join(json.dumps({"text": "a", "fragments": [], **row}) + "\n" for row in ({"id": "a/b.py"}, {"id": 7}, {}))
    )
    assert [example.id for example in read_examples(file)] == ["a/b.py", 7, 0]
