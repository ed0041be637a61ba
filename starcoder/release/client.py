"""The Hub's client on its good behaviour (§9), and what its exceptions mean for whoever pushes."""

import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_session, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from starcoder.errors import UserError

SILENCE = 300
"""Seconds without a byte after which a connection counts as lost."""
LOGS = (
    *("huggingface_hub.utils._http", "huggingface_hub.file_download"),
    *("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.http2", "httpcore2.proxy"),
)
"""Where addresses and headers are logged; a filter does not see what a logger below its own is told."""
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


@contextmanager
def client(repo: str) -> Iterator[None]:
    """The Hub's client on its good behaviour: no silence for ever, no secrets in its log, no bars in a log file.

    Large files go by Git LFS, which the Hub takes from every client: what is said of a push that goes on after a
    failure is tested with that. Xet would save what two versions of a file share; those of weights share next to
    nothing.

    Raises:
        UserError: for whatever it raises.
    """
    get_session().timeout = SILENCE
    bars = not are_progress_bars_disabled()
    xet, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    if bars and not sys.stderr.isatty():
        disable_progress_bars()
    try:
        with discreet_logs(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Warnings while validating metadata")
            yield
    except UserError:
        raise
    except Exception as error:  # the client lets its HTTP library's exceptions through, and raises some of Python's own
        raise UserError(explain(error, repo)) from None
    finally:
        constants.HF_HUB_DISABLE_XET = xet
        if bars:
            enable_progress_bars()


@contextmanager
def discreet_logs() -> Iterator[None]:
    """Neither tokens nor signatures of addresses in what the client logs meanwhile."""
    logs = [logging.getLogger(name) for name in LOGS]
    for log in logs:
        log.addFilter(_discreet)
    try:
        yield
    finally:
        for log in logs:
            log.removeFilter(_discreet)


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
