"""vLLM's server in place of this kit's."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from starcoder.errors import UserError


def is_installed() -> bool:
    """Whether there is a vLLM here."""
    return find_spec("vllm") is not None


def run(model: str, options: Mapping[str, Any], key: str | None, origins: Sequence[str]) -> None:
    """Become vLLM's server, so that signals reach it.

    Args:
        model: a folder or a Hub repository.
        options: host, port, name, dtype and rows, as `starcoder serve` has them.
        key: what requests must bear, if anything; it goes by the environment, which no list of processes shows.
        origins: web pages whose scripts may ask.

    Raises:
        UserError: when vLLM is not installed.
    """
    if not is_installed():
        raise UserError("vllm is not installed: pip install vllm, or take --engine kit")
    words = command(model, options, origins)
    os.execve(words[0], words, os.environ | ({"VLLM_API_KEY": key} if key else {}))


def command(model: str, options: Mapping[str, Any], origins: Sequence[str] = ()) -> list[str]:
    """What runs vLLM's server."""
    named = {
        "host": options["host"],
        "port": options["port"],
        "served-model-name": options["name"],
        "dtype": options["dtype"] or "auto",
        "max-num-seqs": options["rows"],
    }
    if origins:
        named["allowed-origins"] = json.dumps(list(origins))
    spelled = [word for option, value in named.items() for word in (f"--{option}", str(value))]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model, *spelled]


def check_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse, as a `UserError`, options that only this kit's server would heed.

    Args:
        given: options without a meaning for vLLM, by name.
        defaults: their values when they are not given.
    """
    vain = [f"--{name}" for name, value in given.items() if value != defaults[name]]
    if vain:
        raise UserError(
            f"serve: vLLM takes no {', '.join(vain)}: leave {'them' if vain[1:] else 'it'} out, or take --engine kit"
        )
