"""Engines: what completes prompts. This kit's own, any transformers model, an OpenAI-compatible endpoint."""

import inspect
from importlib import import_module
from typing import Any

from starcoder.errors import UserError
from starcoder.evaluation.engines.base import Engine

ENGINES = {
    "kit": "starcoder.evaluation.engines.kit:open_kit",
    "transformers": "starcoder.evaluation.engines.hf:open_transformers",
    "endpoint": "starcoder.evaluation.engines.endpoint:EndpointEngine",
}
"""What opens each kind of engine; its first argument is the model."""


def open_engine(model: str, kind: str = "kit", **options: Any) -> Engine:
    """Open what completes prompts.

    Args:
        model: a folder, checkpoint or Hub repository, or an endpoint's name for its model.
        kind: one of `ENGINES`.
        options: arguments of what opens that kind; those that are None have not been given.

    Raises:
        UserError: when there is no such kind, an option is not one of its, or the model cannot be opened.
    """
    if kind not in ENGINES:
        raise UserError(f"no engine {kind!r}; there are {', '.join(ENGINES)}")
    module, function = ENGINES[kind].split(":")
    opener = getattr(import_module(module), function)
    _, *parameters = inspect.signature(opener).parameters.values()
    known = [parameter.name for parameter in parameters]
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := sorted(given.keys() - set(known)):
        raise UserError(f"the engine {kind} takes no {', '.join(unknown)}, only {', '.join(known)}")
    needed = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
    if missing := sorted(needed - given.keys()):
        raise UserError(f"the engine {kind} needs {', '.join(missing)}")
    engine: Engine = opener(model, **given)
    return engine
