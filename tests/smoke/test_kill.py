"""The smoke run under `kill -9`: whatever the moment, the next run goes on and ends with the same artefacts."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from starcoder.smoke.stage import states
from starcoder.training.checkpoint import newest
from tests import nursery

ROOT = Path(__file__).parents[2]
STEPS = 40


def start(folder: Path, recipes: Path, log: Path) -> nursery.Process:
    options = ["--output", folder, "--recipes", recipes, "--steps", STEPS, "--max_bytes", 1_000_000]
    write = f"import os; log = os.open({str(log)!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n"
    write += "os.dup2(log, 1), os.dup2(log, 2)\n"
    return nursery.begin(write + nursery.COMMAND_LINE, "smoke", *options)


def digests(folder: Path) -> dict[str, str]:
    """Digests of all artefacts; a checkpoint's names its folder, the model exported from it is compared instead."""
    return {name: state["digest"] for name, state in states(folder).items() if name not in ("pretrain", "finetune")}


def test_kills_leave_the_artefacts_of_an_undisturbed_run(tmp_path: Path) -> None:
    check(tmp_path, kills=6)


def check(folder: Path, kills: int) -> None:
    """Run once without and once with so many kills in `folder`, and compare what is left (`bench_kills` asks for more).

    Raises:
        AssertionError: when it differs.
    """
    undisturbed, disturbed, log = folder / "undisturbed", folder / "disturbed", folder / "log"
    recipes = folder / "recipes"
    shutil.copytree(ROOT / "recipes", recipes)
    recipe = recipes / "smoke.yaml"
    recipe.write_text(recipe.read_text().replace("every_n_steps: 50 ", "every_n_steps: 3 "))
    began = time.monotonic()
    assert start(undisturbed, recipes, log).wait(timeout=600) == 0, log.read_text()[-2000:]
    longest_wait = (time.monotonic() - began) / 2
    expected = digests(undisturbed)
    assert {"corpus", "tokenizer", "shards-train", "starcoderbase", "starcoder", "report"} <= expected.keys()

    seed = random.randrange(2**32)
    print(f"moments of the kills: random.Random({seed})")
    moments, done, resumptions = random.Random(seed), 0, 0
    while done < kills or (not resumptions and done < 4 * kills):
        process = start(disturbed, recipes, log)
        try:
            assert process.wait(timeout=moments.uniform(0, longest_wait)) == 0, log.read_text()[-2000:]
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            done += 1
            training = "digest" not in states(disturbed).get("pretrain", {"digest": None})
            resumptions += training and newest(disturbed / "pretrain" / "checkpoints") is not None
        else:
            assert digests(disturbed) == expected
            shutil.rmtree(disturbed)
    assert resumptions > 0, "no kill hit a run in the middle of its training"
    assert start(disturbed, recipes, log).wait(timeout=600) == 0, log.read_text()[-2000:]
    assert digests(disturbed) == expected
    assert not [path for path in disturbed.rglob("*") if path.suffix in (".partial", ".old")]
