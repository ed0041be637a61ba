"""Recipes that say only what differs: the key `extends` names the recipe underneath."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from starcoder.errors import UserError, one_line


def chain(recipe: Path) -> list[Path]:
    """The recipe after all that it builds on, the last wins.

    Raises:
        UserError: when one is missing, is no YAML of keys, or builds on itself.
    """
    found: list[Path] = []
    while True:
        found.insert(0, recipe)
        base = _read(recipe).get("extends")
        if base is None:
            return found
        recipe = recipe.parent / str(base)
        if recipe in found:
            raise UserError(f"the recipe {recipe} builds on itself")


def expand(args: Sequence[str]) -> list[str]:
    """A command line in which each `--config RECIPE` comes after the recipes that it builds on.

    Raises:
        UserError: as `chain`.
    """
    expanded: list[str] = []
    rest = iter(args)
    for part in rest:
        option, equals, value = part.partition("=")
        if option == "--extends":
            raise UserError("extends is a key of recipes, no option: name the recipe that has it with --config")
        if option in ("--config", "-c") and (recipe := value if equals else next(rest, "")):
            expanded += [f"--config={path}" for path in chain(Path(recipe))]
        else:
            expanded.append(part)
    return expanded


def setting(args: Sequence[str], name: str, default: str) -> str:
    """What an expanded command line says that `name` is: the last recipe or option that says it."""
    value = default
    for part, following in pairwise([*args, ""]):
        option, equals, given = part.partition("=")
        if option == "--config":
            value = str(_read(Path(given)).get(name, value))
        elif option == f"--{name}":
            value = given if equals else following
    return value


def merged(recipe: Path) -> dict[str, Any]:
    """All keys of a recipe and what it builds on; lists and values are replaced, mappings merged."""
    keys: dict[str, Any] = {}
    for path in chain(recipe):
        keys = _merge(keys, _read(path))
    return keys


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = _merge(both[key], value) if nested else value
    return both


def _read(recipe: Path) -> dict[str, Any]:
    try:
        keys = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the recipe {recipe}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"the recipe {recipe} is no YAML: {one_line(error)}") from None
    if not isinstance(keys, dict):
        raise UserError(f"the recipe {recipe} has no keys")
    return keys
