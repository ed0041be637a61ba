"""Two gloo ranks that are killed or told to stop; forked from one process, so that a start takes a second.

Run as a program: `kill ROOT FOLDER TRIALS SEED` or `tell ROOT FOLDER`, with the root of the small chain and an empty
folder. It prints what happened as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from starcoder.training.checkpoint import complete, damages, newest
from tests.training.layouts import Steps, run_job
from tests.training.ranks import finish, fork

RANKS = 2


def start(root: Path, folder: Path, steps: int) -> list[int]:
    """Fork the ranks; their process ids. Rank 0 leaves its losses in the folder."""
    job: dict[str, Any] = {"steps": steps, "folder": str(folder), "every_n_steps": 1, "resume": True, "batch_size": 1}

    def work(rank: int) -> None:
        losses = run_job(job, root, RANKS)
        if rank == 0:
            Path(folder, "losses.json").write_text(json.dumps(losses))

    return fork(RANKS, work)


def run(root: Path, folder: Path, steps: int) -> Steps:
    """Losses and norms of a run that nobody disturbs."""
    finish(start(root, folder, steps))
    losses: Steps = json.loads((folder / "losses.json").read_text())
    return losses


def last_step(folder: Path) -> int:
    last = newest(folder)
    return int(last.name.removeprefix("step-")) if last else 0


def wait_for_step(folder: Path, step: int) -> None:
    while last_step(folder) < step:
        time.sleep(0.005)


def kill(root: Path, folder: Path, trials: int, seed: int) -> None:
    """Kill one rank, again and again: at a random moment, or while a checkpoint is being written; then the other.

    The other has half a second alone, in which it waits for its peer or fails; then its launcher would end it.
    """
    random.seed(seed)
    found = []
    for trial in range(trials):
        children = start(root, folder / "run", 100_000)
        wait_for_step(folder / "run", last_step(folder / "run") + 1)
        if trial % 2:
            while len(list((folder / "run").glob("step-*"))) == len(complete(folder / "run")):
                time.sleep(0.0005)
        else:
            time.sleep(random.uniform(0, 0.3))
        for child in random.sample(children, RANKS):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            time.sleep(0.5)
        whole = complete(folder / "run")
        torn = len(list((folder / "run").glob("step-*"))) - len(whole)
        found.append({"step": last_step(folder / "run"), "torn": torn, "damages": damages(whole[-1])})
    end = last_step(folder / "run") + 3
    resumed, undisturbed = run(root, folder / "run", end), run(root, folder / "undisturbed", end)
    print(json.dumps({"found": found, "resumed": resumed, "undisturbed": undisturbed}))


def tell(root: Path, folder: Path) -> None:
    """Tell one rank alone to stop, once by each signal."""
    steps = []
    for number in (signal.SIGUSR1, signal.SIGTERM):
        children = start(root, folder / "run", 100_000)
        wait_for_step(folder / "run", last_step(folder / "run") + 3)
        os.kill(children[1], number)
        finish(children)
        steps.append(last_step(folder / "run"))
    end = steps[-1] + 3
    resumed, undisturbed = run(root, folder / "run", end), run(root, folder / "undisturbed", end)
    print(json.dumps({"steps": steps, "resumed": resumed, "undisturbed": undisturbed}))


if __name__ == "__main__":
    what, root, folder, *rest = sys.argv[1:]
    if what == "kill":
        kill(Path(root), Path(folder), *map(int, rest))
    else:
        tell(Path(root), Path(folder))
