"""A model repository on the Hugging Face Hub (§9), changed by one commit at a time: nobody ever sees half a release.

token ─► repository, gate ─► branch ─► large files, one by one ─► commit onto what was there ─► compare ─► tag

Large files that have arrived stay there whatever happens next, so doing it again sends what is missing.
"""

import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from starcoder.errors import UserError
from starcoder.release.contents import File, is_derived

RETRIES = (2, 4, 8)
"""Seconds before a commit that the Hub could not take is sent again; the client does not do that itself."""
SILENCE = 300
"""Seconds without a byte after which a connection counts as lost."""
LARGE = 1_000_000
"""Bytes from which on a file is sent by itself, ahead of the commit."""
_TEMPORARY = (500, 502, 503, 504)
_BY_TYPE: dict[type[BaseException], str] = {
    LocalTokenNotFoundError: "there is no token for the Hub: log in with `hf auth login`, or set HF_TOKEN",
    OfflineModeIsEnabled: "the Hub is not to be reached while HF_HUB_OFFLINE is set: unset it",
}
_FULL = "the Hub has no room left for {repo}: free some or buy more, and run again ({said})"
_REASONS = {
    401: "the Hub does not know this token: log in with `hf auth login`, or set HF_TOKEN, which goes first",
    402: _FULL,
    403: "the token may not do that to {repo}: it needs the right to write there; without it, --pr proposes ({said})",
    404: "there is no {repo}, or this token may not see it ({said})",
    409: "the name {repo} is taken, by what this token may not see: choose another ({said})",
    412: "somebody else has committed to {repo} meanwhile: look at it, and run again to commit after that",
    413: _FULL,
    429: "the Hub asks for a pause: run again in some minutes, and it goes on with what is missing",
    507: _FULL,
}


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

    def put(
        self,
        files: Mapping[str, File],
        branch: str,
        message: str,
        tag: str | None = None,
        pr: bool = False,
        mirror: bool = False,
    ) -> None:
        """Make `branch` hold `files`; what else it holds stays, unless it belongs to other weights, or `mirror` is set.

        Raises:
            UserError: when `tag` names another commit, or the Hub has not kept what it was sent.
        """
        head = self._head(branch)
        missing, stale = self._differences(files, head, mirror)
        tagged = self._tags().get(tag or "")
        if tagged and (missing or stale or tagged != head):
            raise UserError(f"{self.name} has a tag {tag} already, of another commit: choose another name")
        if missing or stale:
            head = self._send(files, missing, stale, branch, head, message, pr, mirror)
        told = f"{len(missing)} of {len(files)} files are new" if missing else f"all {len(files)} files were there"
        print(f"{self.name} at {branch}: {told}", flush=True)
        if tag and not tagged:
            self.api.create_tag(self.name, tag=tag, revision=head)

    def _head(self, branch: str) -> str:
        """The last commit of `branch`, which is created when it is missing."""
        branches = self.api.list_repo_refs(self.name).branches
        if not branch.startswith("refs/") and branch not in {found.name for found in branches}:
            self.api.create_branch(self.name, branch=branch, exist_ok=True)
        return str(self.api.repo_info(self.name, revision=branch).sha)

    def _tags(self) -> dict[str, str]:
        return {tag.name: tag.target_commit for tag in self.api.list_repo_refs(self.name).tags}

    def _differences(self, files: Mapping[str, File], revision: str, mirror: bool) -> tuple[list[str], list[str]]:
        """Names of the files that a revision lacks, or holds otherwise; and of those that it should not hold."""
        there: dict[str, Any] = {
            entry.path: entry
            for entry in self.api.list_repo_tree(self.name, recursive=True, revision=revision)
            if hasattr(entry, "blob_id")
        }
        missing = [name for name, file in files.items() if not _same(file, there.get(name))]
        extra = there.keys() - files.keys() - {".gitattributes"}
        return missing, sorted(name for name in extra if mirror or is_derived(name))

    def _send(
        self,
        files: Mapping[str, File],
        missing: list[str],
        stale: list[str],
        branch: str,
        head: str,
        message: str,
        pr: bool,
        mirror: bool,
    ) -> str:
        additions = [CommitOperationAdd(name, files[name].path) for name in missing]
        large = [addition for addition in additions if files[addition.path_in_repo].size >= LARGE]
        for number, addition in enumerate(large, 1):
            size = size_of(files[addition.path_in_repo].size)
            print(f"{number} of {len(large)}: {addition.path_in_repo}, {size}", flush=True)
            revision = None if pr else branch
            self.api.preupload_lfs_files(self.name, [addition], revision=revision, create_pr=pr, free_memory=False)
        operations = [*additions, *(CommitOperationDelete(name) for name in stale)]
        try:
            commit = self._commit(operations, branch, head, message, pr)
        except Exception:
            # Whether a commit was taken is unknown when its answer was lost; a second try meets one's own commit.
            commit = "" if pr else self._landed(files, branch, mirror)
            if not commit:
                raise
        if left := self._differences(files, commit, mirror=False)[0]:
            raise UserError(f"{self.name} does not hold {', '.join(left)} as sent: look at its .gitignore, if any")
        return commit

    def _commit(self, operations: list[Any], branch: str, head: str, message: str, pr: bool) -> str:
        """Commit onto `head` and nothing else, again and again while the Hub has no time for it."""
        waits = iter(RETRIES)
        while True:
            try:
                commit = self.api.create_commit(
                    self.name, operations, commit_message=message, revision=branch, create_pr=pr, parent_commit=head
                )
            except HfHubHTTPError as error:
                status, wait = error.response.status_code, next(waits, None)
                if wait is None or status not in _TEMPORARY or "/commit/" not in error.response.request.url.path:
                    raise
                print(f"the Hub answers {status} to the commit: again in {wait} s", file=sys.stderr, flush=True)
                time.sleep(wait)
            else:
                print(f"pull request {commit.pr_url}" if pr else f"commit {commit.commit_url}", flush=True)
                return str(commit.oid)

    def _landed(self, files: Mapping[str, File], branch: str, mirror: bool) -> str:
        """The last commit of `branch` when nothing is left to do there, otherwise nothing."""
        try:
            head = self._head(branch)
            return "" if any(self._differences(files, head, mirror)) else head
        except Exception:  # the connection is gone: what failed before is the reason
            return ""


def _same(file: File, entry: Any) -> bool:
    if entry is None or entry.size != file.size:
        return False
    return bool(entry.lfs.sha256 == file.sha256 if entry.lfs else entry.blob_id == file.git_oid)


@contextmanager
def client(repo: str) -> Iterator[None]:
    """The Hub's client on its good behaviour: no silence for ever, no secrets in its log, no bars in a log file.

    Raises:
        UserError: for whatever it raises.
    """
    get_session().timeout = SILENCE
    log, bars = logging.getLogger("huggingface_hub.utils._http"), not are_progress_bars_disabled()
    log.addFilter(_discreet)
    if bars and not sys.stderr.isatty():
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warnings while validating metadata")
            yield
    except UserError:
        raise
    except Exception as error:  # the client lets its HTTP library's exceptions through, and raises some of Python's own
        raise UserError(explain(error, repo)) from None
    finally:
        log.removeFilter(_discreet)
        if bars:
            enable_progress_bars()


def explain(error: Exception, repo: str) -> str:
    """What went wrong on the way to `repo` and what to do, without the secrets that addresses and headers carry."""
    chain = list(_chain(error))
    said = clean(" ".join(str(link) for link in chain))
    named = re.search(r"Error while uploading '(.+?)'", said)
    what = f" at {named[1]}" if named else ""
    answer = next((link for link in chain if isinstance(link, HfHubHTTPError)), None)
    if line := next((_BY_TYPE[type(link)] for link in chain if type(link) in _BY_TYPE), None):
        return line
    if re.search(r"quota|storage limit|insufficient storage|not enough storage", said, re.IGNORECASE):
        return _FULL.format(repo=repo, said=_server(answer, said))
    if "Invalid metadata in README.md" in said:
        return f"the Hub does not read the metadata of the model card README.md ({_server(answer, said)}): mend it"
    if answer is not None:
        return _by_status(answer, repo, what)
    if any(type(link).__module__.startswith("httpx") or isinstance(link, ConnectionError) for link in chain):
        return f"the connection to the Hub was lost{what}: run again, and it goes on with what is missing"
    return f"cannot push to {repo}{what}: {type(error).__name__}: {said}"


def clean(text: str) -> str:
    """`text` in one line, without tokens and without the signatures of addresses."""
    if token := get_token():
        text = text.replace(token, "…")
    text = re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]*", r"\1", text)
    return " ".join(re.sub(r"\bhf_\w{8,}|\b(?:Bearer|Basic) \S+", "…", text).split())


def size_of(n_bytes: int) -> str:
    """Bytes for a reader: "98.0 MB"."""
    size, unit = float(n_bytes), 0
    while size >= 1000 and unit < 4:
        size, unit = size / 1000, unit + 1
    return f"{size:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}" if unit else f"{n_bytes} B"


def _by_status(error: HfHubHTTPError, repo: str, what: str) -> str:
    status, said = error.response.status_code, _server(error)
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated, and this token's account has no access: ask its owners for it on its page"
    if status in _REASONS:
        return _REASONS[status].format(repo=repo, said=said)
    verb = "fails" if status >= 500 else f"refuses {repo}"
    return f"the Hub {verb}{what} with {status} ({said}): run again later, and it goes on with what is missing"


def _server(error: HfHubHTTPError | None, otherwise: str = "it says nothing more") -> str:
    return clean((error.server_message if error else None) or otherwise)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _discreet(record: logging.LogRecord) -> bool:
    record.msg, record.args = clean(record.getMessage()), ()
    return True
