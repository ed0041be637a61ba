"""Energy is what the counters say, of all ranks and all starts; kWh are joules / 3.6e6."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from starcoder.errors import UserError
from starcoder.release.record import read_measurements
from starcoder.training import energy
from starcoder.training.energy import FILE, EnergyMeter, Start, method, read_starts, to_json
from starcoder.training.metrics import read_metrics
from starcoder.training.recipe import merged
from tests import nursery
from tests.conftest import ROOT, Tiny
from tests.training.metered import CPU_JOULES, GPU_JOULES, Metered, burn, fit, zones

ALL = Start(0, 1500, 3.6e6, 8, 0, 1.8e6, 2, 0)


def test_ranks_and_starts_add_up(tiny: Tiny, tmp_path: Path) -> None:
    """Two ranks: each has a GPU, one of them reads the packages of their node; then the run goes on."""
    powercap, folder = zones(tmp_path / "powercap"), tmp_path / "run"
    nursery.run_module("tests.training.metered", tiny.tokenizer.parent, folder, powercap, "[4, 6]")
    path = folder / "checkpoints" / FILE
    found = read_starts(path)
    assert [(start.first_step, start.last_step) for start in found] == [(0, 4), (4, 6)]
    for start, steps in zip(found, (4, 2), strict=True):
        assert start.gpu_joules == pytest.approx(steps * 3 * GPU_JOULES)
        assert start.cpu_joules == pytest.approx(steps * CPU_JOULES)
        assert (start.gpus, start.packages, start.gpus_missed, start.nodes_missed) == (2, 2, 0, 0)
    figures = read_measurements([path], "any")["energy"]
    assert figures["kwh"] == pytest.approx(6 * (3 * GPU_JOULES + CPU_JOULES) / 3.6e6)
    assert "2 NVIDIA GPUs and 2 CPU packages" in figures["method"]
    logged = [float(row["energy_kwh"]) for row in read_metrics(folder)]
    assert logged == pytest.approx([n * (3 * GPU_JOULES + CPU_JOULES) / 3.6e6 for n in range(1, 7)])


def test_work_that_is_lost_is_counted(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_WRITE_SECONDS", 0.0)
    powercap = str(zones(tmp_path / "powercap"))
    root, path = tiny.tokenizer.parent, tmp_path / "checkpoints" / FILE
    for fails_after in (3, 6):  # before the first checkpoint, and two steps after it
        with pytest.raises(RuntimeError, match="the hardware fails"):
            fit(root, tmp_path, Metered(powercap, fails_after=fails_after), 8)
    fit(root, tmp_path, Metered(powercap), 8)
    starts = read_starts(path)
    assert [(start.first_step, start.last_step) for start in starts] == [(0, 3), (0, 6), (4, 8)]
    assert read_measurements([path], "any")["energy"]["kwh"] == pytest.approx((3 + 6 + 4) * CPU_JOULES / 3.6e6)
    assert "optimizer steps 0 to 8, work that was lost included" in method(starts)


def test_a_checkpoint_has_its_energy_written_however_short_ago_it_was(tiny: Tiny, tmp_path: Path) -> None:
    """Nothing is missing between a checkpoint and the start that goes on from it."""
    with pytest.raises(RuntimeError, match="the hardware fails"):
        fit(tiny.tokenizer.parent, tmp_path, Metered(str(zones(tmp_path / "powercap")), fails_after=6), 8)
    (start,) = read_starts(tmp_path / "checkpoints" / FILE)
    assert (start.last_step, start.cpu_joules) == (4, pytest.approx(4 * CPU_JOULES))


def test_where_nothing_can_be_read_one_line_says_so(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tiny.tokenizer.parent, tmp_path, EnergyMeter(str(tmp_path / "nowhere")), 5)
    told = [line for line in "".join(capsys.readouterr()).splitlines() if "energy" in line]
    assert told == [f"energy is not measured: no CPU package in {tmp_path / 'nowhere'}"]
    assert not (tmp_path / "checkpoints" / FILE).exists()
    assert all("energy_kwh" not in row for row in read_metrics(tmp_path))


def test_the_part_that_cannot_be_read_is_named(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tiny.tokenizer.parent, tmp_path, Metered(str(tmp_path / "nowhere"), gpus=True), 2)
    assert capsys.readouterr().out.count("energy is measured in part: no CPU package in") == 1
    told = method(read_starts(tmp_path / "checkpoints" / FILE))
    assert told.startswith("hardware counters of 1 NVIDIA GPU, whatever")
    assert "not counted: the CPUs of 1 node, not or not always readable; memory" in told


@pytest.mark.parametrize(
    ("starts", "part"),
    [
        ([ALL], "counters of 8 NVIDIA GPUs and 2 CPU packages, whatever ran on them, optimizer steps 0 to 1,500, work"),
        ([ALL], "not counted: memory, network, cooling"),
        ([replace(ALL, gpus=0)], "counters of 2 CPU packages,"),
        ([ALL, replace(ALL, gpus=7, gpus_missed=1)], "not counted: 1 GPU, not or not always readable; memory"),
        ([replace(ALL, gpus_missed=8, nodes_missed=2)], "not counted: 8 GPUs and the CPUs of 2 nodes, not"),
        ([ALL, replace(ALL, first_step=1500, last_step=1600)], "steps 0 to 1,600,"),
        ([ALL, replace(ALL, first_step=1501, last_step=1600)], "steps 0 to 1,500 and 1,501 to 1,600,"),
        ([replace(ALL, first_step=900, last_step=1000), ALL], "steps 0 to 1,500,"),
    ],
)
def test_words_say_what_is_counted(starts: list[Start], part: str) -> None:
    assert part in method(starts)
    content = json.loads(to_json(starts))
    assert content["energy"] == {"kwh": 1.5 * len(starts), "method": method(starts)}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"starts": [1]}', '{"starts": [{"gpus": 1}]}', "text"])
def test_a_damaged_file_is_one_line(tiny: Tiny, tmp_path: Path, content: str) -> None:
    path = tmp_path / "checkpoints" / FILE
    path.parent.mkdir()
    path.write_text(to_json([ALL]).replace("1500", '"x"') if content == "text" else content)
    with pytest.raises(UserError, match="is damaged: remove it") as error:
        fit(tiny.tokenizer.parent, tmp_path, Metered(str(zones(tmp_path / "powercap"))), 2)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meter, trainer = EnergyMeter(), cast(Any, SimpleNamespace(is_global_zero=True))
    (tmp_path / "file").touch()
    meter.path, meter.earlier, meter.told = tmp_path / "file" / FILE, [], False
    for _ in range(2):
        meter._write(trainer, ALL)
    assert capsys.readouterr().err.count("starcoder: cannot write") == 1


def test_validation_alone_counts_nothing(tmp_path: Path) -> None:
    meter, nothing = EnergyMeter(str(zones(tmp_path))), cast(Any, None)
    meter.setup(nothing, nothing, "validate")
    meter.on_validation_batch_end(nothing, nothing)
    assert not meter.cpus
    assert meter.idle


def test_a_long_validation_is_read_as_often_as_it_takes(tmp_path: Path) -> None:
    meter, nothing = EnergyMeter(str(zones(tmp_path))), cast(Any, None)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), local_rank=0)
    meter.setup(cast(Any, trainer), nothing, "fit")
    for _ in range(9):
        burn(tmp_path)
        meter.on_validation_batch_end(nothing, nothing)
    assert sum(counter.update() for counter in meter.cpus) == pytest.approx(9 * CPU_JOULES)


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_counts(recipe: Path) -> None:
    classes = [callback["class_path"] for callback in merged(recipe)["trainer"]["callbacks"]]
    assert classes.count("starcoder.training.energy.EnergyMeter") == 1


def test_a_run_that_has_ended_is_gone_on_with(tiny: Tiny, tmp_path: Path) -> None:
    root, folder = tiny.tokenizer.parent, tmp_path / "run"
    powercap = str(zones(tmp_path / "powercap"))
    fit(root, folder, Metered(powercap), 4)
    before = (folder / "checkpoints" / FILE).read_text()
    fit(root, folder, Metered(powercap), 4)
    assert (folder / "checkpoints" / FILE).read_text() == before
