"""A model repository on the Hugging Face Hub (§9), changed by one commit at a time: nobody ever sees half a release.

token ─► repository, gate ─► branch ─► large files, one by one ─► commit onto what was there ─► compare ─► tag

Large files that have arrived stay there whatever happens next, so doing it again sends what is missing.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, Discussion, HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from starcoder.errors import UserError
from starcoder.release.client import size_of
from starcoder.release.contents import CARD, File, is_about_weights, is_replaced, is_result, is_terms, is_weights
from starcoder.release.licences import front_matter

MAIN = "main"
RETRIES = (2, 4, 8)
"""Seconds before a commit that the Hub could not take is sent again; the client does not do that itself."""
LARGE = 1_000_000
"""Bytes from which on a file is sent by itself, ahead of the commit."""
_TEMPORARY = (500, 502, 503, 504)


@dataclass(frozen=True)
class Change:
    """What a branch shall hold.

    Args:
        files: by path in the repository.
        branch: created from main when it is missing.
        message: title of the commit.
        tag: name for the commit.
        pr: whether to propose it instead, to main.
        checkpoint: whether the branch is that of a checkpoint, which does not take over what main holds.
    """

    files: Mapping[str, File]
    branch: str
    message: str
    tag: str | None = None
    pr: bool = False
    checkpoint: bool = False


@dataclass(frozen=True)
class Plan:
    """How a revision becomes what a `Change` wants, in names of files.

    Args:
        missing: what it lacks, or holds otherwise.
        stale: what it must not hold any longer.
        doubtful: what stays, although it may be about other weights.
    """

    missing: list[str]
    stale: list[str]
    doubtful: list[str]

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return not self.missing and not self.stale

    def tell(self, where: str, removed: str) -> None:
        """Say what happens to files that are there."""
        for name in self.stale:
            print(f"{where}: {name} {removed}", flush=True)
        for name in self.doubtful:
            print(f"{where}: {name} stays: look whether it is about these weights", flush=True)


class Repository:
    """A model repository on the Hub and whoever the token belongs to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.api = HfApi()

    def open(self, visibility: str | None, gated: Literal["auto", "manual"] | None, must_exist: bool = False) -> None:
        """Make sure that the token may write, and that the repository is there, as open as it shall be.

        Raises:
            UserError: when the token is for reading only.
        """
        if self.api.whoami().get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise UserError("the token is for reading only: make one that may write at the Hub, and log in with it")
        try:
            there = self.api.repo_info(self.name)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            if must_exist:
                raise
            self.api.create_repo(self.name, private=visibility != "public")
            there = self.api.repo_info(self.name)
        wishes: dict[str, Any] = {}
        if visibility and (visibility == "private") != there.private:
            wishes["private"] = visibility == "private"
        if gated and gated != there.gated:
            wishes["gated"] = gated
        if wishes:
            self.api.update_repo_settings(self.name, **wishes)

    def preview(self, change: Change) -> None:
        """Say what `put` would do; nothing is changed."""
        try:
            branch = change.branch if self._is_there(change.branch) else MAIN
            plan = self._plan(change, self._head(branch))
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            print(f"{self.name} would be created, or this token may not see it")
            return
        print(f"{self.name} at {change.branch}: {len(plan.missing)} of {len(change.files)} files would be new")
        plan.tell(f"{self.name} at {change.branch}", "would be removed")

    def put(self, change: Change) -> None:
        """Make a branch hold the files of a change; of what else it holds, only what older weights have left goes.

        Raises:
            UserError: when its tag names another commit, or the Hub has not kept what it was sent.
        """
        if not self._is_there(change.branch):
            self.api.create_branch(self.name, branch=change.branch, exist_ok=True)
        head, where = self._head(change.branch), f"{self.name} at {change.branch}"
        plan = self._plan(change, head)
        tagged = self._tags().get(change.tag or "")
        if tagged and (not plan.done or tagged != head):
            raise UserError(f"{self.name} has a tag {change.tag} already, of another commit: choose another name")
        if not plan.done and change.pr and (proposed := self._proposed(change)):
            print(f"pull request {proposed.url} proposes just that already", flush=True)
            return
        if not plan.done:
            plan.tell(where, "is removed")
            head = self._send(change, plan, head)
        n_new, n_files = len(plan.missing), len(change.files)
        told = f"{n_new} of {n_files} files are new" if n_new else f"all {n_files} files were there"
        print(f"{where}: {told}", flush=True)
        if change.tag and not tagged:
            self.api.create_tag(self.name, tag=change.tag, revision=head)

    def take_over(self, folder: Path, branch: str) -> None:
        """Put main's licence, and a card that leads to main's, into `folder`, but for what `branch` has of its own.

        Args:
            folder: a checkpoint that was exported.
            branch: where it goes.
        """
        own: Mapping[str, Any] = {}
        if self._is_there(branch) and not self._is_of_main(head := self._head(branch)):
            own = self._tree(head)
        for name in self._tree(MAIN):
            if (name == CARD or is_terms(name)) and name not in own:
                hf_hub_download(self.name, name, revision=MAIN, local_dir=folder)
        if (folder / CARD).is_file():
            known = front_matter(folder / CARD)
            terms = {key: known[key] for key in ("license", "license_name", "license_link") if key in known}
            (folder / CARD).write_text(
                f"---\n{yaml.safe_dump(terms)}---\n\nThe checkpoint {branch} of a training. What came of it, and under"
                f" which terms, is said in [the model card of {self.name}]({self.api.endpoint}/{self.name}).\n",
                encoding="utf-8",
            )

    def _is_there(self, branch: str) -> bool:
        names = {found.name for found in self.api.list_repo_refs(self.name).branches}
        return branch in names or branch.startswith("refs/")

    def _head(self, revision: str) -> str:
        return str(self.api.repo_info(self.name, revision=revision).sha)

    def _is_of_main(self, commit: str) -> bool:
        """Whether a branch that ends there has nothing of its own."""
        return commit in {each.commit_id for each in self.api.list_repo_commits(self.name, revision=MAIN)}

    def _tags(self) -> dict[str, str]:
        return {tag.name: tag.target_commit for tag in self.api.list_repo_refs(self.name).tags}

    def _tree(self, revision: str) -> dict[str, Any]:
        entries = self.api.list_repo_tree(self.name, recursive=True, revision=revision)
        return {entry.path: entry for entry in entries if hasattr(entry, "blob_id")}

    def _plan(self, change: Change, revision: str) -> Plan:
        there = self._tree(revision)
        missing = [name for name, file in change.files.items() if not _same(file, there.get(name))]
        others = sorted(there.keys() - change.files.keys())
        if change.checkpoint and self._is_of_main(revision):
            return Plan(missing, [name for name in others if name != ".gitattributes"], [])  # main keeps it all
        if not any(is_weights(name) for name in missing):
            return Plan(missing, [], [])
        stale = [name for name in others if is_replaced(name) or (is_result(name) and self._is_ours(name, revision))]
        return Plan(missing, stale, [name for name in others if name not in stale and is_about_weights(name)])

    def _is_ours(self, name: str, revision: str) -> bool:
        """Whether a file on the Hub is just as `starcoder card` wrote it."""
        from starcoder.release.card import is_edited

        with TemporaryDirectory() as place:
            return not is_edited(Path(hf_hub_download(self.name, name, revision=revision, local_dir=place)))

    def _proposed(self, change: Change) -> Discussion | None:
        """An open pull request of this account after which nothing of a change is left to do."""
        open_ones = self.api.get_repo_discussions(
            self.name, author=self.api.whoami()["name"], discussion_type="pull_request", discussion_status="open"
        )
        return next((each for each in open_ones if self._plan(change, f"refs/pr/{each.num}").done), None)

    def _send(self, change: Change, plan: Plan, head: str) -> str:
        additions = [_addition(name, change.files[name]) for name in plan.missing]
        large = [addition for addition in additions if change.files[addition.path_in_repo].size >= LARGE]
        for number, addition in enumerate(large, 1):
            size = size_of(change.files[addition.path_in_repo].size)
            print(f"{number} of {len(large)}: {addition.path_in_repo}, {size}", flush=True)
            revision = None if change.pr else change.branch
            self.api.preupload_lfs_files(
                self.name, [addition], revision=revision, create_pr=change.pr, free_memory=False
            )
        try:
            commit = self._commit(change, [*additions, *map(CommitOperationDelete, plan.stale)], head)
        except Exception:
            # Whether a commit was taken is unknown when its answer was lost; a second try meets one's own commit.
            commit = self._landed(change)
            if not commit:
                raise
        there = self._tree(commit)
        if left := [name for name in plan.missing if not _same(change.files[name], there.get(name))]:
            raise UserError(f"{self.name} does not hold {', '.join(left)} as sent: look at its .gitignore, if any")
        return commit

    def _commit(self, change: Change, operations: list[Any], head: str) -> str:
        """Commit onto `head` and nothing else, again and again while the Hub has no time for it."""
        waits = iter(RETRIES)
        while True:
            try:
                commit = self.api.create_commit(
                    self.name,
                    operations,
                    commit_message=change.message,
                    revision=change.branch,
                    create_pr=change.pr,
                    parent_commit=head,
                )
            except HfHubHTTPError as error:
                status, wait = error.response.status_code, next(waits, None)
                if wait is None or status not in _TEMPORARY or "/commit/" not in error.response.request.url.path:
                    raise
                print(f"the Hub answers {status} to the commit: again in {wait} s", file=sys.stderr, flush=True)
                time.sleep(wait)
            else:
                print(f"pull request {commit.pr_url}" if change.pr else f"commit {commit.commit_url}", flush=True)
                return str(commit.oid)

    def _landed(self, change: Change) -> str:
        """The last commit of the branch, or of a pull request, when nothing is left to do there, otherwise nothing."""
        try:
            if change.pr:
                found = self._proposed(change)
                return self._head(f"refs/pr/{found.num}") if found else ""
            head = self._head(change.branch)
            return head if self._plan(change, head).done else ""
        except Exception:  # the connection is gone: what failed before is the reason
            return ""


def _addition(name: str, file: File) -> CommitOperationAdd:
    addition = CommitOperationAdd(name, file.path)
    if file.size >= LARGE:
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)  # lest the client reads the file once more for it
    return addition


def _same(file: File, entry: Any) -> bool:
    if entry is None or entry.size != file.size:
        return False
    return bool(entry.lfs.sha256 == file.sha256 if entry.lfs else entry.blob_id == file.git_oid)
