import importlib.metadata
import pickle
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from starcoder.corpus.licenses import judge_license
from starcoder.corpus.sources import fingerprint
from starcoder.corpus.sources.base import Candidate, Unit
from starcoder.corpus.sources.installed import Installed

SOURCE = Installed()


@pytest.fixture(scope="module")
def units() -> list[Unit]:
    return SOURCE.units()


@pytest.fixture(scope="module")
def everything(units: list[Unit]) -> list[Candidate]:
    return [candidate for unit in units for candidate in SOURCE.candidates(unit)]


def test_each_distribution_is_a_repository(units: list[Unit], everything: list[Candidate]) -> None:
    names = [unit.name for unit in units]
    assert len(set(names)) == len(names) > 30
    repositories = {candidate.document.repository for candidate in everything}
    assert {"cpython", "lightning", "numpy", "huggingface-hub"} <= repositories  # huggingface_hub has its normal name
    assert "starcoder-kit" not in repositories
    assert repositories <= {name.partition("#")[0] for name in names}


def test_large_ones_are_several_units(units: list[Unit]) -> None:
    torch = [unit for unit in units if unit.name.partition("#")[0] == "torch"]
    assert [unit.name for unit in torch] == [f"torch#{number}" for number in range(len(torch))]
    assert len(torch) > 1
    assert max(unit.size for unit in units) < 25_000_000  # no file in a language is larger than a unit


def test_files_of_a_distribution(everything: list[Candidate]) -> None:
    found = {c.document.path: c for c in everything if c.document.repository == "lightning"}
    trainer = found["lightning/pytorch/trainer/trainer.py"]
    assert trainer.read
    site_packages = Path(sysconfig.get_path("purelib"))
    assert trainer.read() == (site_packages / trainer.document.path).read_bytes()
    assert trainer.document.size == len(trainer.read())
    assert trainer.document.commit == importlib.metadata.version("lightning")
    assert (trainer.document.source, trainer.document.language, trainer.document.extension) == (
        "installed",
        "python",
        "py",
    )


def test_only_source_is_listed_and_each_file_once(everything: list[Candidate]) -> None:
    paths = [candidate.document.path for candidate in everything]
    assert not [path for path in paths if path.startswith(("..", "/")) or ".dist-info/" in path or ".pyc" in path]
    assert max(Counter(candidate.document.name for candidate in everything).values()) == 1


def test_standard_library(everything: list[Candidate]) -> None:
    found = {c.document.path: c for c in everything if c.document.repository == "cpython"}
    assert {"json/decoder.py", "ast.py"} <= set(found)
    assert found["ast.py"].license.expression == "PSF-2.0"
    assert not [path for path in found if "site-packages" in path or "_sysconfigdata" in path]


@pytest.mark.parametrize(
    ("name", "expected"), [("lightning", "Apache-2.0"), ("numpy", "BSD-3-Clause"), ("torch", "BSD-3-Clause")]
)
def test_licence_files_are_evidence(everything: list[Candidate], name: str, expected: str) -> None:
    stated = next(c.license for c in everything if c.document.repository == name and "/" in c.document.path)
    verdict = judge_license(stated.expression)
    assert isinstance(verdict, tuple)
    assert expected in verdict
    assert "LICENSE" in stated.evidence


def test_a_copy_in_another_process_finds_the_same(units: list[Unit]) -> None:
    copy = pickle.loads(pickle.dumps(SOURCE))
    unit = next(unit for unit in units if unit.name in {"numpy", "numpy#0"})
    assert copy.units() == units
    assert fingerprint([copy]) == fingerprint([SOURCE]) != fingerprint([Installed("another")])
    assert [c.document for c in copy.candidates(unit)] == [c.document for c in SOURCE.candidates(unit)]
