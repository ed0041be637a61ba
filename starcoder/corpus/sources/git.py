"""Running git on a repository that may be somebody else's: it runs none of its programs, and fetches nothing."""

import os
import subprocess
from pathlib import Path
from typing import IO

from starcoder.errors import UserError

# The checkout must be readable by us, and its configuration must not make git run programs or print more than asked.
_GIT = (
    *("git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false"),
    *("-c", "log.showSignature=false", "-c", "log.showRoot=true"),
)


class GitError(Exception):
    """What git cannot do with a repository, in its words."""


def run(folder: Path, *command: str) -> bytes:
    """What a git command prints.

    Raises:
        GitError: It fails.
        UserError: There is no git on this machine.
    """
    with start(folder, *command, stderr=subprocess.PIPE) as git:
        output, errors = git.communicate()
    if git.returncode:
        raise GitError(first_line(errors))
    return output


def start(
    folder: Path, *command: str, stderr: int | IO[bytes], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """A running git command, whose output is a pipe.

    Raises:
        UserError: There is no git on this machine.
    """
    try:
        return subprocess.Popen(
            [*_GIT, "-C", str(folder), *command],
            env=_environment(folder),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    except FileNotFoundError:
        raise UserError(f"git is not installed; {folder} is read with it") from None


def first_line(errors: bytes) -> str:
    """The first line of what git says went wrong."""
    return errors.decode(errors="replace").partition("\n")[0] or "git failed"


def _environment(folder: Path) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return outside | {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent),  # a damaged repository is not the one around it
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
