from dataclasses import replace
from pathlib import Path

import pytest

from starcoder.attribution.calibration import (
    FILE,
    LENGTHS,
    Calibration,
    Row,
    _chosen,
    calibrate,
    frequency,
    measured,
    snippet,
)
from starcoder.attribution.corpus import Corpus
from starcoder.attribution.index import Index, index
from starcoder.attribution.verdict import Thresholds
from starcoder.corpus.sampling import random_key
from starcoder.errors import UserError
from tests.attribution.corpora import file, files, function, write_corpus

ROWS = (
    Row("", 300, {"nothing": 90, "similar": 5, "partial": 3, "verbatim": 2}),
    Row("", 3000, {"nothing": 50, "similar": 25, "partial": 25, "verbatim": 0}),
    Row("python", 300, {"nothing": 30, "similar": 5, "partial": 4, "verbatim": 1}),
)
UNMEASURED = "eve/copy"
KNOWN = Calibration("digest", Thresholds(), (40, 10, 0), 7, ROWS)


@pytest.mark.parametrize(
    ("level", "language", "characters", "words"),
    [
        (
            "verbatim",
            "python",
            200,
            "1 in 40 human python snippets of about 300 characters comes to this level (1 of 40",
        ),
        (
            "partial",
            "python",
            5000,
            "1 in 8 human python snippets of about 300 characters (longer ones were not measured) comes to this level",
        ),
        ("partial", "c", 500, "1 in 20 human code snippets of about 300 characters comes to this level (5 of 100"),
        ("similar", None, 1500, "1 in 2 human code snippets of about 3,000 characters comes to this level (50 of 100"),
        ("verbatim", None, 1500, "no human code snippets of about 3,000 characters came to this level (0 of 100"),
        ("nothing", None, 10, "in 90 of 100 from 7 repositories held out, human code snippets of about 300 characters"),
    ],
)
def test_a_level_is_told_with_how_often_it_is_innocent(
    level: str, language: str | None, characters: int, words: str
) -> None:
    assert KNOWN.frequency(level, language, characters).startswith(words)  # type: ignore[arg-type]


def test_copies_in_held_out_code_are_counted_and_a_stale_calibration_is_not_told(tmp_path: Path) -> None:
    train = [*files("ann", 2, 3), file("bob/tool", "main.py")]
    copying = replace(file("held/copy", "a.py"), content=function("bob/tool/main.py/1"))
    others = [replace(copying, repository=name) for name in (UNMEASURED, "ann/lib0")]  # the latter is in the corpus
    corpus = write_corpus(tmp_path / "corpus", train, [copying, *others, *files("held", 7, 1)])
    index(corpus, tmp_path / "trace")
    calibrate(tmp_path / "trace", least=4)
    opened = Index.open(tmp_path / "trace")
    found = Calibration.read(opened)
    assert found is not None
    assert found.repositories == 4
    rows = {(row.language, row.characters): row.levels for row in found.rows}
    assert rows["", 1000] == rows["python", 1000] == {"nothing": 3, "similar": 0, "partial": 0, "verbatim": 1}
    assert frequency(opened, "verbatim", "python", 1000).startswith("1 in 4 human python snippets")
    index(corpus, tmp_path / "trace", rate=1e-3)
    assert "run `starcoder trace calibrate" in frequency(Index.open(tmp_path / "trace"), "verbatim", "python", 300)
    (tmp_path / "trace" / FILE).write_text("{")
    with pytest.raises(UserError, match=r"damaged .*: run `starcoder trace calibrate") as error:
        Calibration.read(opened)
    assert "\n" not in str(error.value)
    calibrate(tmp_path / "trace", least=4)
    assert Calibration.read(Index.open(tmp_path / "trace")) is not None


def test_half_of_the_held_out_repositories_are_left_to_choose_thresholds_on() -> None:
    names = [f"owner/lib{n}" for n in range(2000)]
    assert 900 < sum(map(measured, names)) < 1100
    assert [n for n in range(12) if measured(f"held/lib{n}")] == [1, 2, 6, 9, 10, 11]  # for ever


def test_without_held_out_repositories_there_is_nothing_to_measure(tmp_path: Path) -> None:
    held = [file(UNMEASURED, "a.py"), file("ann/lib0", "held.py")]
    index(write_corpus(tmp_path / "corpus", files("ann", 1, 3), held), tmp_path / "trace")
    with pytest.raises(UserError, match="holds no repository out"):
        calibrate(tmp_path / "trace")
    with pytest.raises(UserError, match="at least 1"):
        calibrate(tmp_path / "trace", snippets=0)


def test_the_snippets_are_those_of_the_first_files_in_random_order(tmp_path: Path) -> None:
    held = files("held", 7, 7)
    corpus = Corpus.open(write_corpus(tmp_path / "corpus", files("ann", 1, 1), held))
    first = sorted(
        filter(lambda document: measured(document.repository), held), key=lambda document: random_key(7, document.name)
    )
    for length in LENGTHS:
        long = [document for document in first if snippet(document, length, 7)]
        chosen = [each for each in _chosen(corpus, 6, 7) if each.length == length]
        assert [(each.name, each.text) for each in chosen] == [(d.name, snippet(d, length, 7)) for d in long[:6]]


def test_snippets_are_whole_lines_of_the_length() -> None:
    document = file("ann/lib", "a.py")
    for seed in range(50):
        text = snippet(document, 300, seed)
        assert f"\n{text}" in f"\n{document.content}"
        assert len(text) >= 300 > len(text) - len(text.splitlines()[-1]) - 1
    assert len({snippet(document, 300, seed) for seed in range(50)}) > 10
    assert snippet(document, 10**6, 0) == ""
