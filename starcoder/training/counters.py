"""Energy counters of the hardware, which need no root for GPUs and usually do for CPUs.

NVML    millijoules of a GPU since its driver was loaded; Volta or newer
RAPL    energy_uj, microjoules of a CPU package, Intel's or AMD's, from zero again after a while
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch

_NVML = "libnvidia-ml.so.1"  # comes with the driver


class Counter:
    """Joules since it was made, from a hardware counter that now and then begins at zero again.

    Args:
        read: gives the count; an OSError when it cannot.
        joules: of one count.
        span: the count after which it begins again; 0 when it does so only with a driver that is loaded anew.
    """

    def __init__(self, read: Callable[[], int], joules: float, span: int = 0) -> None:
        self._read, self._joules, self._span = read, joules, span
        self._last, self._counts = read(), 0
        self.failed = False

    def update(self) -> float:
        """Read it; joules so far. A counter that fails once, or is read less than once a span, has missed some."""
        try:
            now = self._read()
        except OSError:
            self.failed = True
            return self._counts * self._joules
        begun_again = now < self._last
        self._counts += now + max(self._span - self._last, 0) if begun_again else now - self._last
        self._last = now
        return self._counts * self._joules


def gpu_counter(device: torch.device) -> Counter:
    """That of one GPU, found by its UUID: NVML numbers them in another order than CUDA_VISIBLE_DEVICES.

    Raises:
        OSError: when it has none that can be read; a slice of a GPU (MIG) has none.
    """
    if device.type != "cuda":
        raise OSError(f"a device {device.type} has no counter that is known here")
    nvml, handle = ctypes.CDLL(_NVML), ctypes.c_void_p()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    _check(nvml.nvmlInit_v2(), "nvmlInit")
    _check(nvml.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)), f"nvmlDeviceGetHandleByUUID {uuid}")
    sliced, pending = ctypes.c_uint(), ctypes.c_uint()
    has_slices = getattr(nvml, "nvmlDeviceGetMigMode", None)  # drivers before Ampere have none
    if has_slices and has_slices(handle, ctypes.byref(sliced), ctypes.byref(pending)) == 0 and sliced.value:
        raise OSError("a slice of a GPU has no counter of its own")

    def read() -> int:
        millijoules = ctypes.c_ulonglong()
        code = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        _check(code, "nvmlDeviceGetTotalEnergyConsumption")
        return millijoules.value

    return Counter(read, 1e-3)


def cpu_counters(powercap: Path) -> list[Counter]:
    """Those of this machine's CPU packages; their parts (cores, graphics) and the whole platform would count twice.

    Raises:
        OSError: when there is none, or one cannot be read; usually only root may.
    """
    zones = sorted(powercap.glob("intel-rapl:*"))
    packages = [zone for zone in zones if (zone / "name").read_text().startswith("package-")]
    if not packages:
        raise OSError(f"no CPU package in {powercap}")

    def counter(package: Path) -> Counter:
        return Counter(lambda: _number(package / "energy_uj"), 1e-6, _number(package / "max_energy_range_uj"))

    return [counter(package) for package in packages]


def _number(path: Path) -> int:
    content = path.read_text()
    if not content.strip().isdecimal():
        raise OSError(f"{path} holds no number")
    return int(content)


def _check(code: int, call: str) -> None:
    if code:
        raise OSError(f"{call}: NVML's error {code}")
