import importlib.metadata
import sys
from pathlib import Path

import pytest

from starcoder.corpus.sources import Repository, find_repositories, fingerprint
from starcoder.errors import UserError


@pytest.fixture(scope="module")
def installed() -> dict[str, Repository]:
    return {repository.name: repository for repository in find_repositories()}


def test_this_machine_has_many_repositories(installed: dict[str, Repository]) -> None:
    names = [repository.name for repository in find_repositories()]
    assert len(names) == len(set(names)) == len(installed) > 30
    assert names == sorted(names)
    assert {"cpython", "lightning", "numpy", "huggingface-hub"} <= set(names)  # huggingface_hub has its normal name
    assert "starcoder-kit" not in names


def test_files_of_a_distribution(installed: dict[str, Repository]) -> None:
    lightning = installed["lightning"]
    assert lightning.license == "Apache-2.0"
    assert "lightning/pytorch/trainer/trainer.py" in lightning.paths
    assert (lightning.root / "lightning/pytorch/trainer/trainer.py").is_file()
    assert lightning.revision.startswith(importlib.metadata.version("lightning"))
    everything = [path for repository in installed.values() for path in repository.paths]
    assert not [path for path in everything if path.startswith(("..", "/")) or ".dist-info/" in path or ".pyc" in path]


def test_standard_library(installed: dict[str, Repository]) -> None:
    cpython = installed["cpython"]
    assert (cpython.license, cpython.revision) == ("PSF-2.0", sys.version)
    assert {"json/decoder.py", "ast.py"} <= set(cpython.paths)
    assert not [path for path in cpython.paths if "site-packages" in path or "_sysconfigdata" in path]


def make_folder(folder: Path) -> Path:
    for name in ("one", "two"):
        for path in ("a.py", "src/b.py", ".git/config", "__pycache__/a.cpython-311.pyc"):
            (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / path).write_text(f"# {name} {path}\n")
    (folder / "README.md").write_text("beside the repositories")
    return folder


def test_folder_of_repositories(tmp_path: Path) -> None:
    found = find_repositories(make_folder(tmp_path), "MIT")
    assert [(r.name, r.license, r.root, r.paths) for r in found] == [
        (name, "MIT", tmp_path / name, ("a.py", "src/b.py")) for name in ("one", "two")
    ]


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    before = fingerprint(find_repositories(make_folder(tmp_path), "MIT"))
    assert fingerprint(find_repositories(tmp_path, "MIT")) == before
    assert fingerprint(find_repositories(tmp_path, "ISC")) != before
    (tmp_path / "one/a.py").write_text("# longer than it was\n")
    changed = fingerprint(find_repositories(tmp_path, "MIT"))
    (tmp_path / "one/c.py").touch()
    assert len({before, changed, fingerprint(find_repositories(tmp_path, "MIT"))}) == 3


def test_fingerprint_of_this_machine_is_stable(installed: dict[str, Repository]) -> None:
    assert fingerprint(find_repositories()) == fingerprint(list(installed.values()))


def test_wrong_folders(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="not a folder of repositories"):
            find_repositories(folder, "MIT")
    with pytest.raises(UserError, match="needs the licence"):
        find_repositories(make_folder(tmp_path))
    with pytest.raises(UserError, match="only such a folder"):
        find_repositories(license="MIT")
