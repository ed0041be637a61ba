"""Counters begin again, fail, or are of the wrong thing: stand-ins for sysfs and for NVIDIA's library tell."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from starcoder.training import counters as counters_module
from starcoder.training.counters import Counter, cpu_counters, gpu_counter
from tests.training.metered import SPAN, burn, zones

NVML = r"""
#include <string.h>
static int gpu;
int initialized, sliced, broken;
unsigned long long energy;
int nvmlInit_v2(void) { initialized = 1; return 0; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    if (!initialized) return 1;
    if (strcmp(uuid, "GPU-12345678-9abc-def0-1234-56789abcdef0")) return 6;
    *handle = &gpu;
    return 0;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *pending) {
    if (handle != &gpu) return 2;
    *now = *pending = sliced;
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    if (handle != &gpu || broken) return 3;
    *millijoules = energy;
    return 0;
}
"""
"""The functions of NVIDIA's nvml.h that are asked, of a machine with one GPU."""


@pytest.fixture
def nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path / "libnvidia-ml.so.1"
    (tmp_path / "nvml.c").write_text(NVML)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    monkeypatch.setattr(counters_module, "_NVML", str(library))
    properties = SimpleNamespace(uuid="12345678-9abc-def0-1234-56789abcdef0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return ctypes.CDLL(str(library))


def test_packages_alone_are_counted_also_when_they_begin_again(tmp_path: Path) -> None:
    counters = cpu_counters(zones(tmp_path / "powercap"))
    for times in range(1, 8):  # each begins again after 1 kJ, and takes 300 J or 500 J
        burn(tmp_path / "powercap")
        assert [counter.update() for counter in counters] == [pytest.approx(300 * times), pytest.approx(500 * times)]
    assert not any(counter.failed for counter in counters)
    assert SPAN == 1e9


@pytest.mark.parametrize("zone", ["nothing", "no package", "no counter", "a folder", "no number", "no span"])
def test_packages_that_cannot_be_read_are_said_to_be(tmp_path: Path, zone: str) -> None:
    powercap = tmp_path if zone == "nothing" else zones(tmp_path / "powercap")
    package = powercap / "intel-rapl:1"
    if zone == "no package":
        for path in powercap.glob("*/name"):
            path.write_text("psys\n")
    elif zone == "no number":
        (package / "energy_uj").write_text("\n")
    elif zone != "nothing":
        (package / ("max_energy_range_uj" if zone == "no span" else "energy_uj")).unlink()
    if zone == "a folder":
        (package / "energy_uj").mkdir()
    with pytest.raises(OSError, match=str(tmp_path)):
        cpu_counters(powercap)


def test_a_counter_that_fails_keeps_what_it_had_and_says_so(tmp_path: Path) -> None:
    powercap = zones(tmp_path / "powercap")
    counter, _ = cpu_counters(powercap)
    burn(powercap)
    (powercap / "intel-rapl:0" / "energy_uj").rename(tmp_path / "aside")
    assert (counter.update(), counter.failed) == (0, True)
    (tmp_path / "aside").rename(powercap / "intel-rapl:0" / "energy_uj")
    assert (counter.update(), counter.failed) == (pytest.approx(300), True)


def test_a_gpu_is_found_by_its_uuid_and_counts_millijoules(nvml: ctypes.CDLL) -> None:
    total = ctypes.c_ulonglong.in_dll(nvml, "energy")
    total.value = 2**40
    counter = gpu_counter(torch.device("cuda", 0))
    assert counter.update() == 0
    total.value += 5_000_000_000_000
    assert counter.update() == pytest.approx(5e9)
    total.value = 1000  # the driver was loaded anew: what it had counted since the last look is gone
    assert counter.update() == pytest.approx(5e9 + 1)
    ctypes.c_int.in_dll(nvml, "broken").value = 1
    assert (counter.update(), counter.failed) == (pytest.approx(5e9 + 1), True)


def test_a_gpu_without_a_counter_is_said_to_be(nvml: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    ctypes.c_int.in_dll(nvml, "broken").value = 1
    with pytest.raises(OSError, match="TotalEnergyConsumption: NVML's error 3"):
        gpu_counter(device)
    ctypes.c_int.in_dll(nvml, "sliced").value = 1
    with pytest.raises(OSError, match="slice of a GPU"):
        gpu_counter(device)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="another"))
    with pytest.raises(OSError, match="UUID GPU-another: NVML's error 6"):
        gpu_counter(device)
    monkeypatch.setattr(counters_module, "_NVML", "libnothing.so.1")
    with pytest.raises(OSError, match="libnothing"):
        gpu_counter(device)
    with pytest.raises(OSError, match="mps"):
        gpu_counter(torch.device("mps"))


def test_counts_are_whole_numbers_of_their_unit() -> None:
    counts = iter([10, 14, 3, 3])
    counter = Counter(lambda: next(counts), 0.5, span=20)
    assert [counter.update() for _ in range(3)] == [2.0, 2.0 + (20 - 14 + 3) / 2, 2.0 + (20 - 14 + 3) / 2]
