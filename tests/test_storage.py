from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.storage import atomic_file, atomic_folder, replace_folder


def fail_half_way(path: Path) -> None:
    path.write_text("half")
    Path("no such folder/file").read_text()


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with pytest.raises(FileNotFoundError), atomic_file(path) as partial:
        fail_half_way(partial)
    assert list(path.parent.iterdir()) == []
    with atomic_file(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
    assert [(child.name, child.read_text()) for child in path.parent.iterdir()] == [("file", "whole")]


def test_a_folder_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, Path()):
        with pytest.raises(UserError, match="is a folder: name a file"), atomic_file(path):
            raise AssertionError
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with atomic_folder(path, marker="m") as partial:
        (partial / "m").write_text("old")
        (partial / "gone").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_folder(path, marker="m") as partial:
        fail_half_way(partial / "m")
    assert (path / "m").read_text() == "old"
    with atomic_folder(path, marker="m") as partial:
        (partial / "m").write_text("new")
    assert [(child.name, child.read_text()) for child in path.iterdir()] == [("m", "new")]
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_ours_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="something else"), atomic_folder(tmp_path, marker="m"):
        pass
    with pytest.raises(UserError, match="something else"), atomic_folder(tmp_path / "thesis.tex", marker="m"):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_replacement_survives_a_kill_between_its_two_renames(tmp_path: Path) -> None:
    old, new = tmp_path / ".folder.old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    replace_folder(new, tmp_path / "folder")
    assert [(child.name, (child / "file").read_text()) for child in tmp_path.iterdir()] == [("folder", "new")]


def test_what_looks_like_a_copy_of_the_folder_stays(tmp_path: Path) -> None:
    for name in ("folder", "folder.old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "folder")
    found = sorted((child.name, (child / "file").read_text()) for child in tmp_path.iterdir())
    assert found == [("folder", "new"), ("folder.old", "folder.old")]
