import json
import re
import shutil
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.smoke.run import FINETUNE_SHARE, RESERVE_SECONDS, affordable_steps, decided_steps
from starcoder.smoke.stage import states
from tests.conftest import SMALL_RUN, starcoder
from tests.nursery import start

OUTPUT = Path("build/smoke")


def stages(printed: str) -> dict[str, bool]:
    """Stages in the order in which they were printed, and whether each was up to date."""
    return {name: what == "up to date" for name, what in re.findall(r"^== (\S+): (.*)$", printed, re.MULTILINE)}


@pytest.fixture
def copy(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run, tmp_path / "copy", symlinks=True))


def test_a_second_run_reuses_everything(copy: Path) -> None:
    again = stages(starcoder(copy, *SMALL_RUN, check=True).stdout)
    assert list(again) == [
        "corpus",
        "tokenizer",
        "shards/train",
        "shards/python",
        "shards/validation",
        "pretrain",
        "starcoderbase",
        "finetune",
        "starcoder",
        "report",
    ]
    assert all(again.values())


def test_another_recipe_repeats_what_depends_on_it_alone(copy: Path) -> None:
    (copy / "recipes").unlink()
    shutil.copytree(Path(__file__).parents[2] / "recipes", copy / "recipes")
    with (copy / "recipes" / "smoke-python.yaml").open("a") as recipe:
        recipe.write("\n# a thought\n")
    done = stages(starcoder(copy, *SMALL_RUN, check=True).stdout)
    assert [name for name, fresh in done.items() if not fresh] == ["finetune", "starcoder", "report"]


def test_what_cannot_start_removes_nothing(small_run: Path, tmp_path: Path) -> None:
    keepsake = tmp_path / "holiday.jpg"
    keepsake.write_text("sun")
    mistakes = (["--output", str(tmp_path)], ["--recipes", str(tmp_path)], ["--steps", "3"], ["--minutes", "nan"])
    for options in mistakes:
        refused = starcoder(small_run, *SMALL_RUN, "--fresh", "true", *options)
        assert refused.returncode == 2, refused.stdout
        assert refused.stdout == ""
    assert keepsake.read_text() == "sun"
    assert (small_run / OUTPUT / "report" / "index.html").exists()


def test_fresh_starts_over(copy: Path) -> None:
    with start(copy, *SMALL_RUN, "--fresh", "true") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("== corpus")
        assert not (copy / OUTPUT / "tokenizer").exists()
        process.kill()


def test_the_report_shows_what_was_measured(small_run: Path) -> None:
    page = (small_run / OUTPUT / "report" / "index.html").read_text()
    results = json.loads((small_run / OUTPUT / "report" / "results.json").read_text())
    assert "<svg" in page
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", page), "the page is not self-contained"
    for name, row in results["loss"]["rows"].items():
        assert f"<td>{name}</td><td>{row['nats']:.3f}</td>" in page
    checks = {check["what"]: check for check in results["checks"]}
    assert not checks["MB of code to train on"]["holds"]
    assert checks["languages in it"]["holds"]
    for language in results["corpus"]["train"]["languages"]:
        assert f"<td>{language}</td>" in page
    assert {"untrained", "starcoderbase", "starcoder"} == results["infill"]["matches"].keys()


def test_nothing_lies_outside_build(small_run: Path) -> None:
    assert {path.name for path in small_run.iterdir()} == {"build", "recipes", "home"}
    assert not list((small_run / "home").iterdir())


def write_pace(root: Path, seconds: float, steps_per_second: float) -> None:
    (root / ".state").mkdir()
    for name in ("corpus", "pace", "pretrain"):
        (root / ".state" / f"{name}.json").write_text(json.dumps({"key": "k", "seconds": seconds}))
    (root / "pace" / "metrics" / "version_0").mkdir(parents=True)
    table = f"step,steps_per_sec\n3,1\n7,{steps_per_second}\n"
    (root / "pace" / "metrics" / "version_0" / "metrics.csv").write_text(table)


def test_training_gets_what_the_other_stages_leave(tmp_path: Path) -> None:
    write_pace(tmp_path, seconds=20, steps_per_second=5)
    assert set(states(tmp_path)) == {"corpus", "pace", "pretrain"}
    left = 5 * 60 - 2 * 20 - RESERVE_SECONDS  # pretraining itself does not count as spent
    assert affordable_steps(tmp_path, 5) == int(left * (1 - FINETUNE_SHARE) * 5)
    with pytest.raises(UserError, match=r"1\.5 minutes are too short"):
        affordable_steps(tmp_path, 1.5)


def test_the_steps_are_decided_once(tmp_path: Path) -> None:
    write_pace(tmp_path, seconds=20, steps_per_second=5)
    steps = decided_steps(tmp_path, 5, "key")
    (tmp_path / ".state" / "corpus.json").write_text(json.dumps({"key": "k", "seconds": 30}))
    assert decided_steps(tmp_path, 5, "key") == steps
    assert decided_steps(tmp_path, 5, "another key") == affordable_steps(tmp_path, 5) < steps
    assert decided_steps(tmp_path, 6, "another key") == affordable_steps(tmp_path, 6) > steps
