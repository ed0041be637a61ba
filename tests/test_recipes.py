import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from starcoder.training.fit import run

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
OVERLAYS = {"smoke-python": ["smoke"]}


def configs(recipe: Path) -> list[str]:
    base = [recipe.with_name(f"{name}.yaml") for name in OVERLAYS.get(recipe.stem, [])]
    return [part for path in [*base, recipe] for part in ("--config", str(path))]


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
        run(["fit", *configs(recipe), "--print_config"])
    assert stop.value.code == 0
    parsed = values(yaml.safe_load(capsys.readouterr().out))
    written = values(yaml.safe_load(recipe.read_text()))
    for key, value in written.items():
        if key != "trainer.callbacks":
            assert parsed[key] == value, key


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_document(recipe: Path) -> None:
    """Every key of model and data carries its reason or its unit, or stands for itself as a path."""
    text = recipe.read_text()
    assert text.startswith("# ")
    for section in yaml.safe_load(text).get("model", {}), yaml.safe_load(text).get("data", {}):
        for key, value in section.items():
            line = re.search(rf"^  {key}: .*$", text, re.MULTILINE)
            assert line is not None
            assert "#" in line.group() or "/" in str(value), f"{recipe.name}: {key} says nothing"
