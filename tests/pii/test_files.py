import os
import subprocess
from pathlib import Path

import pytest

from starcoder.corpus.document import Rejection
from starcoder.errors import UserError
from starcoder.pii.files import find_files, read_text


def names(*paths: Path, max_bytes: int = 1000) -> dict[str, str]:
    return {Path(found.name).name: found.problem for found in find_files(paths, max_bytes)}


def test_a_folder_is_walked_and_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.py").write_text("x = 1\n")
    (tmp_path / "b.txt").write_text("b" * 2000)
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    assert names(tmp_path) == {"a.py": "", "b.txt": "larger than 1,000 bytes", "link": "link"}


def test_what_a_corpus_leaves_out_is_read_and_nothing_twice(tmp_path: Path) -> None:
    for folder in ("site-packages", "x.egg-info", ".git/hooks"):
        (tmp_path / "code" / folder).mkdir(parents=True)
        (tmp_path / "code" / folder / f"{len(folder)}.py").write_text("x = 1\n")
    found = find_files([tmp_path / "code", tmp_path / "code" / "site-packages", tmp_path / "code"], 1000)
    assert sorted(file.path.name for file in found) == ["10.py", "13.py"]


def test_of_a_checkout_all_is_read_that_git_does_not_ignore(tmp_path: Path) -> None:
    for name in ("tracked.py", "other.py", "ignored.py"):
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "tracked.py"], check=True)
    assert names(tmp_path) == {".gitignore": "", "other.py": "", "tracked.py": ""}


def test_a_named_file_is_read_even_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\r\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "a.py")
    (found,) = find_files([tmp_path / "link.py"], 1000)
    assert read_text(found) == "x = 1\r\n"


def test_what_is_no_text_says_why(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\0\1")
    (tmp_path / "latin").write_bytes("Müller".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe")
    read = {Path(found.name).name: read_text(found) for found in find_files([tmp_path], 1000)}
    assert read == {
        "binary": Rejection("binary"),
        "latin": Rejection("not UTF-8", "byte 1"),
        "pipe": Rejection("not a file"),
    }


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        list(find_files([tmp_path / "nowhere"], 1000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_told_and_passed_over(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "a.py").write_text("x = 1\n")
    assert names(tmp_path)["a.py"] == ""
    assert "unreadable" in names(tmp_path).values()
