"""The command: what it says of bad input, how it ends, and the command line that it would give to vLLM."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from starcoder import cli
from starcoder.errors import UserError
from starcoder.evaluation.engines.base import Request, Sampling
from starcoder.evaluation.engines.endpoint import EndpointEngine
from starcoder.generation import generate, infill
from starcoder.model import StarCoder
from starcoder.serving import serve as serving
from starcoder.serving.serve import serve, vllm_command
from starcoder.tokenizer import Tokenizer
from tests.conftest import ROOT, starcoder, start


@contextmanager
def running(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of a server, and its base URL."""
    with start(ROOT, "serve", str(folder), "--engine", "kit", "--port", "0", *options) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith(f"{folder.name} at http://127.0.0.1:"), process.communicate(timeout=30)
            yield process, line.split()[2].rstrip(";")
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_lets_a_stream_end_and_then_has_its_effect(
    folder: Path, model: StarCoder, tokenizer: Tokenizer, number: int, code: int
) -> None:
    (expected,) = generate(model, tokenizer, ["def"], max_new_tokens=90, temperature=1, seed=2)
    with running(folder) as (process, url), OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        stream = client.completions.create(
            model="tiny", prompt="def", max_tokens=90, temperature=1, seed=2, stream=True, echo=True
        )
        text = next(stream).choices[0].text
        process.send_signal(number)
        text += "".join(choice.text for chunk in stream for choice in chunk.choices)
        assert text == "def" + expected
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code
        assert errors == ""
        with pytest.raises(openai.APIConnectionError):
            client.models.list()


def test_the_kits_own_evaluation_asks_it(folder: Path, model: StarCoder, tokenizer: Tokenizer) -> None:
    prefix, suffix = "def add(a, b):\n", "    return c\n"
    requests = [Request("one", "class", None, (0, 1), stop=("\n\n",)), Request("two", prefix, suffix, (0,))]
    with running(folder) as (_, url):
        engine = EndpointEngine("tiny", base_url=url, infilling="suffix")
        found = list(engine.complete(requests, Sampling(temperature=0.0, top_p=1.0, max_new_tokens=9)))
    (completed,) = generate(model, tokenizer, ["class"], max_new_tokens=9, stop=["\n\n"])
    (infilled,) = infill(model, tokenizer, [(prefix, suffix)], max_new_tokens=9)
    texts = sorted((completion.problem, completion.sample, completion.text) for completion in found)
    assert texts == [("one", 0, completed), ("one", 1, completed), ("two", 0, infilled)]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("starcoder: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_a_port_in_use(folder: Path, taken_port: int) -> None:
    one_line(starcoder(ROOT, "serve", str(folder), "--port", str(taken_port)), str(taken_port), "in use", "--port")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    one_line(starcoder(ROOT, "serve", str(tmp_path), "--port", "0"), str(tmp_path))


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_the_extra_is_not_installed(folder: Path, missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from starcoder.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", str(folder), "--engine", "kit", "--port", "0"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    one_line(result, f"{missing} is not installed", "starcoder-kit[serve]")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70_000}, "port"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
        ({"host": "192.0.2.1", "port": 0}, "192.0.2.1"),
        ({"rows": 0, "queue": -1}, "rows, queue"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"grace": -1.0}, "grace"),
        ({"grace": float("nan")}, "grace"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY"),
        ({"engine": "vllm"}, "vllm is not installed"),
    ],
)
def test_options_that_cannot_be(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        serve(str(folder), **options)
    assert "\n" not in str(error.value)


def test_vllm_gets_our_options_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    calls: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(serving, "find_spec", lambda name: object() if name == "vllm" else None)
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.setenv("MY_KEY", "secret")
    cli.run(["serve", str(folder), "--port", "8123", "--dtype", "bfloat16", "--rows", "64", "--api_key_env", "MY_KEY"])
    ((program, command, environment),) = calls
    assert program == sys.executable
    assert command == vllm_command(str(folder), "127.0.0.1", 8123, "tiny", "bfloat16", 64)
    assert " ".join(command[1:]) == (
        f"-m vllm.entrypoints.cli.main serve {folder} --host 127.0.0.1 --port 8123 --served-model-name tiny "
        "--dtype bfloat16 --max-num-seqs 64"
    )
    assert environment["VLLM_API_KEY"] == "secret"
    assert "secret" not in json.dumps(command)
