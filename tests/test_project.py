"""The promises of pyproject.toml, the lock, the Makefile and the README to each other."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import starcoder

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def locked() -> dict[str, Requirement]:
    lines = (line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] != "#")
    requirements = [Requirement(line) for line in lines]
    return {re.sub(r"[-_.]+", "-", requirement.name).lower(): requirement for requirement in requirements}


def test_the_lock_pins_public_versions_exactly() -> None:
    for requirement in locked().values():
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), requirement
        assert requirement.url is None


@pytest.mark.parametrize(
    "wanted",
    [*PROJECT["dependencies"], *(each for extra, wanted in EXTRAS.items() if extra != "flash" for each in wanted)],
)
def test_the_lock_satisfies_every_dependency(wanted: str) -> None:
    requirement = Requirement(wanted)
    pin = locked()[requirement.name.lower()]
    assert requirement.specifier.contains(str(pin.specifier).removeprefix("==")), f"{pin} does not satisfy {wanted}"


def test_flash_attention_is_declared_and_never_locked() -> None:
    assert Requirement(EXTRAS["flash"][0]).name == "flash-attn"
    assert "flash-attn" not in locked()


def test_the_public_names_are_few_and_come_when_asked_for() -> None:
    assert starcoder.__all__ == ["StarCoder", "StarCoderConfig", "Tokenizer", "generate", "infill"]
    assert all(getattr(starcoder, name).__name__ == name for name in starcoder.__all__)
    program = "import sys, starcoder; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Starcoder'"):
        starcoder.Starcoder  # noqa: B018


def test_make_help_lists_the_targets_that_the_readme_names() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    maintenance = ["help", "setup", "test", "check", "bench", "notebooks", "lock", "resolve", "clean"]
    assert targets == {
        *maintenance,
        "smoke",
        "corpus",
        "tokenizer",
        "shards",
        "plan",
        "starcoderbase",
        "finetune",
        "pii",
        "evaluate",
        "trace",
        "push",
        "serve",
        "playground",
    }
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert set(re.findall(r"make ([a-z0-9-]+)", (ROOT / "README.md").read_text())) <= targets | recipes


def test_ci_runs_what_the_readme_tells_a_user_to_run() -> None:
    targets = re.search(r"for target in ([a-z ]+);", (ROOT / ".ci" / "run").read_text())
    assert targets is not None
    assert targets.group(1).split() == ["check", "test", "smoke", "notebooks"]
