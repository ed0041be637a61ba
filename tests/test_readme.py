"""What the README tells a reader to type works, in the folder of a finished smoke run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, starcoder

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
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


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`(make [^`]+)`", README))))
def test_a_make_command_of_the_readme_is_one(command: str) -> None:
    """Only said, not done: the targets that take no day are run by the other tests and by CI."""
    made = shlex.split(command)
    variables = [word.partition("=")[0] for word in made[2:]]
    assert all(re.search(rf"^{name} \?= ?", MAKEFILE, re.MULTILINE) for name in variables)
    subprocess.run([*made, "-n", "-o", ".venv/.up-to-date"], cwd=ROOT, capture_output=True, check=True)


def test_fine_tuning_on_a_repository_of_ones_own(small_run: Path, tmp_path: Path) -> None:
    code = tmp_path / "repository"
    shutil.copytree(ROOT / "starcoder", code)
    options = {
        "BIN": Path(sys.executable).parent,
        "CODE": code,
        "MODEL": small_run / "build/smoke/starcoder",
        "FINETUNE_DIR": tmp_path / "made",
        "STEPS": 2,
        "CONTEXT": 128,
        "GPUS": 2,
    }
    command = ["make", "finetune", "-o", ".venv/.up-to-date", *(f"{name}={value}" for name, value in options.items())]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=180)
    args = ["generate", "--model", str(tmp_path / "made/model"), "--prompt", "def f(x):", "--max_new_tokens", "4"]
    assert starcoder(tmp_path, *args).returncode == 0


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:starcoder|recipes|notebooks|tests)/[^` ]*)`", README))))
def test_a_path_of_the_readme_exists(path: str) -> None:
    assert (ROOT / path).exists()
