"""The one exception that a user's mistake raises, and the form that its message has."""


class UserError(Exception):
    """Something the user can mend: the message is one line that says what is wrong and what to do.

    The command line prints it without a traceback and exits with `code`.
    """

    code = 2


def one_line(error: Exception) -> str:
    """The message of `error` without its line breaks."""
    return " ".join(str(error).split())
