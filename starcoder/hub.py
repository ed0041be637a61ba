"""Reading from the Hugging Face Hub: what goes wrong is said in one line, without the secrets that addresses carry."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starcoder.errors import UserError

_PART = r"\w(?:[\w.-]{0,94}\w)?"
_REPOSITORY = re.compile(rf"(?!.*(?:--|\.\.)){_PART}/{_PART}(?<!\.git)", re.ASCII)


def is_repository(name: str | Path) -> bool:
    """Whether this can be the name of a repository, OWNER/NAME, by the rules of the Hub; a folder's path can, too."""
    return _REPOSITORY.fullmatch(str(name)) is not None


def check_revision(folder: str | Path, revision: str | None) -> None:
    """Refuse a revision of a folder, as only repositories have them.

    Raises:
        UserError: when one is given.
    """
    if revision is not None:
        raise UserError(f"{folder} is no repository on the Hub: it has no revision {revision}, leave that out")


@contextmanager
def fetching(source: str | Path) -> Iterator[None]:
    """Say why the Hub does not give `source`; what this machine has no room or no right for is passed on.

    Raises:
        UserError: for whatever else the Hub's client raises, its HTTP library's exceptions included.
    """
    from starcoder.release.client import discreet_logs

    try:
        with discreet_logs():
            yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise
        raise UserError(_explain(str(source), error)) from None


def _explain(source: str, error: Exception) -> str:
    from huggingface_hub import errors

    from starcoder.release.client import clean

    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code >= 500:
        return f"the Hub fails with {error.response.status_code} at {source}: run again later, and it goes on"
    if type(error).__module__.startswith("httpx") or type(error) in (ConnectionError, TimeoutError):
        return f"the connection to the Hub was lost at {source}: run again, and it goes on with what is missing"
    reason = clean(str(error).splitlines()[0] if str(error) else type(error).__name__)
    if isinstance(error, errors.GatedRepoError):
        reason = "it is gated: ask for access on its page, and log in with `hf auth login`"
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason = "there is none of that name, or it is private: log in with `hf auth login`, or set HF_TOKEN"
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = "it has no such revision"
    return f"{source} is neither a folder nor a repository that the Hub gives: {reason}"
