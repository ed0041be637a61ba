"""The corpus on a real Ray cluster of two workers on this machine."""

import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from starcoder.corpus.build import build
from starcoder.executors import Execution

ray = pytest.importorskip("ray")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore:placement_group:DeprecationWarning")
def test_ray_and_this_machine_make_the_same_bytes(tmp_path: Path) -> None:
    for package in ("json", "email", "http", "logging", "xml", "unittest"):
        (tmp_path / "source" / package).mkdir(parents=True)
        for path in (Path(sysconfig.get_path("stdlib")) / package).glob("*.py"):
            (tmp_path / "source" / package / path.name).write_bytes(path.read_bytes())
    made = []
    for execution in (Execution(workers=1), Execution("ray", workers=2, memory_gb=1)):
        output = tmp_path / execution.executor
        build(output, source=tmp_path / "source", license="PSF-2.0", task_bytes=400_000, execution=execution)
        made.append({path.name: path.read_bytes() for path in output.iterdir()})
    assert len([name for name in made[0] if name.startswith("train")]) >= 2
    assert made[0] == made[1]
