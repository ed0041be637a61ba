"""The energy that a training run takes, read from the counters of its hardware (paper §5.7); nothing is estimated.

The paper's figure is an estimate, 320,256 GPU hours at an assumed mean of 280 W: 89,671.68 kWh; `starcoder plan` makes
such ones beforehand. Here NVIDIA GPUs (Volta or newer) tell through NVML, CPU packages through RAPL, which AMD has too.

    every rank                    its GPU
    the first rank of a node      the node's CPU packages
    their sum                     the metric `energy_kwh`, and `energy.json` in the folder of the run's checkpoints

What a machine takes besides (memory, network, cooling, losses of its power supply) has no such counter and is left out,
and so is CO2e, which depends on where and when the power was made.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from starcoder.distributed import mean_over_ranks, raise_together
from starcoder.errors import UserError, one_line
from starcoder.storage import atomic_file
from starcoder.training.checkpoint import Checkpoint
from starcoder.training.counters import Counter, cpu_counters, gpu_counter

FILE = "energy.json"
JOULES_PER_KWH = 3.6e6
_WRITE_SECONDS = 10.0


@dataclass(frozen=True)
class Start:
    """What one start of a run took, of all ranks together.

    Args:
        first_step: optimizer steps of the run when it began.
        last_step: when its counters were last read.
        gpus: whose counters are in `gpu_joules`.
        gpus_missed: those that could not be read, or not always.
        packages: CPU packages whose counters are in `cpu_joules`.
        nodes_missed: nodes whose packages could not be read, or not always.
    """

    first_step: int
    last_step: int
    gpu_joules: float
    gpus: int
    gpus_missed: int
    cpu_joules: float
    packages: int
    nodes_missed: int


class EnergyMeter(Callback):
    """Logs `energy_kwh`, and keeps `energy.json` beside the run's checkpoints, which `starcoder card` reads.

    Counted is all that the hardware took from the beginning of every start of the run to its end, whatever else ran on
    it: validation, checkpoints, steps that a killed start lost. The file is written every ten seconds at the steps that
    are logged, and with each checkpoint, so that a killed start loses no more; whoever removes the folder of the
    checkpoints begins a new run. Where nothing can be read, one line says so, and nothing is logged or written.

    Args:
        powercap: where Linux shows the counters of CPU packages; another place in some containers.
    """

    def __init__(self, powercap: str = "/sys/class/powercap") -> None:
        self.powercap = Path(powercap)
        self.gpus: list[Counter] = []
        self.cpus: list[Counter] = []
        self.idle = True

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to count before the model is made."""
        if stage != "fit":
            return
        device = trainer.strategy.root_device
        self.gpus, self.cpus, self.idle, self.problems = [], [], True, list[str]()
        self.missed = {"gpus": 0, "nodes": 0}
        try:
            self.gpus = [] if device.type == "cpu" else [gpu_counter(device)]
        except OSError as error:
            self.missed["gpus"] = 1
            self.problems.append(one_line(error))
        try:
            self.cpus = cpu_counters(self.powercap) if trainer.local_rank == 0 else []
        except OSError as error:
            self.missed["nodes"] = 1
            self.problems.append(one_line(error))

    @override
    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Say what cannot be counted, and go on from what earlier starts took.

        Raises:
            UserError: when the file of the earlier starts is damaged.
        """
        self.first_step = self.seen_step = trainer.global_step
        self.written, self.told = -_WRITE_SECONDS, False
        folder = next((callback.folder for callback in trainer.callbacks if isinstance(callback, Checkpoint)), None)
        self.path = folder / FILE if folder else None
        self.earlier, problems = list[Start](), list[str]()
        try:
            self.earlier = read_starts(self.path) if self.path else []
        except UserError as error:
            problems.append(str(error))
        raise_together(problems if trainer.is_global_zero else [])
        now = self._sum(trainer)
        self.idle = not now.gpus and not now.packages
        if trainer.is_global_zero and (now.gpus_missed or now.nodes_missed):
            reasons = "; ".join(self.problems) or "counters of other ranks cannot be read"
            print(f"energy is {'not measured' if self.idle else 'measured in part'}: {reasons}", flush=True)

    @override
    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *_: object) -> None:
        """Read the packages, whose counters may begin again within minutes; log at the steps that are logged."""
        self._read_packages()
        step, seen = trainer.global_step, self.seen_step
        self.seen_step = step
        if self.idle or step == seen or step % trainer.log_every_n_steps:
            return
        now = self._sum(trainer)
        pl_module.log("energy_kwh", kwh([*self.earlier, now]))
        if time.monotonic() - self.written >= _WRITE_SECONDS:
            self._write(trainer, now)

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object) -> None:
        self._read_packages()

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self.idle:
            self._write(trainer, self._sum(trainer))

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.idle:
            self._write(trainer, self._sum(trainer))

    def _read_packages(self) -> None:
        for counter in self.cpus:
            counter.update()

    def _sum(self, trainer: Trainer) -> Start:
        """Of all ranks; every rank asks at the same moment."""
        gpu_joules, cpu_joules = (sum(counter.update() for counter in part) for part in (self.gpus, self.cpus))
        gpus_missed = self.missed["gpus"] or any(counter.failed for counter in self.gpus)
        nodes_missed = self.missed["nodes"] or any(counter.failed for counter in self.cpus)
        here = [gpu_joules, len(self.gpus), gpus_missed, cpu_joules, len(self.cpus), nodes_missed]
        device = trainer.strategy.root_device
        values = torch.tensor(here, dtype=torch.float64, device=device if device.type == "cuda" else "cpu")
        total = (mean_over_ranks(values) * trainer.world_size).tolist()
        numbers = [value if index in (0, 3) else round(value) for index, value in enumerate(total)]
        return Start(self.first_step, trainer.global_step, *numbers)

    def _write(self, trainer: Trainer, now: Start) -> None:
        """A disk that is full stops no training here; the checkpoint will tell."""
        if self.path is None or not trainer.is_global_zero:
            return
        self.written = time.monotonic()
        try:
            with atomic_file(self.path) as partial:
                partial.write_text(to_json([*self.earlier, now]), encoding="utf-8")
        except OSError as error:
            if not self.told:
                print(f"starcoder: cannot write {self.path}: {error.strerror}", file=sys.stderr, flush=True)
            self.told = True


def kwh(starts: Sequence[Start]) -> float:
    """Of all starts together."""
    return sum(start.gpu_joules + start.cpu_joules for start in starts) / JOULES_PER_KWH


def to_json(starts: Sequence[Start]) -> str:
    """The content of `energy.json`: the figure as `starcoder card --measured` reads it, and what it consists of."""
    energy = {"kwh": kwh(starts), "method": method(starts)}
    return json.dumps({"energy": energy, "starts": [asdict(start) for start in starts]}, indent=2) + "\n"


def read_starts(path: Path) -> list[Start]:
    """From `energy.json`; none when there is no such file.

    Raises:
        UserError: when it is damaged.
    """
    if not path.exists():
        return []
    try:
        starts = [Start(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["starts"]]
        if all(type(value) in (int, float) for start in starts for value in asdict(start).values()):
            return starts
    except (OSError, ValueError, LookupError, TypeError):
        pass
    raise UserError(f"{path} is damaged: remove it, and the energy of the starts before this one is not counted")


def method(starts: Sequence[Start]) -> str:
    """In words: which counters, of which steps, and what is missing."""
    gpus, packages, gpus_missed, nodes_missed = (
        max(getattr(start, name) for start in starts) for name in ("gpus", "packages", "gpus_missed", "nodes_missed")
    )
    counted = [_some(gpus, "NVIDIA GPU"), _some(packages, "CPU package")]
    missed = [_some(gpus_missed, "GPU"), nodes_missed and f"the CPUs of {_some(nodes_missed, 'node')}"]
    unread = f"{_and(missed)}, not or not always readable; " if any(missed) else ""
    return (
        f"hardware counters of {_and(counted)}, whatever ran on them, optimizer steps {_and(_spans(starts))}, "
        f"work that was lost included; not counted: {unread}memory, network, cooling"
    )


def _spans(starts: Sequence[Start]) -> list[str]:
    """From which step to which the starts lead, as few as possible."""
    spans: list[list[int]] = []
    for start in sorted(starts, key=lambda start: start.first_step):
        if spans and start.first_step <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], start.last_step)
        else:
            spans.append([start.first_step, start.last_step])
    return [f"{first:,} to {last:,}" for first, last in spans]


def _some(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}" if number else ""


def _and(parts: Sequence[str | int]) -> str:
    return " and ".join(str(part) for part in parts if part)
