"""StarCoder (arXiv 2305.06161), reproduced: from raw repositories to a released code model.

The rooms follow the paper's sections; each package's docstring names its own. The names below come from their rooms
when they are first asked for, so that importing the package stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starcoder.generation import generate, infill
    from starcoder.model import StarCoder, StarCoderConfig
    from starcoder.tokenizer import Tokenizer

__all__ = ["StarCoder", "StarCoderConfig", "Tokenizer", "generate", "infill"]

_ROOMS = {
    "StarCoder": "model",
    "StarCoderConfig": "model",
    "Tokenizer": "tokenizer",
    "generate": "generation",
    "infill": "generation",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
