"""What the README tells a reader to type works, in the folder of a finished smoke run."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT, starcoder

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^starcoder .*$", "".join(BLOCKS), re.MULTILINE)


def test_there_are_commands_to_try() -> None:
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(command: str, small_run: Path) -> None:
    result = starcoder(small_run, *shlex.split(command, comments=True)[1:])
    assert result.returncode == 0, result.stderr
    assert result.stdout


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:starcoder|recipes|notebooks|tests)/[^` ]*)`", README))))
def test_a_path_of_the_readme_exists(path: str) -> None:
    assert (ROOT / path).exists()
