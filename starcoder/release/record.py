"""What a training run left behind: the facts of a model card, none of them from memory."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from starcoder.errors import UserError, one_line
from starcoder.model import StarCoderConfig
from starcoder.release.export import open_trained
from starcoder.release.folder import read_weights
from starcoder.release.weights import Weights
from starcoder.training.checkpoint import complete, read_meta
from starcoder.training.energy import FILE
from starcoder.training.metrics import read_metrics
from starcoder.training.stream import Shards, open_shards

_LOSSES = ("train_loss", "val_loss")
_CONFIGS = ("config.yaml", "version_*/config.yaml", "*/config.yaml", "*/version_*/config.yaml")
_MEASUREMENTS = {"energy": {"kwh"}, "verbatim": {"samples", "matches"}, "pii": {"samples", "matches"}}


@dataclass(frozen=True)
class Stored:
    """The weights of a release, mapped from disk and not copied."""

    weights: Weights

    @classmethod
    def read(cls, folder: Path, config: StarCoderConfig) -> "Stored":
        """Find those in `folder`, which are of the shape `config`.

        Raises:
            UserError: when they are missing, damaged, or of another shape.
        """
        return cls(read_weights(folder, config))

    @property
    def dtype(self) -> str:
        """The type of the numbers, such as `bfloat16`."""
        return str(self.weights.specs["transformer.wte.weight"].dtype).removeprefix("torch.")

    @property
    def n_bytes(self) -> int:
        """Bytes of all numbers."""
        return sum(spec.nbytes for spec in self.weights.specs.values())

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """As a module has them."""
        return [(name, self.weights.read(name)) for name in self.weights.specs]


@dataclass(frozen=True)
class Training:
    """A run of `starcoder fit`, up to the checkpoint that was released.

    Args:
        recipe: all its settings.
        step: optimizer steps.
        tokens: tokens seen, repetitions counted; None when the data that would tell is gone.
        shards: the token shards that it read; None when they are not here any more.
        base: the weights that it started from, a repository or a folder; None for random ones.
        devices: how many trained together; None when nothing was logged.
        hours: of training steps by the clock, without validation, checkpoints and starts; None when nothing was logged.
        losses: the last that were logged, by name.
        energy: the file in which the run kept what its hardware took; None when nothing was measured.
    """

    recipe: Mapping[str, Any]
    step: int
    tokens: int | None
    shards: Shards | None
    base: str | None
    devices: int | None = None
    hours: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    energy: Path | None = None


def read_training(run: Path, config: StarCoderConfig, tokenizer: str, stored: Stored) -> Training:
    """What the run in a folder left.

    Args:
        run: its folder: checkpoints, and the logger's folder with `config.yaml`.
        config: the released model's shape.
        tokenizer: digest of the released tokenizer.
        stored: the released weights.

    Raises:
        UserError: when the folder is no run's, or none of its checkpoints holds the released weights.
    """
    path = _newest_config(run)
    recipe = _read_recipe(path)
    checkpoint = _matching(_checkpoints(run, recipe), stored, run)
    meta = read_meta(checkpoint)
    try:
        shape = _shape(StarCoderConfig(**meta["model_config"]))
    except (LookupError, TypeError):
        raise UserError(f"{checkpoint} is no checkpoint of this version of the kit") from None
    if meta.get("tokenizer") != tokenizer or shape != _shape(config):
        raise UserError(f"{checkpoint} is of another model or another tokenizer than the released ones")
    position = meta.get("TokenDataModule", {})
    shards = _shards(recipe["data"].get("train"), position.get("shards"))
    return Training(
        recipe,
        meta["global_step"],
        _tokens_seen(position, shards, recipe["data"].get("context_length")),
        shards,
        recipe["model"].get("init_from"),
        energy=checkpoint.with_name(FILE) if checkpoint.with_name(FILE).exists() else None,
        **_logged(path.parent.parent, meta["global_step"]),
    )


def read_measurements(paths: Sequence[Path] | Path, weights: str) -> dict[str, dict[str, Any]]:
    """What other tools measured of these weights: `energy`, and `verbatim` training code and `pii` in completions.

    Each file is a JSON object with one or more of those keys, and may say which `weights` it is about. Each of them has
    a `method` in words, and the numbers `kwh`, or `samples` and `matches`.

    Raises:
        UserError: when a file is missing or damaged, says something else, or says it twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as measured figures: {one_line(error)}") from None
        if not isinstance(content, dict) or not content.keys() & _MEASUREMENTS.keys():
            raise UserError(f"{path} holds none of the figures {', '.join(_MEASUREMENTS)}")
        if content.get("weights", weights) != weights:
            raise UserError(f"{path} is about other weights: measure these")
        for name in content.keys() & _MEASUREMENTS.keys():
            if name in found:
                raise UserError(f"{path} has {name} once more: give one file with it")
            found[name] = _checked(path, name, content[name])
    return found


def _checked(path: Path, name: str, figures: Any) -> dict[str, Any]:
    wanted = _MEASUREMENTS[name]
    if not isinstance(figures, dict) or not str(figures.get("method") or "").strip() or wanted - figures.keys():
        keys = ", ".join(sorted(wanted))
        raise UserError(f"{path}: {name} needs {keys}, and as method in words how that was measured")
    numbers = {key: figures[key] for key in wanted}
    sound = all(type(n) in (int, float) and math.isfinite(n) and n >= 0 for n in numbers.values())
    if not sound or ("samples" in numbers and not 0 < numbers["samples"] >= numbers["matches"]):
        raise UserError(f"{path}: {name} cannot have {json.dumps(numbers, sort_keys=True)}")
    return numbers | {"method": str(figures["method"])}


def _newest_config(run: Path) -> Path:
    found = [path for pattern in _CONFIGS for path in run.glob(pattern)]
    if not found:
        raise UserError(f"{run} is no run of `starcoder fit`: it has no config.yaml, nor a logger's folder with one")
    return max(found, key=_version)


def _version(config: Path) -> int:
    """The number of Lightning's folder; each resumption of a run has another."""
    number = config.parent.name.removeprefix("version_")
    return int(number) if number.isdecimal() else 0


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from None
    sections = ("model", "data", "trainer", "checkpoint")
    if not isinstance(recipe, dict) or not all(isinstance(recipe.get(section), dict) for section in sections):
        raise UserError(f"{path} is no recipe of `starcoder fit`: it lacks {', '.join(sections)}")
    if not isinstance(base := recipe["model"].get("init_from"), str | None):
        raise UserError(f"{path}: model.init_from is {base!r}, no folder or repository")
    return recipe


def _checkpoints(run: Path, recipe: Mapping[str, Any]) -> list[Path]:
    """The newest first; a folder that was moved keeps its checkpoints inside."""
    folder = Path(str(recipe["checkpoint"].get("folder")))
    found = complete(run / folder.name) or complete(run) or complete(folder)
    if not found:
        raise UserError(f"{run} has no checkpoint, neither in {run / folder.name} nor in {folder}")
    return found[::-1]


def _matching(checkpoints: Sequence[Path], stored: Stored, run: Path) -> Path:
    found = [checkpoint for checkpoint in checkpoints if _holds(checkpoint, stored.weights)]
    if not found:
        raise UserError(f"no checkpoint of {run} holds the released weights: name the run that made them")
    if len(found) > 1:
        raise UserError(
            f"{found[0]} and {found[1]} hold the same weights in {stored.dtype}: move away what was not released"
        )
    return found[0]


def _holds(checkpoint: Path, released: Weights) -> bool:
    """Whether all weights are the same; the small ones are read first, since one that differs is enough."""
    names = sorted(released.specs, key=lambda name: released.specs[name].numel())
    try:
        trained = open_trained(checkpoint).weights
        return trained.specs.keys() == released.specs.keys() and all(
            torch.equal(trained.read(name).to(released.specs[name].dtype), released.read(name)) for name in names
        )
    except UserError:  # of another shape, or damaged
        return False


def _shape(config: StarCoderConfig) -> StarCoderConfig:
    """The configuration with what it implies, and without what only training uses."""
    return config.replace(n_inner=config.inner, init_std=None, dropout=0.0)


def _shards(location: Any, digest: str | None) -> Shards | None:
    """The shards in a folder, when they are still those that the run read; what lies behind a URL is not fetched."""
    if not isinstance(location, str) or "://" in location:
        return None
    try:
        shards = open_shards(location)
    except UserError:
        return None
    return shards if shards.digest == digest else None


def _tokens_seen(position: Mapping[str, Any], shards: Shards | None, length: Any) -> int | None:
    if "windows" not in position or not isinstance(length, int):
        return None
    windows, epochs = int(position["windows"]), int(position.get("epoch", 0))
    if epochs and shards is None:
        return None
    return length * (windows + epochs * (sum(shards.windows(length + 1)) if shards else 0))


def _logged(folder: Path, step: int) -> dict[str, Any]:
    """Devices, hours and losses from the rows that `CSVLogger` wrote up to the step; another logger leaves none."""
    try:
        rows = [row for row in read_metrics(folder) if int(row["step"]) < step]
        return _paced(rows) | {"losses": {name: float(row[name]) for row in rows for name in _LOSSES if name in row}}
    except UserError:
        return {}
    except (LookupError, ValueError, TypeError, ArithmeticError):
        raise UserError(f"the metrics in {folder} are damaged") from None


def _paced(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Devices and hours: a row's rate is that of the steps since the row before that has one."""
    rows = [row for row in rows if float(row.get("steps_per_sec", 0)) > 0]
    if not rows:
        return {}
    steps = (end - start for start, end in pairwise([-1, *(int(row["step"]) for row in rows)]))
    seconds = sum(n / float(row["steps_per_sec"]) for n, row in zip(steps, rows, strict=True))
    devices = float(rows[-1]["tokens_per_sec"]) / float(rows[-1]["tokens_per_sec_per_device"])
    return {"devices": round(devices), "hours": seconds / 3600}
