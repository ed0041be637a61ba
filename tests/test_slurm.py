"""recipes/slurm.sh with a stand-in for Slurm's own commands, which note how they were called."""

import os
import subprocess
from pathlib import Path

import pytest

from starcoder.training.preemption import EXIT_CODE
from tests.conftest import ROOT

STANDINS = {
    "srun": 'echo "$@" > srun.called; echo "$MASTER_ADDR:$MASTER_PORT" >> srun.called; exit $SRUN_EXITS_WITH',
    "scontrol": 'if [ "$1" = show ]; then echo node7; echo node8; else echo "$@" >> scontrol.called; fi',
}


def submit(folder: Path, exit_code: int) -> subprocess.CompletedProcess[str]:
    for name, body in STANDINS.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    slurm = {
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_ID": "1234",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS_PER_NODE": "8",
        "SLURM_CPUS_PER_TASK": "8",
    }
    environment = os.environ | slurm | {"PATH": f"{folder}:{os.environ['PATH']}", "SRUN_EXITS_WITH": str(exit_code)}
    command = [str(ROOT / "recipes/slurm.sh"), "starcoderbase-1b", "--data.batch_size=2"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_it_starts_a_process_a_gpu_that_resumes(tmp_path: Path) -> None:
    assert submit(tmp_path, 0).returncode == 0
    call, rendezvous = (tmp_path / "srun.called").read_text().splitlines()
    assert "--config recipes/starcoderbase-1b.yaml" in call
    assert call.endswith("--trainer.num_nodes 2 --trainer.devices 8 --ckpt_path last --data.batch_size=2")
    assert "build/runs/starcoderbase-1b/logs/%N.log" in call
    assert rendezvous == "node7:11234"
    assert not (tmp_path / "scontrol.called").exists()


def test_it_requeues_a_run_that_was_told_to_stop(tmp_path: Path) -> None:
    result = submit(tmp_path, EXIT_CODE)
    assert result.returncode == 0
    assert "goes on in the queue" in result.stdout
    assert (tmp_path / "scontrol.called").read_text() == "requeue 1234\n"


@pytest.mark.parametrize("code", [1, 2, 137])
def test_it_hands_any_other_failure_on(tmp_path: Path, code: int) -> None:
    assert submit(tmp_path, code).returncode == code
    assert not (tmp_path / "scontrol.called").exists()
