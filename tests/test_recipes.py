import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from starcoder.cli import run as starcoder
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.training.fit import run
from starcoder.training.recipe import chain, expand, merged, setting

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
CORPORA = sorted((FOLDER / "corpus").glob("*.yaml"))

# Parameters, samples a step, tokens a sample, steps, tokens in all, GPUs: arXiv 2305.06161, 2301.03988 and the scripts.
PUBLISHED = {
    "starcoderbase": (15_517_456_384, 512, 8192, 250_000, 1.0486e12, 512),
    "starcoderbase-7b": (7_327_263_232, 512, 8192, 250_000, 1.0486e12, 512),
    "starcoderbase-3b": (3_043_311_104, 256, 8192, 500_000, 1.0486e12, 256),
    "starcoderbase-1b": (1_137_207_296, 128, 8192, 1_000_000, 1.0486e12, 128),
    "starcoder": (15_517_456_384, 512, 8192, 8_500, 35.65e9, 512),
    "santacoder": (1_124_886_528, 192, 2048, 600_000, 236e9, 96),
}


def values(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested mapping by dotted key."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= values(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses_against_the_code(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line accepts every key, and understands it as it is written."""
    with pytest.raises(SystemExit) as stop:
        run(["fit", "--config", str(recipe), "--print_config"])
    assert stop.value.code == 0
    parsed = values(yaml.safe_load(capsys.readouterr().out))
    for key, value in values(merged(recipe)).items():
        if key not in ("trainer.callbacks", "extends"):
            assert parsed[key] == value, key


@pytest.mark.parametrize("recipe", CORPORA, ids=lambda path: path.stem)
def test_a_recipe_of_a_corpus_parses_against_the_code(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        starcoder(["corpus", "build", "--config", str(recipe), "--print_config"])
    assert stop.value.code == 0
    parsed = values(yaml.safe_load(capsys.readouterr().out))
    for key, value in values(yaml.safe_load(recipe.read_text())).items():
        if key == "sources":
            assert [{k: v for k, v in source.items() if v is not None} for source in parsed[key]] == value
        else:
            assert parsed[key] == value, key


@pytest.mark.parametrize("recipe", [*RECIPES, *CORPORA], ids=lambda path: path.stem)
def test_a_recipe_is_a_document(recipe: Path) -> None:
    """Every key carries its reason or its unit, or stands for itself: a path, a switch, the name of a class."""
    text = recipe.read_text()
    assert text.startswith("# ")
    for line, following in pairwise([*text.splitlines(), ""]):
        written = re.match(r"( *)[-\w ]+: +([^#\s]+) *(#?)", line)
        if written is None or written[3] or following.lstrip().startswith("#"):
            continue
        value = yaml.safe_load(written[2])
        assert (
            value is None
            or isinstance(value, bool)
            or re.search(r"[/.]", str(value))
            or value in ("", "none", "bfloat16")
        ), line


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_run_of_the_papers_is_that_run(name: str) -> None:
    recipe = merged(next(path for path in RECIPES if path.stem == name))
    model, data, trainer = recipe["model"], recipe["data"], recipe["trainer"]
    with torch.device("meta"):
        built = StarCoder(StarCoderConfig.preset(model["preset"], **model.get("overrides", {})))
    parameters, samples, length, steps, tokens, gpus = PUBLISHED[name]
    assert sum(parameter.numel() for parameter in built.parameters()) == built.config.n_params == parameters
    assert (data["global_batch_size"], data["context_length"], trainer["max_steps"]) == (samples, length, steps)
    assert built.config.context_length == length
    assert samples * length * steps == pytest.approx(tokens, rel=1e-3)
    ranks = trainer["num_nodes"] * trainer["devices"]
    assert ranks == gpus
    assert samples % (data["batch_size"] * ranks) == 0
    assert ranks % trainer["strategy"]["init_args"]["shard_size"] == 0
    assert (model["weight_decay"], model["beta1"], model["beta2"], model["epsilon"]) == (0.1, 0.9, 0.95, 1e-8)
    assert trainer["gradient_clip_val"] == 1.0
    assert built.config.dropout == 0.1


@pytest.mark.parametrize(
    ("name", "peak", "end", "warmup"),
    [
        ("starcoderbase", 3e-4, 3e-5, 2000),
        ("starcoderbase-7b", 3e-4, 3e-5, 2000),
        ("starcoderbase-3b", 5e-4, 5e-5, 2000),
        ("starcoderbase-1b", 4e-4, 4e-5, 2000),
        ("starcoder", 5e-5, 5e-6, 1000),
        ("santacoder", 2e-4, 0.0, 12_000),
    ],
)
def test_the_schedules_are_the_published_ones(name: str, peak: float, end: float, warmup: int) -> None:
    model = merged(next(path for path in RECIPES if path.stem == name))["model"]
    assert (model["learning_rate"], model["min_learning_rate"], model["warmup_steps"]) == (peak, end, warmup)
    assert "decay_steps" not in model  # the cosine ends with the run


def test_the_encoder_of_the_paper_is_that_run() -> None:
    """The model card of bigcode/starencoder, and the authors' training code."""
    from starcoder.pii.encoder import encoder_config

    recipe = merged(FOLDER / "starencoder.yaml")
    model, data, trainer = recipe["model"], recipe["data"], recipe["trainer"]
    config = encoder_config(model["preset"], model["vocab_size"])
    assert (config.vocab_size, data["context_length"]) == (49_156, config.max_position_embeddings)
    assert data["global_batch_size"] * data["context_length"] * trainer["max_steps"] == pytest.approx(4.19e11, rel=1e-2)
    ranks = trainer["num_nodes"] * trainer["devices"]
    assert (ranks, data["batch_size"] * ranks) == (64, 4096)
    assert (model["learning_rate"], model["min_learning_rate"], model["warmup_steps"]) == (6e-4, 0.0, 24_000)
    assert (model["weight_decay"], model["beta1"], model["beta2"], model["epsilon"]) == (0.01, 0.9, 0.98, 1e-6)
    assert (trainer["gradient_clip_val"], trainer["max_steps"], data["max_characters"]) == (1.0, 100_000, 10_000)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "starcoder"),
        (["--architecture", "a"], "a"),
        (["--architecture=a", "--config=RECIPE"], "b"),
        (["--config=RECIPE", "--architecture=a"], "a"),
    ],
)
def test_the_last_setting_holds(tmp_path: Path, args: list[str], expected: str) -> None:
    write(tmp_path, recipe="architecture: b")
    args = [arg.replace("RECIPE", str(tmp_path / "recipe.yaml")) for arg in args]
    assert setting(args, "architecture", "starcoder") == expected


def write(folder: Path, **recipes: str) -> None:
    for name, text in recipes.items():
        (folder / f"{name}.yaml").write_text(text)


def test_a_recipe_comes_after_what_it_extends(tmp_path: Path) -> None:
    write(
        tmp_path, a="model: {x: 1, y: 1}\nlist: [1]", b="extends: a.yaml\nmodel: {y: 2}", c="extends: b.yaml\nlist: [2]"
    )
    a, b, c = (tmp_path / f"{name}.yaml" for name in "abc")
    assert chain(c) == [a, b, c]
    assert merged(c) == {"extends": "b.yaml", "model": {"x": 1, "y": 2}, "list": [2]}
    expected = ["fit", f"--config={a}", f"--config={b}", "--x", "1"]
    for named in (["--config", str(b)], [f"--config={b}"], ["-c", str(b)]):
        assert expand(["fit", *named, "--x", "1"]) == expected
    with pytest.raises(UserError, match="no option"):
        expand(["fit", "--extends=a.yaml"])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("missing", "cannot read the recipe"),
        ("itself", "builds on itself"),
        ("orphan", "cannot read the recipe .*nothing.yaml"),
        ("broken", "is no YAML"),
        ("text", "has no keys"),
    ],
)
def test_a_recipe_that_cannot_be_is_one_line(tmp_path: Path, recipe: str, message: str) -> None:
    write(tmp_path, itself="extends: itself.yaml", orphan="extends: nothing.yaml", broken="a: [", text="words")
    with pytest.raises(UserError, match=message) as error:
        run(["fit", "--config", str(tmp_path / f"{recipe}.yaml")])
    assert "\n" not in str(error.value)
