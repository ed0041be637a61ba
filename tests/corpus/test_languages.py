import csv
from pathlib import Path

import pytest

from starcoder.corpus.languages import THRESHOLDS, Thresholds, language_of

ORACLE = Path(__file__).parents[2] / "../shared/data/stack-filters/filters.csv"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@pytest.mark.skipif(not ORACLE.exists(), reason="the table of the released preprocessing is not here")
def test_table_equals_the_released_one() -> None:
    with ORACLE.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["include"] == "1"]
    expected = {
        (row["language"], row["extension"]): Thresholds(
            line=_number(row["long_line_threshold"]),  # "remove" and remarks mean that there is no rule
            alnum=_number(row["alphanumeric_threshold"]),
            alpha=_number(row["alphabetic_threshold"]),
            xml=row["xml_filter"] == "1",
        )
        for row in rows
    }
    assert len(rows) == 267
    assert expected == THRESHOLDS


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.py", ("python", "py")),
        ("A.PY", ("python", "py")),
        ("x.tar.cpp", ("c++", "cpp")),
        ("include/x.h", ("c", "h")),
        ("x.h++", ("c++", "h++")),
        ("t/basic.t", ("perl", "t")),
        ("FindX.cmake", ("cmake", "cmake")),
        ("Makefile", ("makefile", "")),
        ("src/GNUmakefile", ("makefile", "")),
        ("Makefile.txt", ("makefile", "txt")),
        ("Makefile.cmake", ("makefile", "cmake")),
        ("rules.mk", ("makefile", "mk")),
        ("Dockerfile", ("dockerfile", "")),
        ("Dockerfile.1", ("dockerfile", "1")),
        ("base.dockerfile", ("dockerfile", "dockerfile")),
        ("makefile.py", ("python", "py")),
        ("dockerfile.json", ("json", "json")),
        ("requirements.txt", None),
        ("CMakeLists.txt", None),
        ("man/git.1", None),
        ("page.mustache", None),
        ("LICENSE", None),
        ("stubs/x.pyi", None),
        ("core.pyx", None),
        (".gitignore", None),
        ("Makefile.am", None),
        ("py", None),
    ],
)
def test_language_of(path: str, expected: tuple[str, str] | None) -> None:
    assert language_of(path) == expected


def test_every_row_can_be_reached() -> None:
    names = {"makefile": "Makefile", "dockerfile": "Dockerfile"}
    for language, extension in THRESHOLDS:
        path = names.get(language, "file") + (f".{extension}" if extension else "")
        assert language_of(path) == (language, extension)
