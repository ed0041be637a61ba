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
from starcoder.generation import generate
from starcoder.model import StarCoder
from starcoder.serving import vllm
from starcoder.serving.serve import serve
from starcoder.tokenizer import Tokenizer
from tests.conftest import ROOT, start


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


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_mistake_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["serve", "nowhere", "--port", "0", "--engine", "kit"])
    assert end.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("starcoder: ")
    assert errors.count("\n") == 1


def test_a_port_in_use(folder: Path, taken_port: int) -> None:
    with pytest.raises(UserError, match=f"cannot listen at 127.0.0.1, port {taken_port}: Address already in use"):
        serve(str(folder), port=taken_port)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=str(tmp_path)):
        serve(str(tmp_path), port=0)


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_the_extra_is_not_installed(folder: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"{missing} is not installed: pip install 'starcoder-kit\[serve\]'"):
        serve(str(folder), port=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70_000}, "port is 70000"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
        ({"host": "192.0.2.1", "port": 0}, "192.0.2.1"),
        ({"rows": 0, "queue": -1}, "rows is 0, below 1; queue is -1, below 0"),
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
    monkeypatch.setattr(vllm, "find_spec", lambda name: object() if name == "vllm" else None)
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.setenv("MY_KEY", "secret")
    cli.run(
        [
            "serve",
            str(folder),
            "--port",
            "8123",
            "--dtype",
            "bfloat16",
            "--rows",
            "64",
            "--api_key_env",
            "MY_KEY",
            "--allow_origins+",
            "https://page.example",
        ]
    )
    ((program, command, environment),) = calls
    assert program == sys.executable
    assert " ".join(command[1:]) == (
        f"-m vllm.entrypoints.cli.main serve {folder} --host 127.0.0.1 --port 8123 --served-model-name tiny "
        '--dtype bfloat16 --max-num-seqs 64 --allowed-origins ["https://page.example"]'
    )
    assert environment["VLLM_API_KEY"] == "secret"
    assert "secret" not in json.dumps(command)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"queue": 9, "grace": 1.0}, "vLLM takes no --queue, --grace: leave them out, or take --engine kit"),
        ({"max_prompt_tokens": 9}, "no --max_prompt_tokens: leave it out"),
        ({"max_tokens": 9}, "--max_tokens"),
        ({"max_body_bytes": 9}, "--max_body_bytes"),
        ({"decoding": "eager"}, "--decoding"),
        ({"dtype": "int8"}, "int8 is this kit's own"),
    ],
)
@pytest.mark.parametrize("engine", ["auto", "vllm"])
def test_vllm_is_not_given_what_it_would_ignore(
    monkeypatch: pytest.MonkeyPatch, folder: Path, engine: str, option: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: object())
    monkeypatch.setattr(os, "execve", lambda *call: pytest.fail("vLLM was started"))
    with pytest.raises(UserError, match=words):
        serve(str(folder), engine=engine, **option)  # type: ignore[arg-type]
