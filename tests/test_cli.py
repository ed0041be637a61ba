import inspect
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from starcoder.cli import COMMANDS, LIGHTNING_COMMANDS, main
from starcoder.training.checkpoint import newest, read_meta
from tests.conftest import ROOT, Command, Tiny, starcoder
from tests.nursery import start

STRATEGY = "trainer.strategy"
ON_TWO_PROCESSES = ["--trainer.accelerator=cpu", "--trainer.num_nodes=1", "--trainer.devices=2"]
ON_TWO_PROCESSES += [f"--{STRATEGY}.init_args.shard_size=2"]


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
        "corpus opt-out",
        "pii scan",
        "pii redact",
        "pii train",
        "pii benchmark",
        "tokenizer train",
        "tokenize",
        "fit",
        "validate",
        "plan",
        "export",
        "copies",
        "card",
        "generate",
        "serve",
        "playground",
        "evaluate",
        "trace index",
        "trace query",
        "trace calibrate",
        "trace serve",
        "verify",
        "push",
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
        (["pii", "redact", "missing", "--output", "build/never"], ["missing is neither a folder nor"]),
        (["copies", "recipes", "--shards+", "missing", "--output", "build/never"], ["recipes/tokenizer.json"]),
        (["trace", "index", "missing", "--output", "build/never"], ["no corpus in missing", "starcoder corpus build"]),
        (["trace", "query", "README.md", "--index", "missing"], ["no index in missing", "starcoder trace index"]),
        (["trace", "query", "missing.py"], ["missing.py cannot be read"]),
        (["trace", "calibrate", "missing"], ["no index in missing"]),
        (["playground", "no/such/folder", "--port", "0"], ["no/such/folder"]),
        (["card", "no/such/folder"], ["no/such/folder holds no model"]),
        (["push", "no/such/folder", "--repo", "ada/model"], ["no/such/folder is no folder"]),
        (["smoke", "--output", "build/never", "--steps", "no"], ["steps"]),
        (["fit", "--config", "recipes/starcoderbase.yaml"], ["finds no GPU", "--trainer.accelerator=cpu"]),
        (["plan", "--recipe", "nothing"], ["nothing"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args: list[str], words: list[str]) -> None:
    assert_one_line(starcoder(ROOT, *args), *words)
    assert not (ROOT / "build" / "never").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["corpus", "build", "--accept", "MIT"], ["--accept takes a list: --accept '[…]', or --accept+ … for each"]),
        (["corpus", "build", "--sources", "[{kind: foldr}]"], ["--sources:", "'installed'", "foldr"]),
        (["push", "starcoder", "--repo", "model"], ["OWNER/NAME"]),
        (["smoke", "--output", "build/never", "--steps", "3"], ["3 steps"]),
        (["validate", "--config", "recipes/smoke.yaml"], ["--ckpt_path"]),
        (["fit", "--config", "recipes/smoke.yaml", "--model.learning_rate", "0"], ["learning_rate is 0"]),
        (["fit", "--config", "recipes/smoke.yaml", "--trainer.max_step=10"], ["max_step"]),
        (["fit", "--config", "recipes/smoke.yaml", "--trainer.accelerator", "tpu"], ["torch_xla"]),
        (["fit", "--config", "recipes/smoke.yaml", "--trainer.accelerator", "submarine"], ["submarine"]),
        (["fit", "--config", "recipes/smoke.yaml", "--data.tokenizer", "nowhere"], ["nowhere"]),
        (["fit", "--config", "recipes/missing.yaml"], ["cannot read the recipe recipes/missing.yaml"]),
        (
            ["fit", "--config", "recipes/smoke.yaml", "--trainer.devices=3", f"--{STRATEGY}.init_args.shard_size=2"],
            ["global_batch_size 4 is no multiple of batch_size 4 on 3 devices; ", "shard_size 2 does not divide the 3"],
        ),
        (
            ["fit", "--config", "recipes/starcoderbase.yaml", *ON_TWO_PROCESSES],
            ["take at least 130 GB on each of 2 devices, which have", "starcoder plan"],
        ),
        (["fit", "--config", "recipes/smoke.yaml", f"--{STRATEGY}", "ddp"], ["must be a starcoder.training.parallel"]),
        (["plan", "--recipe", "smoke", "--gpu", "abacus"], ["no GPU 'abacus'", "a100-80gb"]),
    ],
)
def test_other_bad_input_is_one_line_and_exit_code_2(in_process: Command, args: list[str], words: list[str]) -> None:
    assert_one_line(in_process(ROOT, *args), *words)
    assert not (ROOT / "build" / "never").exists()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("model:\n  colour: red\n", ["colour"]),
        ("model:\n  learning_rate: high\n", ["learning_rate"]),
        ("model: [\n", ["line 2"]),
        (
            "trainer:\n  callbacks:\n  - class_path: starcoder.evaluation.callback.Evaluation\n"
            "    init_args: {tasks: humanevil}\n",
            ["no task 'humanevil'"],
        ),
        (None, ["recipe.yaml"]),
    ],
)
def test_a_bad_recipe_is_one_line_and_exit_code_2(
    in_process: Command, tmp_path: Path, recipe: str | None, words: list[str]
) -> None:
    path = tmp_path / "recipe.yaml"
    if recipe is not None:
        path.write_text(recipe)
    assert_one_line(in_process(ROOT, "fit", "--config", "recipes/smoke.yaml", "--config", str(path)), *words)


def test_a_corpus_on_a_full_disk_is_one_line_and_nothing_half_written(tmp_path: Path, small_disk: Path) -> None:
    source = tmp_path / "source"
    for number in range(2):
        (source / f"repository{number}").mkdir(parents=True)
        lines = "".join(f"def function_{number}_{n}(value):\n    return value + {n**5}\n" for n in range(20_000))
        (source / f"repository{number}" / "module.py").write_text(lines)
    options = ["--source", str(source), "--license", "MIT", "--output", str(small_disk / "corpus")]
    assert_one_line(starcoder(ROOT, "corpus", "build", *options), "disk is full")
    assert {path.name for path in small_disk.iterdir()} <= {"corpus.work"}  # from which it can go on


@pytest.mark.parametrize(
    "command",
    [
        "tokenizer train --vocab_size 4096 --corpus build/smoke/corpus --output {disk}/made",
        "tokenize --corpus build/smoke/corpus --tokenizer build/smoke/tokenizer --output {disk}/made",
        "fit --config recipes/smoke.yaml --trainer.max_steps 2 --checkpoint.folder {disk}/made",
        "export --checkpoint build/smoke/pretrain/checkpoints --tokenizer build/smoke/tokenizer --output {disk}/made",
        "smoke --steps 40 --max_bytes 1000000 --output {disk}/made",
    ],
    ids=lambda command: command.split(" --")[0],
)
def test_a_full_disk_is_one_line_and_nothing_half_written(small_run: Path, small_disk: Path, command: str) -> None:
    assert_one_line(starcoder(small_run, *command.format(disk=small_disk).split()), "disk is full")
    left = [path for path in small_disk.rglob("*") if path.is_file() and path.parent.name != ".state"]
    left = [path for path in left if not any(part.endswith(".work") for part in path.parts)]
    assert all(path.name in {"vocab.json", "merges.txt"} for path in left), left


def test_ctrl_c_ends_a_training_with_130_and_the_next_goes_on(small_run: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    options = {
        "checkpoint.folder": tmp_path / "checkpoints",
        "checkpoint.every_n_steps": 2,
        "trainer.logger.init_args.save_dir": metrics,
        "trainer.max_steps": 100_000,
        "model.decay_steps": 100_000,
        "ckpt_path": "last",
    }
    args = ["fit", "--config", "recipes/smoke.yaml", *(f"--{key}={value}" for key, value in options.items())]
    with start(small_run, *args) as process:
        deadline = time.monotonic() + 120
        while not list(metrics.rglob("metrics.csv")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    reached = read_meta(newest(tmp_path / "checkpoints"))["global_step"]
    starcoder(small_run, *args, f"--trainer.max_steps={reached + 2}", check=True)
    assert read_meta(newest(tmp_path / "checkpoints"))["global_step"] == reached + 2


@pytest.mark.parametrize(
    "command",
    [
        "corpus build",
        "tokenize --corpus build/smoke/corpus --tokenizer build/smoke/tokenizer",
        "export --checkpoint build/smoke/pretrain/checkpoints --tokenizer build/smoke/tokenizer",
        "smoke --steps 40 --max_bytes 1000000",
    ],
)
def test_a_folder_of_something_else_is_spared(
    in_process: Command, small_run: Path, tmp_path: Path, command: str
) -> None:
    for name in ("config.json", "metadata.json", "report/thesis.tex"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    result = in_process(small_run, *command.split(), "--output", str(tmp_path))
    assert_one_line(result, "holds something else")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "config.json",
        "metadata.json",
        "report",
        "report/thesis.tex",
    ]


def test_a_reader_that_has_seen_enough_is_no_error(small_run: Path) -> None:
    with start(small_run, "corpus", "inspect", "--folder", "build/smoke/corpus", "--repo", "cpython") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_shards_of_another_tokenizer_are_refused(in_process: Command, small_run: Path, tiny: Tiny) -> None:
    args = ["fit", "--config", "recipes/smoke.yaml", "--data.tokenizer", str(tiny.tokenizer)]
    assert_one_line(in_process(small_run, *args), "another tokenizer")


def test_a_checkpoint_of_a_run_on_other_shards_is_refused(in_process: Command, small_run: Path) -> None:
    args = ["fit", "--config", "recipes/smoke.yaml", "--data.train", "build/smoke/shards/validation"]
    result = in_process(small_run, *args, "--ckpt_path", "build/smoke/pretrain/checkpoints")
    assert_one_line(result, "on other token shards than build/smoke/shards/validation")


def test_of_many_ranks_one_tells_what_is_wrong() -> None:
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "starcoder.cli",
    ]
    args = ["fit", "--config", "recipes/smoke.yaml", "--trainer.devices=2", "--data.tokenizer=nowhere"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*launch, *args], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    lines = [line for line in result.stderr.splitlines() if line.startswith("starcoder: ")]
    assert len(lines) == 1
    assert "nowhere" in lines[0]


def test_validation_of_a_folder_of_checkpoints(small_run: Path) -> None:
    options = ["--ckpt_path", "build/smoke/pretrain/checkpoints", "--trainer.logger=false"]
    options += ["--data.global_batch_size=3"]  # matters to training alone, which takes four at a time
    result = starcoder(small_run, "validate", "--config", "recipes/smoke.yaml", *options, check=True)
    assert "val_loss" in result.stdout
