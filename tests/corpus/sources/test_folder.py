import os
import pickle
import subprocess
from pathlib import Path

import pytest

from starcoder.corpus.document import Rejection
from starcoder.corpus.licenses import judge_license
from starcoder.corpus.sources.base import Candidate, Source
from starcoder.corpus.sources.folder import Checkout, Folder
from starcoder.errors import UserError

MIT = """MIT License

Copyright (c) 2020 A. Author

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder: Path, remote: str | None = None) -> str:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    if remote:
        git(folder, "remote", "add", "origin", remote)
    return git(folder, "rev-parse", "HEAD")


def found(source: Source) -> dict[str, Candidate]:
    everything = [candidate for unit in source.units() for candidate in source.candidates(unit)]
    assert len({candidate.document.name for candidate in everything}) == len(everything)
    return {candidate.document.name: candidate for candidate in everything}


def test_a_folder_of_repositories(tmp_path: Path) -> None:
    for name in ("two", "one"):
        write(tmp_path / name, a_py=f"# {name}\n", src__b_py="b = 1\n", _git__config="", __pycache__a_pyc="")
    (tmp_path / "README.md").write_text("beside the repositories")
    (tmp_path / ".git").mkdir()
    source = Folder(tmp_path, "MIT")
    assert [unit.name for unit in source.units()] == ["one", "two"]
    candidates = found(source)
    assert list(candidates) == ["one/a.py", "one/src/b.py", "two/a.py", "two/src/b.py"]
    read = candidates["two/a.py"].read
    assert read
    assert read() == b"# two\n"
    assert {(c.license.expression, c.document.commit, c.document.source) for c in candidates.values()} == {
        ("MIT", "", "folder")
    }


def test_a_checkout_has_its_tracked_files_alone(tmp_path: Path) -> None:
    root = write(tmp_path / "clone", a_py="a", src__b_py="b", gone_py="c", _gitignore="*.log\n")
    head = commit(root, "https://user:token@github.com/Owner/name.git")
    write(root, new_py="untracked", src__x_log="ignored", node__modules__x_js="untracked")
    (root / "gone.py").unlink()
    candidates = found(Checkout(root, "MIT"))
    assert list(candidates) == ["Owner/name/.gitignore", "Owner/name/a.py", "Owner/name/src/b.py"]
    assert {candidate.document.commit for candidate in candidates.values()} == {head}


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("https://github.com/owner/repo", "owner/repo"),
        ("https://github.com/owner/repo.js.git/", "owner/repo.js"),
        ("git@github.com:owner/repo.git", "owner/repo"),
        ("github.com:owner/repo", "owner/repo"),
        ("ssh://git@example.org:2222/owner/repo.git", "owner/repo"),
        ("https://gitlab.com/group/sub/repo.git", "group/sub/repo"),
        ("git@gitlab.com:group/a/b/c/repo", "group/a/b/c/repo"),
        ("ssh://git@example.org/~alice/repo/", "~alice/repo"),
        ("https://gist.github.com/repo.git", "clone"),
        ("/srv/mirrors/repo.git", "clone"),
        ("file:///srv/mirrors/repo.git", "clone"),
        ("../other", "clone"),
        (None, "clone"),
    ],
)
def test_name_of_a_checkout(tmp_path: Path, remote: str | None, expected: str) -> None:
    root = write(tmp_path / "clone", a_py="a")
    git(root, "init", "-q")
    git(root, "add", "-A")
    if remote:
        git(root, "remote", "add", "origin", remote)
    assert list(found(Checkout(root))) == [f"{expected}/a.py"]  # without any commit, too


def test_git_knows_nothing(tmp_path: Path) -> None:
    """A broken .git, even inside another checkout, is no reason to lose the files."""
    write(tmp_path, outer_py="outer", inner__a_py="a", inner__b_py="b")
    commit(tmp_path)
    write(tmp_path / "inner", c_py="not tracked by the outer one")
    (tmp_path / "inner/.git").write_text("gitdir: nowhere")
    assert list(found(Checkout(tmp_path / "inner"))) == ["inner/a.py", "inner/b.py", "inner/c.py"]
    (tmp_path / "inner/.git").unlink()
    (tmp_path / "inner/.git").mkdir()
    assert list(found(Checkout(tmp_path / "inner"))) == ["inner/a.py", "inner/b.py", "inner/c.py"]


def test_the_environment_of_a_git_hook_does_not_mislead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, root = write(tmp_path / "other", x_py="x"), write(tmp_path / "root", a_py="a")
    commit(other)
    commit(root)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert list(found(Checkout(root))) == ["root/a.py"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a checkout to another user")
def test_a_checkout_of_another_user(tmp_path: Path) -> None:
    root = write(tmp_path / "root", a_py="a")
    head = commit(root)
    write(root, b_py="untracked")
    for path in [root, *root.rglob("*")]:
        os.chown(path, 65534, 65534)
    assert [c.document.commit for c in found(Checkout(root)).values()] == [head]


def test_git_runs_no_program_that_a_checkout_names(tmp_path: Path) -> None:
    root = write(tmp_path / "root", a_py="a")
    commit(root)
    script = tmp_path / "monitor"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    git(root, "config", "core.fsmonitor", str(script))
    found(Checkout(root))
    assert not (tmp_path / "ran").exists()


def test_nothing_is_fetched_for_a_checkout(tmp_path: Path) -> None:
    """Where objects are missing that a partial clone would fetch, git must not ask the remote: it may be a program."""
    root = write(tmp_path / "root", a_py="a")
    commit(root)
    script = tmp_path / "upload-pack"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    script.chmod(0o755)
    git(root, "remote", "add", "origin", str(tmp_path / "elsewhere"))
    for key, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": str(script),
    }.items():
        git(root, "config", key, value)
    for path in (root / ".git/objects").glob("??/*"):
        path.unlink()
    assert list(found(Checkout(root))) == ["root/a.py"]
    assert not (tmp_path / "ran").exists()


def test_links_are_told_and_not_followed(tmp_path: Path) -> None:
    root = write(tmp_path / "folder" / "root", a_py="a", sub__b_py="b")
    (root / "link.py").symlink_to("/etc/passwd")
    commit(root)
    write(tmp_path / "outside", b_py="not ours")
    (root / "sub/b.py").unlink()
    (root / "sub").rmdir()
    (root / "sub").symlink_to(tmp_path / "outside")  # since the commit
    (tmp_path / "folder/also").symlink_to(tmp_path / "outside")
    candidates = found(Folder(tmp_path / "folder"))
    reasons = {name: c.document.rejection and c.document.rejection.reason for name, c in candidates.items()}
    assert reasons == {"also/": "link", "root/a.py": None, "root/link.py": "link", "root/sub": "link"}


def test_tracked_names_that_are_not_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.py")).touch()
    write(tmp_path, a_py="a")
    commit(tmp_path)
    write(tmp_path, b_py="untracked")
    rejections = {c.document.path: c.document.rejection for c in found(Checkout(tmp_path)).values()}
    assert rejections == {"a.py": None, "caf\\udce9.py": Rejection("undecodable name")}


def test_repositories_whose_name_is_not_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).mkdir()
    candidates = found(Folder(tmp_path))
    assert [c.document.rejection for c in candidates.values()] == [Rejection("unreadable")]
    assert next(iter(candidates)).encode()


def licences(root: Path, license: str | None = None) -> dict[str, tuple[str, ...] | str]:
    everything = found(Checkout(root, license)).values()
    verdicts = {c.document.path: judge_license(c.license.expression) for c in everything}
    return {path: v.reason if isinstance(v, Rejection) else v for path, v in verdicts.items() if path.endswith(".py")}


def test_licences_come_from_texts_and_metadata(tmp_path: Path) -> None:
    root = write(tmp_path / "root", a_py="a", deep__b_py="b")
    assert set(licences(root).values()) == {"licence unknown"}
    write(root, deep__LICENSE=MIT)
    assert licences(root) == {"a.py": "licence unknown", "deep/b.py": ("MIT",)}
    write(root, pyproject_toml="[project]\nname = 'x'\nlicense = 'Apache-2.0'\n")
    assert licences(root) == {"a.py": ("Apache-2.0",), "deep/b.py": ("MIT",)}
    write(root, package_json='{"license": "GPL-3.0-only"}')
    assert licences(root)["a.py"] == "licence not permissive"


def test_a_licence_that_is_stated_for_all(tmp_path: Path) -> None:
    root = write(tmp_path / "root", a_py="a", package_json='{"license": "GPL-3.0-only"}')
    assert licences(root, "MIT") == {"a.py": ("MIT",)}  # instead of the metadata
    write(root, LICENSE=MIT)
    assert licences(root, "MIT") == {"a.py": ("MIT",)}
    assert licences(root, "LicenseRef-Own") == {"a.py": "licence not permissive"}
    stated = found(Checkout(root, "Apache-2.0"))["root/a.py"].license
    assert judge_license(stated.expression) == ("Apache-2.0", "MIT")  # both apply, and both are told
    assert "stated for the source" in stated.evidence
    assert "LICENSE: MIT" in stated.evidence


def test_large_repositories_are_read_in_parts(tmp_path: Path) -> None:
    root = write(tmp_path / "root", LICENSE=MIT)
    for number in range(5):
        with (root / f"{number}.py").open("wb") as file:
            file.truncate(7_000_000)
    source = Folder(tmp_path)
    assert [(unit.name, unit.size) for unit in source.units()] == [
        ("root#0", 14_000_000),
        ("root#1", 14_000_000),
        ("root#2", 7_000_000),
    ]
    candidates = found(source)
    assert list(candidates) == [*(f"root/{number}.py" for number in range(5)), "root/LICENSE"]
    assert {c.license.expression for c in candidates.values()} == {"MIT"}


def test_revisions_follow_what_is_read(tmp_path: Path) -> None:
    root = write(tmp_path / "root", a_py="a")
    seen = [Folder(tmp_path).units(), Folder(tmp_path, "MIT").units()]
    write(root, a_py="longer")
    seen.append(Folder(tmp_path).units())
    commit(root)
    seen.append(Folder(tmp_path).units())
    git(root, "commit", "-q", "--amend", "-m", "another commit of the same files")
    seen.append(Folder(tmp_path).units())
    git(root, "remote", "add", "origin", "https://github.com/a/b")
    seen.append(Folder(tmp_path).units())
    assert len({unit.revision for [unit] in seen}) == len(seen)
    write(root, b_py="untracked")
    assert Folder(tmp_path).units() == seen[-1]
    assert pickle.loads(pickle.dumps(Folder(tmp_path))).units() == seen[-1]


def test_wrong_folders(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UserError, match="not a folder of repositories"):
            Folder(path).units()
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(UserError, match="not a folder with files"):
            Checkout(path).units()


def test_git_is_needed_for_a_checkout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "root", a_py="a")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(found(Checkout(root))) == ["root/a.py"]
    (root / ".git").mkdir()
    with pytest.raises(UserError, match="git is not installed"):
        Checkout(root).units()
