"""What the README tells a reader to type works, in the folder of a finished smoke run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, starcoder

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PROGRAMS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^starcoder .*$", "".join(BLOCKS), re.MULTILINE)


def test_there_are_commands_to_try() -> None:
    assert len(COMMANDS) >= 3
    assert PROGRAMS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_works(command: str, small_run: Path) -> None:
    result = starcoder(small_run, *shlex.split(command, comments=True)[1:])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_readme_works(program: str, small_run: Path) -> None:
    command, environment = [sys.executable, "-c", program], os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=small_run, env=environment, check=True, timeout=120)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:starcoder|recipes|notebooks|tests)/[^` ]*)`", README))))
def test_a_path_of_the_readme_exists(path: str) -> None:
    assert (ROOT / path).exists()
