"""Models of transformers' from folders: whole, and without what it says of every one."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starcoder.errors import UserError, one_line


def read_whole(kind: Any, folder: Path, **options: Any) -> Any:
    """A model from a folder, in evaluation mode.

    Args:
        kind: Transformers' class of it.
        folder: The folder.
        options: Of `from_pretrained`.

    Raises:
        UserError: A weight is damaged, of another shape or missing, for which transformers would draw random numbers.
    """
    try:
        with quiet():
            model, report = kind.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:  # transformers and safetensors raise what they stumble over
        raise UserError(f"the model in {folder} cannot be read: {one_line(error)}") from None
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"the model in {folder} lacks weights, such as {missing[0]}")
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and warnings, such as its table of the heads that were not wanted."""
    from transformers.utils import logging as talk

    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity(logging.ERROR)
    talk.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it without types
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()  # type: ignore[no-untyped-call]
