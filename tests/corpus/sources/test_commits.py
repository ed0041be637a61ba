import os
import pickle
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.formatting import segments
from starcoder.corpus.ingest import Ingest, Rules
from starcoder.corpus.licenses import Declaration
from starcoder.corpus.sources.commits import Commits, excerpt, judge_change, judge_message
from starcoder.errors import UserError
from starcoder.tokenizer import SENTINELS, Sentinel

MESSAGE = "Explain what the five words do"
BODY = "".join(f"line {i}\n" for i in range(100))


def always(value: float) -> Callable[[str], float]:
    return lambda _: value


NEVER_SAMPLED_OUT, ALWAYS_SAMPLED_OUT = always(0.0), always(0.999)


class Repository:
    """A git repository in a folder, which does not look at the machine's configuration."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *command: str) -> str:
        identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        dates = {f"GIT_{who}_DATE": "2020-01-02T03:04:05Z" for who in ("AUTHOR", "COMMITTER")}
        none = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | identity | dates | none
        run = subprocess.run(["git", *command], cwd=self.folder, env=environment, check=True, capture_output=True)
        return run.stdout.decode().strip()

    def commit(self, message: str = MESSAGE, **files: str | bytes | None) -> str:
        """Write or delete files (`a__py` is a.py, None deletes), commit, and return the commit's id."""
        for key, content in files.items():
            path = self.folder / key.replace("__", ".")
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty-message", "--cleanup=verbatim", f"--message={message}")
        return self.git("rev-parse", "HEAD")


def read(path: Path, seed: int = 1234) -> list[Document]:
    source = Commits(path, "MIT", seed)
    return [candidate.document for unit in source.units() for candidate in source.candidates(unit)]


def reasons(path: Path) -> dict[str, str | None]:
    return {
        document.path.rpartition("@")[0]: document.rejection and document.rejection.reason for document in read(path)
    }


def spelled(document: Document) -> str:
    parts = segments(document, 1)
    return "".join(SENTINELS[part] if isinstance(part, Sentinel) else part for part in parts)


class TestMessages:
    @pytest.mark.parametrize(
        ("subject", "reason"),
        [
            (MESSAGE, None),
            ("", "empty commit message"),
            (" \t", "empty commit message"),
            ("My Auto Commit of all five", "uninformative commit message"),
            ("Please update CONTRIBUTING in all places", "uninformative commit message"),
            ('<?xml version="1.0" with five more words', "uninformative commit message"),
            ("Update README.md", "uninformative commit message"),
            ("DEBUG", "uninformative commit message"),
            ("Update the readme file of this", None),
            ("v1.2.3", "commit message is a version"),
            ("10.20.30-rc1", "commit message is a version"),
            ("1.2.3 is the version to release", None),
            ("1.2", None),
            ("a" * 21, "commit message without words"),
            ("a" * 20, None),
            (f"{'a' * 80} b c d e", None),
            (f"{'a' * 95} b c d e", "commit message without words"),
            (" word", "commit message without words"),
            (" two words", None),
        ],
    )
    def test_rules(self, subject: str, reason: str | None) -> None:
        rejection = judge_message(subject, NEVER_SAMPLED_OUT)
        assert (rejection and rejection.reason) == reason

    def test_short_messages_are_sampled(self) -> None:
        assert judge_message("only four words here", ALWAYS_SAMPLED_OUT) is not None
        assert judge_message("now there are five words", ALWAYS_SAMPLED_OUT) is None
        assert judge_message("only four words here", always(0.49)) is None
        assert judge_message("only four words here", always(0.5)) is not None


def lines(*numbers: int) -> str:
    return "".join(f"{i}\n" for i in numbers)


class TestChanges:
    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            (lines(1, 2, 3, 4, 5), lines(1, 0, 0, 0, 5), None),
            (lines(1, 2, 3, 4, 5), lines(1, 0, 3, 0, 5), None),  # the span counts, not the changed lines
            (lines(1, 2, 3, 4, 5), lines(1, 0, 0, 4, 5), "small change"),
            (lines(1), lines(1, *range(2, 5)), None),
            (lines(*range(5)), lines(3, 4), None),
            ("", lines(*range(199)), None),
            ("", lines(*range(200)), "large change"),
            (lines(*range(200)), lines(0), None),
            (lines(*range(201)), lines(0), "large change"),
            (lines(1), "", "file is empty after the commit"),
            ("x" * 100_000, lines(1, 2, 3), "file too long"),
            (lines(1, 2, 3), "x" * 100_000, "file too long"),
            ("x" * 99_999, lines(1, 2, 3), None),
            ("a\r\nb\r\nc\r\n", "a\nb\nc\n", None),
        ],
    )
    def test_rules(self, old: str, new: str, reason: str | None) -> None:
        rejection = judge_change(old, new, ALWAYS_SAMPLED_OUT)
        assert (rejection and rejection.reason) == reason
        kept_at_random = judge_change(old, new, NEVER_SAMPLED_OUT)
        assert (kept_at_random is None) == (reason in (None, "small change", "large change"))

    def test_rate_of_small_changes(self) -> None:
        assert judge_change("a\n", "b\n", always(0.099)) is None
        assert judge_change("a\n", "b\n", always(0.1)) == Rejection("small change", "1 lines, sampled out")


class TestExcerpt:
    def test_whole_file_with_probability_one_fifth(self) -> None:
        new = BODY.replace("line 50\n", "changed\n")
        assert excerpt(BODY, new, always(0.199)) == (BODY, new)
        assert excerpt(BODY, new, always(0.2)) != (BODY, new)

    @pytest.mark.parametrize(("share", "extra"), [(0.2, 6), (0.5, 16), (0.999, 31)])
    def test_window(self, share: float, extra: int) -> None:
        before, after = excerpt(BODY, BODY.replace("line 50\nline 51\n", "changed\n"), always(share))
        around = ([f"line {i}" for i in range(50 - extra, 50)], [f"line {i}" for i in range(52, 52 + extra)])
        assert before.splitlines() == [*around[0], "line 50", "line 51", *around[1]]
        assert after.splitlines() == [*around[0], "changed", *around[1]]

    def test_above_and_below_are_independent(self) -> None:
        draws = {"whole file": 0.5, "lines above": 0.0, "lines below": 0.1}
        new = BODY.replace("line 50\n", "changed\n")
        assert excerpt(BODY, new, draws.__getitem__) == (
            lines_of(50, 54),
            lines_of(50, 54).replace("line 50", "changed"),
        )

    def test_window_ends_with_the_file(self) -> None:
        assert excerpt("a\nb", "a\nc", always(0.9)) == ("a\nb", "a\nc")

    SMALL = st.lists(st.sampled_from(["a\n", "b\n", "\n", "c"]), max_size=8).map("".join)

    @given(SMALL, SMALL, st.floats(0, 0.99))
    def test_the_same_is_cut_away_on_both_sides(self, old: str, new: str, share: float) -> None:
        before, after = excerpt(old, new, always(share))
        ends = ((old[:i], old[i + len(before) :]) for i in range(len(old) - len(before) + 1))
        assert any((top + before + end, top + after + end) == (old, new) for top, end in ends)


def lines_of(start: int, stop: int) -> str:
    return "".join(f"line {i}\n" for i in range(start, stop))


class TestRepository:
    def test_document(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "owner" / "name")
        repository.commit("Add the two files that we need", a__py="x = 1\ny = 2\nz = 3\n", b__py="")
        new = "x = '<commit_msg>'\ny = 3\nz = 4\n"
        sha = repository.commit("Name the <commit_after> token in it\n\nA body that nobody reads.", a__py=new)
        source = Commits(tmp_path, "Apache-2.0")
        (unit,) = source.units()
        (candidate,) = source.candidates(unit)
        document = candidate.document
        assert (unit.name, unit.revision, unit.size > 0) == ("owner/name", f"{sha} 1234 Apache-2.0", True)
        assert (document.repository, document.path) == ("owner/name", f"a.py@{sha[:12]}")
        assert (document.kind, document.commit, document.source) == ("commit", sha, "commits")
        assert (document.language, document.extension, document.rejection) == ("python", "py", None)
        assert document.size == len(document.content)
        assert segments(document, 1) == [
            *(Sentinel.COMMIT_BEFORE, "x = 1\ny = 2\nz = 3\n"),
            *(Sentinel.COMMIT_MSG, "Name the <commit_after> token in it", Sentinel.COMMIT_AFTER, new),
        ]
        assert candidate.license == Declaration("Apache-2.0", "stated for the source: Apache-2.0")
        assert pickle.loads(pickle.dumps(source)) == source
        assert Commits(tmp_path / "owner" / "name", "MIT").units()[0].name == "name"

    def test_without_license(self, tmp_path: Path) -> None:
        Repository(tmp_path / "r").commit(a__py=lines(*range(9)))
        source = Commits(tmp_path)
        (candidate,) = source.candidates(source.units()[0])
        assert candidate.license == Declaration("", "")

    def test_a_checkout_declares_its_own(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        repository.commit("Say in its metadata what it is under", package__json='{"license": "ISC"}\n')
        repository.commit("Write the first of its files", a__py=lines(*range(9)))
        repository.git("remote", "add", "origin", "https://example.org/Owner/Name.git")
        source = Commits(tmp_path)
        candidates = {
            candidate.document.path.partition("@")[0]: candidate
            for unit in source.units()
            for candidate in source.candidates(unit)
        }
        assert candidates["a.py"].license == Declaration("ISC", "package.json")
        assert candidates["a.py"].document.repository == "Owner/Name"

    def test_which_commits_are_looked_at(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        repository.commit("Two files are not one file", a__py=BODY, b__py="b\n")
        repository.git("commit", "--quiet", "--allow-empty", "--message=No file is not one")
        repository.git("switch", "--quiet", "--create=side")
        repository.commit("Change one file on the side", b__py=lines(1, 2, 3, 4))
        repository.git("switch", "--quiet", "main")
        repository.commit("Add the docs file of it", c__md=lines(*range(9)))
        repository.git("merge", "--quiet", "--message=Merge the side branch into this", "side")
        repository.git("mv", "a.py", "moved.py")
        repository.commit("Rename a file and change it", moved__py=BODY + lines(*range(9)))
        repository.git("mv", "moved.py", "again.py")
        repository.commit("Rename a file and nothing else")
        (repository.folder / "again.py").chmod(0o755)
        repository.commit("Make a file of ours executable")
        (repository.folder / "link.py").symlink_to("again.py")
        repository.commit("A link is not a file")
        repository.commit("Take away the file of b", b__py=None)
        found = {document.path.rpartition("@")[0]: document for document in read(tmp_path)}
        assert list(found) == ["b.py", "c.md", "moved.py"]
        assert spelled(found["moved.py"]).count("line 99\n") == 2  # compared with the file under its old name
        assert spelled(found["c.md"]).startswith("<commit_before><commit_msg>Add the docs file of it<commit_after>0\n")

    def test_reasons(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        good = lines(*range(9))
        for path, (message, content) in {
            "kept__py": (MESSAGE, good),
            "Dockerfile": (MESSAGE, good),
            "unknown__xyz": (MESSAGE, good),
            "message__py": ("Update", good),
            "none__py": ("", good),
            "binary__py": (MESSAGE, b"\0" * 9),
            "latin__py": (MESSAGE, b"\xe9\n" * 9),
            "long__py": (MESSAGE, "x = 1\n" * 20_000),
            "huge__py": (MESSAGE, "x" * 3_000_000),
            "empty__py": (MESSAGE, ""),
        }.items():
            repository.commit(message, **{path: content})
        assert reasons(tmp_path) == {
            "kept.py": None,
            "Dockerfile": None,
            "unknown.xyz": "extension not in the table",
            "message.py": "uninformative commit message",
            "none.py": "empty commit message",
            "binary.py": "binary",
            "latin.py": "not UTF-8",
            "long.py": "file too long",
            "huge.py": "file too long",
            "empty.py": "file is empty after the commit",
        }

    def test_the_stage_of_a_rejection(self, tmp_path: Path) -> None:
        """What is sampled out, or too little to learn from, is the filters'; what cannot be read has no stage."""
        repository = Repository(tmp_path / "r")
        for i in range(3):
            repository.commit(f"Write version {i} of all of it", a__py=lines(*range(100 * i, 100 * i + 50)))
        repository.commit("Update", b__py=lines(*range(9)))
        repository.commit(c__py="")
        repository.commit(d__py=b"\0" * 9)
        found = [document.rejection for document in read(tmp_path) if document.rejection]
        assert {(rejection.reason, rejection.stage) for rejection in found} == {
            ("another commit of the file", "filters"),
            ("uninformative commit message", "filters"),
            ("file is empty after the commit", "filters"),
            ("binary", ""),
        }

    def test_the_whole_texts_come_with_the_window(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        (repository.folder / "src").mkdir()
        notice = "# SPDX-License-Identifier: GPL-3.0-only\n"
        repository.commit("Write a long file of ours", **{"src/a__py": notice + BODY})
        repository.commit("Change the end of the file", **{"src/a__py": notice + BODY.replace("99\n", "98\n1\n2\n3\n")})
        for seed in range(8):
            source = Commits(tmp_path, "MIT", seed)
            every = [candidate for unit in source.units() for candidate in source.candidates(unit)]
            (kept,) = [candidate for candidate in every if not candidate.document.rejection]
            assert kept.file == "src/a.py"
            assert kept.texts[-1].startswith(notice)
            (judged,) = Ingest(Rules()).documents(kept, Ingest(Rules()).listed(kept))
            assert judged.rejection
            assert (judged.rejection.stage, judged.content) == ("licence", "")

    def test_the_size_of_a_unit_is_that_of_its_history(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        sizes = []
        for i in range(3):
            repository.commit(a__py=lines(*range(9 * i, 9 * i + 9)))
            sizes.append(Commits(tmp_path).units()[0].size)
        assert sizes == [sizes[0], 2 * sizes[0], 3 * sizes[0]]
        repository.git("gc", "--quiet", "--aggressive", "--prune=now")
        assert Commits(tmp_path).units()[0].size == sizes[-1]

    def test_one_commit_a_file_is_kept(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        for i in range(6):
            repository.commit(f"Write version {i} of all of it", a__py=lines(*range(100 * i, 100 * i + 50)))
        chosen = set()
        for seed in range(16):
            documents = read(tmp_path, seed)
            kept = [document for document in documents if not document.rejection]
            assert len(documents) == 6
            assert len(kept) == 1
            assert {document.rejection.reason for document in documents if document.rejection} <= {
                "another commit of the file"
            }
            chosen.add(re.findall(r"version (\d)", kept[0].content)[0])
        assert len(chosen) > 3
        assert read(tmp_path, 15) == documents

    def test_shares_of_what_is_sampled(self, tmp_path: Path) -> None:
        """Within five standard deviations of the binomial share."""
        repository = Repository(tmp_path / "r")
        count = 8
        for i in range(count):
            repository.commit(f"Write data file {i} of ours", **{f"d{i}__json": lines(*range(9))})
            repository.commit(f"Write {i}", **{f"m{i}__py": lines(*range(9))})
            repository.commit(f"Write a small file {i} here", **{f"s{i}__py": "x\n"})
        every = [kept_paths(read(tmp_path, seed)) for seed in range(16)]
        for prefix, rate in (("d", 0.5), ("m", 0.5), ("s", 0.1)):
            share = fmean(
                any(path.startswith(f"{prefix}{i}.") for path in kept) for kept in every for i in range(count)
            )
            assert share == pytest.approx(rate, abs=5 * (rate * (1 - rate) / (16 * count)) ** 0.5)

    def test_other_repositories_do_not_matter(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            Repository(tmp_path / name).commit(MESSAGE, a__py=lines(*range(9)))
        both = read(tmp_path)
        assert both == [*read(tmp_path / "one"), *read(tmp_path / "two")]


def kept_paths(documents: list[Document]) -> set[str]:
    return {document.path for document in documents if not document.rejection}


class TestOddRepositories:
    def test_shallow(self, tmp_path: Path) -> None:
        whole = Repository(tmp_path / "whole")
        for i in range(3):
            whole.commit(a__py=lines(*range(9 * i, 9 * i + 9)))
        whole.git("clone", "--quiet", "--depth=1", f"file://{whole.folder}", str(tmp_path / "one"))
        whole.git("clone", "--quiet", "--depth=2", f"file://{whole.folder}", str(tmp_path / "two"))
        assert read(tmp_path / "one") == []
        assert [document.commit for document in read(tmp_path / "two")] == [whole.git("rev-parse", "HEAD")]

    def test_bare(self, tmp_path: Path) -> None:
        whole = Repository(tmp_path / "whole")
        whole.commit(a__py=lines(*range(9)))
        whole.git("clone", "--quiet", "--bare", str(whole.folder), str(tmp_path / "bare.git"))
        (document,) = read(tmp_path / "bare.git")
        assert (document.repository, document.rejection) == ("bare.git", None)

    def test_empty_and_damaged(self, tmp_path: Path) -> None:
        Repository(tmp_path / "empty")
        (tmp_path / "damaged" / ".git").mkdir(parents=True)
        headless = Repository(tmp_path / "headless")
        sha = headless.commit(a__py=lines(*range(9)))
        (headless.folder / ".git" / "objects" / sha[:2] / sha[2:]).unlink()
        found = read(tmp_path)
        assert [document.repository for document in found] == ["damaged", "empty", "headless"]
        assert [document.rejection and document.rejection.reason for document in found] == ["history unreadable"] * 3

    def test_damaged_checkout_is_not_the_repository_around_it(self, tmp_path: Path) -> None:
        outer = Repository(tmp_path / "outer")
        outer.commit(a__py=lines(*range(9)))
        (outer.folder / "inner" / ".git").mkdir(parents=True)
        (document,) = read(outer.folder / "inner")
        assert document.rejection is not None
        assert document.rejection.reason == "history unreadable"

    def test_missing_content(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        repository.commit(a__py=lines(*range(9)))
        repository.commit(b__py=lines(*range(5)))
        blob = repository.git("rev-parse", "HEAD:a.py")
        (repository.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
        assert reasons(tmp_path) == {"a.py": "content missing", "b.py": None}

    def test_hostile_configuration_runs_nothing(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        repository.commit(a__py=lines(*range(9)))
        (repository.folder / ".gitattributes").write_text("*.py diff=evil filter=evil\n")
        for key in ("diff.external", "diff.evil.textconv", "filter.evil.smudge", "core.fsmonitor", "core.pager"):
            repository.git("config", key, f"touch {tmp_path / 'run'}; cat")
        repository.git("config", "log.showRoot", "false")
        assert reasons(tmp_path) == {"a.py": None}
        assert not (tmp_path / "run").exists()

    def test_names_that_are_not_utf8(self, tmp_path: Path) -> None:
        repository = Repository(tmp_path / "r")
        (repository.folder / os.fsdecode(b"\xe9 a.py")).write_text(lines(*range(9)))
        repository.commit()
        (document,) = read(tmp_path)
        assert document.path.startswith(r"\xe9 a.py@")
        assert document.rejection is None

    def test_surroundings_of_a_hook_do_not_matter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Repository(tmp_path / "r").commit(a__py=lines(*range(9)))
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
        assert reasons(tmp_path) == {"a.py": None}

    def test_no_repository(self, tmp_path: Path) -> None:
        (tmp_path / "plain" / "folder").mkdir(parents=True)
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(UserError, match="is no git repository"):
                Commits(path, "MIT").units()

    def test_no_git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Repository(tmp_path / "r")
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match="git is not installed"):
            Commits(tmp_path, "MIT").units()
