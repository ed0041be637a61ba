import json
from pathlib import Path

import pytest

from starcoder.cli import run
from starcoder.errors import UserError
from starcoder.pii.benchmark import PAPER, Result, measure, table, tell_errors
from starcoder.pii.entity import Detector, Entity
from starcoder.pii.examples import Example, write_examples

TEXT = "# Ada <ada.lovelace@analytical-engine.org> 34.12.7.200\n"
EXAMPLES = [
    Example(TEXT, (Entity(2, 5, "NAME"), Entity(7, 40, "EMAIL"), Entity(42, 54, "IP_ADDRESS"))),
    Example("see version.four@analytical-engine.org\n", ()),
]


class Words(Detector):
    name = "words"

    def detect(self, text: str) -> list[Entity]:
        return [Entity(2, 5, "NAME"), Entity(7, 12, "EMAIL")] if text == TEXT else [Entity(0, 3, "NAME")]


def test_counts_are_those_of_the_overlap_rule() -> None:
    result = measure(Words(), EXAMPLES)
    assert result.total.by_label["NAME"].precision == 0.5
    assert result.total.by_label["NAME"].recall == 1
    assert result.total.by_label["EMAIL"].f1 == 0


def test_the_table_stands_beside_the_papers() -> None:
    head, name, *_, everything = table([measure(Words(), EXAMPLES)])
    assert head.split()[:3] == ["label", "there", "words"]
    assert name.split() == ["NAME", "1", "50.0/100.0/66.7", "–", "86.5/97.4/91.6"]
    assert everything.split() == ["all", "3", "33.3/33.3/33.3", "–", "–"]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_f1_follows_from_its_precision_and_recall(name: str) -> None:
    for label, (precision, recall, f1) in PAPER[name].items():
        exact = 2 * precision * recall / (precision + recall)
        slack = 0.2 if (name, label) == ("StarPII", "EMAIL") else 0.01  # the paper prints 98.15, not 98.33
        assert abs(exact - f1) < slack


def test_a_labelled_file_is_measured_and_errors_are_masked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_examples(tmp_path / "data.parquet", EXAMPLES)
    output, errors = tmp_path / "out.json", tmp_path / "errors.txt"
    run(["pii", "benchmark", str(tmp_path / "data.parquet"), "--output", str(output), "--errors", str(errors)])
    counts = json.loads(output.read_text())["regex"]["labels"]
    assert (counts["EMAIL"]["hits"], counts["EMAIL"]["extra"], counts["EMAIL"]["missed"]) == (1, 1, 0)
    assert (counts["NAME"]["hits"], counts["NAME"]["missed"]) == (0, 1)
    assert "regex: missed NAME  # [[***]] <***>***" in errors.read_text()
    assert "regex: extra EMAIL  see [[***]]" in errors.read_text()
    assert "2 texts" in capsys.readouterr().out


def test_errors_tell_no_character_of_what_is_labelled_or_found() -> None:
    text = "0123SECRET789-OTHER-"
    example = Example(text, (Entity(4, 10, "PASSWORD"), Entity(14, 19, "NAME")))
    result = Result("half", [[Entity(2, 7, "PASSWORD")]], [], 1.0)
    masked, shown = (list(tell_errors([example], [result], show)) for show in (False, True))
    assert masked == [
        "half: missed PASSWORD  01***[[***]]789-***-",
        "half: missed NAME  01***789-[[***]]-",
        "half: extra PASSWORD  01[[***]]***789-***-",
    ]
    assert shown[0] == "half: missed PASSWORD  0123[[SECRET]]789-OTHER-"


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    write_examples(tmp_path / "data.jsonl", [EXAMPLES[1]])
    with pytest.raises(UserError, match="has nothing to find"):
        run(["pii", "benchmark", str(tmp_path / "data.jsonl")])
