"""Where a model may be written: in an empty place or over a model of ours, never over what somebody else put there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starcoder.errors import UserError
from starcoder.storage import atomic_folder

MARKER = "generation_config.json"
"""The file without which a folder is no model of ours."""
_INDEX = "model.safetensors.index.json"
_FILES = frozenset(
    {"config.json", MARKER, "model.safetensors", _INDEX, "model.gguf", "golden.json"}
    | {"vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"}
)


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it takes the place of `folder`, on error nothing has changed.

    A model that was written here before is replaced as a whole, and a card and results of it that nobody has edited go
    with it.

    Raises:
        UserError: when `folder` holds anything else.
    """
    check_target(folder)
    with atomic_folder(folder, MARKER) as partial:
        yield partial
        check_target(folder)  # writing takes long enough for somebody to put something there


def check_target(folder: Path) -> None:
    """Refuse to write a model where that would remove anything else than a model of ours.

    Raises:
        UserError: naming what is there.
    """
    if not folder.is_dir():
        return  # `atomic_folder` refuses files
    shards = _shards(folder)
    others = sorted(path.name for path in folder.iterdir() if not (_is_written(path, shards) or _is_derived(path)))
    if others:
        shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UserError(
            f"{folder} holds something else than a model that was written there, {shown}: name another folder, "
            "or take that out of it"
        )


def _is_written(path: Path, shards: frozenset[str]) -> bool:
    return path.is_file() and path.name in _FILES | shards


def _shards(folder: Path) -> frozenset[str]:
    """The weight files that the folder's own index names."""
    try:
        names = json.loads((folder / _INDEX).read_bytes())["weight_map"].values()
        return frozenset(name for name in names if name.startswith("model-") and name.endswith(".safetensors"))
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return frozenset()


def _is_derived(path: Path) -> bool:
    """Whether that is a card or results, as `starcoder card` wrote them of the weights beside."""
    if path.name not in ("README.md", ".eval_results"):
        return False
    from starcoder.release.card import is_edited

    files = list(path.iterdir()) if path.is_dir() else [path]
    return all(file.is_file() and not is_edited(file) for file in files)
