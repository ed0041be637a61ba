import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from starcoder.cli import COMMANDS, LIGHTNING_COMMANDS, main

ROOT = Path(__file__).parents[1]


def starcoder(*args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "starcoder.cli", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("starcoder: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_the_surface_is_what_the_readme_tells() -> None:
    assert list(COMMANDS) == [
        "corpus build",
        "corpus inspect",
        "tokenizer train",
        "tokenize",
        "fit",
        "validate",
        "export",
        "generate",
        "verify",
        "smoke",
        "smoke report",
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_exists_and_documents_its_options(name: str) -> None:
    module, function = COMMANDS[name][0].split(":")
    target = getattr(import_module(module), function)
    if name in LIGHTNING_COMMANDS:
        return
    documented = inspect.getdoc(target) or ""
    assert all(f"{parameter}:" in documented for parameter in inspect.signature(target).parameters)


def test_help_lists_every_subcommand_without_importing_torch() -> None:
    program = "import sys; from starcoder.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(name in result.stdout for name in COMMANDS)


def test_help_of_a_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["corpus", "build", "--help"])
    assert stop.value.code == 0
    assert "--output" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["bake"], ["bake", "--help"]),
        (["corpus"], ["starcoder corpus build"]),
        (["corpus", "build", "--colour", "red"], ["--colour"]),
        (["tokenize", "--corpus", "missing", "--tokenizer", "missing", "--output", "build/never"], ["missing"]),
        (["corpus", "inspect", "--folder", "missing"], ["missing"]),
        (["export", "--checkpoint", "no.ckpt", "--tokenizer", "missing", "--output", "build/never"], ["no.ckpt"]),
        (["verify", "--folder", "no/such/folder"], ["no/such/folder"]),
        (["smoke", "--output", "build/never", "--steps", "no"], ["steps"]),
        (["smoke", "--output", "build/never", "--steps", "3"], ["3 steps"]),
        (["tokenize", "--corpus", "build", "--tokenizer", "build", "--output", "."], ["build"]),
        (["validate", "--config", "recipes/smoke.yaml"], ["--ckpt_path"]),
        (["fit", "--config", "recipes/smoke.yaml", "--model.learning_rate", "0"], ["learning_rate is 0"]),
        (["fit", "--config", "recipes/smoke.yaml", "--trainer.accelerator", "gpu"], ["gpu"]),
        (["fit", "--config", "recipes/smoke.yaml", "--data.tokenizer", "nowhere"], ["nowhere"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args: list[str], words: list[str]) -> None:
    assert_one_line(starcoder(*args), *words)
    assert not (ROOT / "build" / "never").exists()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("model:\n  colour: red\n", ["colour"]),
        ("model:\n  learning_rate: high\n", ["learning_rate"]),
        ("model: [\n", ["line 2"]),
        (None, ["recipe.yaml"]),
    ],
)
def test_a_bad_recipe_is_one_line_and_exit_code_2(tmp_path: Path, recipe: str | None, words: list[str]) -> None:
    path = tmp_path / "recipe.yaml"
    if recipe is not None:
        path.write_text(recipe)
    assert_one_line(starcoder("fit", "--config", "recipes/smoke.yaml", "--config", str(path)), *words)


def test_a_full_disk_is_one_line_and_nothing_half_written(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        source = tmp_path.parent / "source"
        for number in range(2):
            (source / f"repository{number}").mkdir(parents=True)
            lines = "".join(f"def function_{number}_{n}(value):\n    return value + {n**5}\n" for n in range(20_000))
            (source / f"repository{number}" / "module.py").write_text(lines)
        options = ["--source", str(source), "--license", "MIT", "--output", str(tmp_path / "corpus")]
        assert_one_line(starcoder("corpus", "build", *options), "disk is full")
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
