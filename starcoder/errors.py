"""The one exception that a user's mistake raises, and the form that its message has."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can mend: the message is one line that says what is wrong and what to do.

    The command line prints it without a traceback and exits with `code`.
    """

    code = 2


@contextmanager
def needing(extras: str) -> Iterator[None]:
    """Say of a package that turns out to be missing that these extras of the kit bring it.

    Raises:
        UserError: It is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'starcoder-kit[{extras}]'") from None


def one_line(error: Exception) -> str:
    """The message of `error` without its line breaks."""
    return " ".join(str(error).split())
