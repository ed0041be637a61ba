"""The smoke run: a list of commands that a user could type, each run once and reused while nothing it reads changes.

It is the one room above the command line, which it uses like a user.
"""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from starcoder.cli import run as starcoder
from starcoder.corpus.sources import fingerprint
from starcoder.corpus.sources.installed import Installed
from starcoder.errors import UserError
from starcoder.smoke.stage import Stage, Workspace, states
from starcoder.storage import atomic_file
from starcoder.training.metrics import read_metrics
from starcoder.training.recipe import chain

VOCAB_SIZE = 4096
BATCH_SIZE = 4
"""Samples of an optimizer step on all devices together."""
TOKENIZER_BYTES = 20_000_000
PACE_STEPS = 60
LEAST_STEPS = 40
RESERVE_SECONDS = 65.0
"""Time for what comes besides data and training: starting up, exporting, and measuring for the report."""
FINETUNE_SHARE = 0.1
"""Share of the training time that the Python fine-tuning gets."""
RECIPES = ("smoke.yaml", "smoke-python.yaml")
_BEFORE_TRAINING = ("corpus", "tokenizer", "shards-train", "shards-python", "shards-validation", "pace")
_TOKENS_CODE = (
    "tokenizer.py",
    "executors.py",
    "corpus/formatting.py",
    "corpus/mix.py",
    "training/chunks.py",
    "training/shards.py",
    "training/stream.py",
)
_TRAINING_CODE = ("tokenizer.py", "model.py", "linear.py", "loss.py", "training")


def smoke(
    output: Path = Path("build/smoke"),
    recipes: Path = Path("recipes"),
    minutes: float = 5.0,
    steps: int | None = None,
    max_bytes: int = 80_000_000,
    devices: int = 1,
    fresh: bool = False,
) -> None:
    """Train a tiny StarCoder on the code installed on this machine, and report on it.

    Args:
        output: folder of everything that the run makes.
        recipes: folder of smoke.yaml and smoke-python.yaml.
        minutes: time for the whole run; what the other stages leave is spent on training.
        steps: optimizer steps of pretraining, instead of as many as fit `minutes`.
        max_bytes: source code to read for the corpus.
        devices: processes that train together, sharded (FSDP2).
        fresh: remove what earlier runs made, and start over.

    Raises:
        UserError: when a recipe is missing or the time is too short.
    """
    if steps is not None and steps < LEAST_STEPS:
        raise UserError(f"{steps} steps are too few for a loss curve: at least {LEAST_STEPS}")
    for recipe in RECIPES:
        if not (recipes / recipe).is_file():
            raise UserError(f"there is no recipe {recipes / recipe}")
    if not 0 < minutes < math.inf:
        raise UserError(f"minutes is {minutes}, no length of time")
    if devices < 1 or BATCH_SIZE % devices:
        raise UserError(f"devices is {devices}, but a step of the smoke run has {BATCH_SIZE} samples to share out")
    with Workspace(output, run_command) as workspace:
        if fresh:
            workspace.clear()
        for stage in data_stages(output, max_bytes):
            workspace.run(stage)
        if steps is None:
            pace = _fit_stage("pace", output, recipes / RECIPES[0], PACE_STEPS, devices, {"data.train": "shards/train"})
            workspace.run(replace(pace, resumable=False))  # its last steps alone would tell no pace
            steps = decided_steps(output, minutes, workspace.keys["pace"])
        for stage in training_stages(output, recipes, steps, devices):
            workspace.run(stage)
    print(f"the report: {(output / 'report' / 'index.html').resolve()}")


def decided_steps(root: Path, minutes: float, pace: str) -> int:
    """The number of steps that a run of these `minutes` and this key of the pace once chose, or now chooses.

    Times vary from run to run; what was trained must not be thrown away because a stage took a second longer.
    """
    path = root / "steps.json"
    decision = json.loads(path.read_text()) if path.exists() else {}
    if (decision.get("minutes"), decision.get("pace")) != (minutes, pace):
        decision = {"minutes": minutes, "pace": pace, "steps": affordable_steps(root, minutes)}
        with atomic_file(path) as partial:
            partial.write_text(json.dumps(decision))
    return int(decision["steps"])


def affordable_steps(root: Path, minutes: float) -> int:
    """Steps of pretraining that fit `minutes`, from what the stages so far took and the throughput of the short run."""
    spent = sum(state["seconds"] for name, state in states(root).items() if name in _BEFORE_TRAINING)
    seconds = (minutes * 60 - spent - RESERVE_SECONDS) * (1 - FINETUNE_SHARE)
    steps = int(seconds * float(read_metrics(root / "pace" / "metrics")[-1]["steps_per_sec"]))
    if steps < LEAST_STEPS:
        raise UserError(
            f"{minutes:g} minutes are too short: all but the training takes {spent + RESERVE_SECONDS:.0f} s"
        )
    return steps


def data_stages(root: Path, max_bytes: int) -> list[Stage]:
    """Corpus, tokenizer and the three sets of token shards."""
    corpus, tokenizer = root / "corpus", root / "tokenizer"
    build = _command("corpus build", output=corpus, max_bytes=max_bytes)
    train = _command(
        "tokenizer train", corpus=corpus, output=tokenizer, vocab_size=VOCAB_SIZE, sample_bytes=TOKENIZER_BYTES
    )
    stages = [
        Stage("corpus", build, code=("corpus", "executors.py"), facts=(fingerprint([Installed()]),)),
        Stage("tokenizer", train, code=("tokenizer.py", "corpus/vocabulary.py"), reads=("corpus",)),
    ]
    shards: dict[str, dict[str, object]] = {
        "train": {"mix": "paper"},
        "python": {"language": "python", "max_tokens": 6_000_000},
        "validation": {"split": "validation", "max_tokens": 1_000_000},
    }
    for name, options in shards.items():
        output = root / "shards" / name
        command = _command("tokenize", corpus=corpus, tokenizer=tokenizer, output=output, **options)
        stages.append(Stage(f"shards/{name}", command, code=_TOKENS_CODE, reads=("corpus", "tokenizer")))
    return stages


def training_stages(root: Path, recipes: Path, steps: int, devices: int) -> list[Stage]:
    """Pretraining, fine-tuning on Python, the folder that each gives, and the report."""
    finetune_steps = max(1, round(steps * FINETUNE_SHARE))
    return [
        _fit_stage("pretrain", root, recipes / RECIPES[0], steps, devices, {"data.train": "shards/train"}),
        _export_stage("starcoderbase", root, "pretrain"),
        _fit_stage(
            "finetune",
            root,
            recipes / RECIPES[1],
            finetune_steps,
            devices,
            {"data.train": "shards/python", "model.init_from": "starcoderbase"},
        ),
        _export_stage("starcoder", root, "finetune"),
        Stage(
            "report",
            _command("smoke report", workspace=root),
            digest_of="results.json",
            code=("smoke", "release", "generation.py", "model.py", "linear.py", "tokenizer.py"),
            reads=("corpus", "tokenizer", "shards/train", "pretrain", "starcoderbase", "finetune", "starcoder"),
        ),
    ]


def run_command(args: list[str]) -> None:
    """Run a command line of `starcoder`, in this process unless it trains on several devices.

    Raises:
        UserError: when it cannot do with its input; when several processes fail, they have said why.
    """
    devices = int(args[args.index("--trainer.devices") + 1]) if "--trainer.devices" in args else 1
    if devices == 1:
        starcoder(args)
        return
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    if subprocess.run([*launch, "-m", "starcoder.cli", *args], check=False).returncode:
        raise UserError(f"training on {devices} processes failed")


def _fit_stage(name: str, root: Path, recipe: Path, steps: int, devices: int, inputs: dict[str, str]) -> Stage:
    """A `starcoder fit` under `root`; `inputs` maps recipe keys to the names of the stages that they read."""
    folder = root / name
    options = {
        **{key: root / stage for key, stage in inputs.items()},
        "data.validation": root / "shards/validation",
        "data.tokenizer": root / "tokenizer",
        "checkpoint.folder": folder / "checkpoints",
        "data.batch_size": BATCH_SIZE // devices,
        "trainer.devices": devices,
        "trainer.max_steps": steps,
        "trainer.default_root_dir": folder,
        "trainer.logger.init_args.save_dir": folder / "metrics",
        "ckpt_path": "last",
    }
    return Stage(
        name,
        ("fit", *_command("", config=recipe, **options)),
        code=_TRAINING_CODE,
        reads=("tokenizer", "shards/validation", *inputs.values()),
        facts=tuple(path.read_text() for path in chain(recipe)),
        digest_of="checkpoints/*/*.distcp",
        resumable=True,
    )


def _export_stage(name: str, root: Path, training: str) -> Stage:
    command = _command(
        "export", checkpoint=root / training / "checkpoints", tokenizer=root / "tokenizer", output=root / name
    )
    return Stage(name, command, code=("release", "model.py", "linear.py"), reads=(training, "tokenizer"))


def _command(name: str, **options: object) -> tuple[str, ...]:
    return (*name.split(), *(part for key, value in options.items() for part in (f"--{key}", str(value))))
