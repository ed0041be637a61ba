"""Training step against litgpt and transformers' GPTBigCode: the same shape, batches and fused AdamW, turn by turn.

All sides train the model of `bench_training_step` (6 × 512, 42 M parameters, MQA, V = 49152, dropout 0) on 4 × 1024
random tokens, with fp32 parameters and with bf16 ones. Ours and transformers' start from the same weights. litgpt runs
as its `pretrain` does: Fabric's `32-true` and `bf16-true`, tied embeddings, chunked cross-entropy, `torch.compile`
(which needs a C++ compiler; `litgpt eager` is the same without). Nobody clips gradients. litgpt's model has the same
layers but rotary positions (a quarter of each head, its default) instead of a table of 1024 × 512, and initial values
of its own, so that its loss starts elsewhere. FLOPs are counted alike for all sides.

Every side is a process of its own, told over a pipe whose turn it is; the others wait, asleep. Peak memory is thus that
of one side with all that it imports, which for litgpt includes Lightning. litgpt's requirements conflict with the
kit's, so it is installed from PyPI into an environment under build/ (some 6 GB with torch's CUDA parts); where that
fails, transformers alone is compared with. Ratio: median over the rounds of their time divided by ours.

Run by `make bench`, or `python -m tests.benchmarks.bench_litgpt [--rounds N] [--dtypes float32 bfloat16]
[--sides here litgpt "litgpt eager" transformers]`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch

from tests.benchmarks.bench_training_step import BATCH, CONFIG, LENGTH, Trainer, processor
from tests.benchmarks.litgpt_worker import Step, serve

LITGPT = "litgpt==0.5.13"
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-true"}
SIDES = ("here", "litgpt", "litgpt eager", "transformers")
ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/bench"


def install() -> Path:
    """Python of the environment that has litgpt, made unless an earlier run finished it."""
    home = BUILD / "litgpt"
    python, stamp = home / "bin/python", home / "installed"
    packages = [LITGPT, f"torch=={torch.__version__.partition('+')[0]}"]
    if not (stamp.is_file() and stamp.read_text() == " ".join(packages) and python.exists()):
        print(f"installing {' and '.join(packages)} into {home}", flush=True)
        shutil.rmtree(home, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(home)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
            [str(python), "-c", "import litgpt"],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        stamp.write_text(" ".join(packages))
    return python


def litgpt_python() -> Path | None:
    """As `install`, or nothing, and a line that says why."""
    try:
        return install()
    except subprocess.CalledProcessError as error:
        reasons = (error.stderr or error.stdout).strip().splitlines() or [str(error)]
    except OSError as error:
        reasons = [str(error)]
    print(f"litgpt skipped, it cannot be installed: {reasons[-1]}", flush=True)
    return None


def litgpt_job(dtype: str, compiled: bool) -> dict[str, Any]:
    """What `litgpt_worker` builds: our model's shape in the words of litgpt's `Config`."""
    config = {
        "name": "starcoder",
        "block_size": CONFIG.context_length,
        "vocab_size": CONFIG.vocab_size,
        "padded_vocab_size": CONFIG.vocab_size,
        "n_layer": CONFIG.n_layer,
        "n_head": CONFIG.n_head,
        "n_query_groups": 1,
        "n_embd": CONFIG.n_embd,
        "intermediate_size": CONFIG.inner,
        "norm_class_name": "LayerNorm",
        "norm_eps": CONFIG.layer_norm_epsilon,
        "parallel_residual": False,
        "mlp_class_name": "GptNeoxMLP",
        "gelu_approximate": "none",
        "bias": True,
    }
    return {"config": config, "batch": [BATCH, LENGTH], "precision": PRECISIONS[dtype], "compile": compiled}


def work(side: str, dtype: str) -> tuple[dict[str, Any], Step]:
    """Ours or transformers', in a process of its own."""
    trainer = Trainer(side, getattr(torch, dtype))

    def step(index: int) -> tuple[float, float]:
        wall, _, loss = trainer.step(index)
        return wall, loss

    return {"n_params": sum(parameter.numel() for parameter in trainer.model.parameters())}, step


class SideError(Exception):
    """A side's process has ended by itself."""


@dataclass
class Side:
    """One contender's process, and what it answered; the first step warms up."""

    name: str
    command: list[str]
    steps: list[dict[str, float]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.log = BUILD / f"{self.name.replace(' ', '-')}.log"
        caches = {"TORCHINDUCTOR_CACHE_DIR": str(BUILD / "inductor")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env=os.environ | caches,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its stdin, which ends it

    def start(self) -> None:
        self.about = self._answer()
        self.step(0)

    def step(self, index: int) -> None:
        self.process.stdin.write(f"{index}\n")
        self.process.stdin.flush()
        self.steps.append(self._answer())

    def _answer(self) -> dict[str, Any]:
        if line := self.process.stdout.readline():
            return json.loads(line)
        raise SideError(f"its process has ended, see {self.log.relative_to(ROOT)}")

    @property
    def seconds(self) -> list[float]:
        return [step["seconds"] for step in self.steps[1:]]


def sides(names: list[str], dtype: str, python: Path | None) -> list[Side]:
    """The contenders that can be run here, in order."""
    worker = str(Path(__file__).with_name("litgpt_worker.py"))
    commands = {
        name: [sys.executable, "-m", "tests.benchmarks.bench_litgpt", "--worker", name, "--dtypes", dtype]
        for name in ("here", "transformers")
    }
    if python:
        for name in ("litgpt", "litgpt eager"):
            commands[name] = [str(python), "-I", worker, json.dumps(litgpt_job(dtype, compiled=name == "litgpt"))]
    return [Side(name, commands[name]) for name in names if name in commands]


def measure(contenders: list[Side], rounds: int) -> list[Side]:
    """Let them take turns; those of litgpt's that cannot run are left out, and a line says so."""
    running = []
    with ExitStack() as stack:
        for side in contenders:
            stack.enter_context(side)
            try:
                side.start()  # before the next one starts, so that no two of them ever work at once
                running.append(side)
            except (SideError, BrokenPipeError) as error:
                if "litgpt" not in side.name:
                    raise
                print(f"{side.name} skipped: {error}", flush=True)
        for index in range(1, rounds + 1):
            for side in running:
                side.step(index)
    return running


def compare(names: list[str], dtype: str, rounds: int, python: Path | None) -> None:
    """Measure and print one dtype."""
    from starcoder.training.progress import matmul_peak  # imports Lightning: a worker's memory must not pay for it

    running = measure(sides(names, dtype, python), rounds)
    peak = matmul_peak(getattr(torch, dtype)) / 1e9
    print(f"\n{dtype}: {peak:.0f} GFLOP/s measured for a product of 2048 × 2048")
    print(f"  {'side':<14}{'tok/s':>6}{'GFLOP/s':>9}{'of peak':>9}{'first loss':>12}{'peak RSS':>10}{'parameters':>12}")
    for side in running:
        show(side, peak)
    for side in running[1:]:
        show_ratios(running[0], side)
    sys.stdout.flush()


def show(side: Side, peak: float) -> None:
    """One side's line of the table."""
    rate = BATCH * LENGTH / statistics.median(side.seconds)
    flops = rate * CONFIG.flops_per_token(LENGTH) / 1e9
    versions = ", litgpt {litgpt} with torch {torch}" if "litgpt" in side.about else ""
    print(
        f"  {side.name:<14}{rate:6.0f}{flops:9.0f}{flops / peak:9.0%}{side.steps[0]['loss']:12.5f}"
        f"{side.steps[-1]['peak']:6.2f} GiB{side.about['n_params'] / 1e6:10.2f} M   "
        f"first step {side.steps[0]['seconds']:.0f} s{versions.format(**side.about)}"
    )


def show_ratios(ours: Side, theirs: Side) -> None:
    ratios = sorted(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))
    memory = ours.steps[-1]["peak"] / theirs.steps[-1]["peak"]
    print(
        f"  {ours.name} against {theirs.name}: ratio {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f}-{ratios[-1]:.2f}), peak memory {memory:.2f} of theirs"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", nargs="+", choices=list(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["here", "litgpt", "transformers"])
    parser.add_argument("--worker", choices=("here", "transformers"), help="be that side, for a parent process")
    arguments = parser.parse_args()
    if arguments.worker:
        serve(lambda: work(arguments.worker, arguments.dtypes[0]))
        return
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "ACTIVE":
        parser.error("with OMP_WAIT_POLICY=ACTIVE the sides that wait would spin on the cores of the one that works")
    print(f"training step, {BATCH} x {LENGTH} tokens, {CONFIG.n_params / 1e6:.1f} M parameters")
    print(
        f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {version('transformers')}, {datetime.now(UTC):%Y-%m-%d}",
        flush=True,
    )
    BUILD.mkdir(parents=True, exist_ok=True)
    python = litgpt_python() if any("litgpt" in side for side in arguments.sides) else None
    for dtype in arguments.dtypes:
        compare(arguments.sides, dtype, arguments.rounds, python)


if __name__ == "__main__":
    main()
