"""The command: what it says of bad input, how it ends, and the command line that it would give to vLLM."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import openai
import pytest
import torch
import uvicorn
from openai import OpenAI

from starcoder import cli
from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.generation import generate
from starcoder.model import StarCoder
from starcoder.serving import serve as serving
from starcoder.serving import vllm
from starcoder.serving.engine import Engine
from starcoder.serving.prompts import longest_token
from starcoder.serving.serve import serve
from starcoder.tokenizer import Tokenizer
from tests.conftest import ROOT, start
from tests.serving.conftest import CODE, LIMITS, Served, ask, until


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


@contextmanager
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Iterator[Served]:
    """The command in a thread of this process."""
    made: list[tuple[Engine, uvicorn.Server]] = []

    def new_server(engine: Engine, *arguments: Any) -> uvicorn.Server:
        made.append((engine, build(engine, *arguments)))
        return made[0][1]

    build = serving.new_server
    monkeypatch.setattr(serving, "new_server", new_server)
    thread = Thread(target=cli.run, args=[["serve", str(folder), "--engine", "kit", "--port", "0", *options]])
    thread.start()
    until(lambda: (made and made[0][1].started) or not thread.is_alive())
    ((engine, server),) = made
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=0) as client:
            yield Served(url, client, engine, server)
    finally:
        server.should_exit = True
        thread.join(60)


def post(served: Served, **request: Any) -> tuple[int, Any, Any]:
    headers = {"Authorization": "Bearer secret", "Origin": "https://page.example", "Content_Type": "application/json"}
    return ask(served, "POST", "/v1/completions", json.dumps({"model": "tiny"} | request).encode(), **headers)


def said(answer: tuple[int, Any, Any]) -> str:
    return str(answer[2]["error"]["message"])


def test_every_option_has_its_effect(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    options = "--rows 3 --queue 2 --max_prompt_tokens 40 --max_tokens 9 --max_body_bytes 2000 --dtype bfloat16"
    more = "--api_key_env MY_KEY --allow_origins+ https://page.example --decoding graph --access_log --name tiny"
    with command(folder, monkeypatch, *options.split(), *more.split()) as served:
        assert ask(served, "GET", "/v1/models")[0] == 401
        assert served.client.completions.create(model="tiny", prompt=[50] * 40, max_tokens=9, n=3).choices
        assert post(served, prompt=[50] * 40)[1]["access-control-allow-origin"] == "https://page.example"
        assert "has 41 tokens, this server takes 40" in said(post(served, prompt=[50] * 41))
        assert "writes at most 9" in said(post(served, prompt=[50], max_tokens=10))
        assert "n = 4 are more than 3 completions" in said(post(served, prompt="a", n=4))
        assert post(served, prompt="a" * 2000)[0] == 413
        batch = served.engine.new_batch()
        assert (served.engine.rows, served.engine.queue, batch.most, batch.vocab_size) == (3, 2, 3, 300)
        assert batch.model.transformer.wte.weight.dtype == torch.bfloat16
        assert batch._static is not None
    assert '"POST /v1/completions HTTP/1.1" 413' in capfd.readouterr().out


def test_without_options_the_model_sets_the_limits(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with command(folder, monkeypatch) as served:
        assert post(served, prompt=[50] * 95, max_tokens=96)[2]["usage"]["total_tokens"] <= 96
        assert "has 96 tokens, this server takes 95" in said(post(served, prompt=[50] * 96))
        assert "writes at most 96" in said(post(served, prompt=[50], max_tokens=97))
        assert "access-control-allow-origin" not in post(served, prompt="a")[1]
        assert ask(served, "GET", "/v1/models")[0] == 200
        batch = served.engine.new_batch()
        assert batch._static is None
        assert batch.model.transformer.wte.weight.dtype == torch.float32
    assert "HTTP/1.1" not in capfd.readouterr().out


def test_a_tokenizer_of_another_model_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "tiny"
    shutil.copytree(folder, other)
    tokenizers.train([CODE] * 9, vocab_size=311).save(other)
    with pytest.raises(UserError, match="the tokenizer has 311 tokens, the model only 310"):
        serve(str(other), engine="kit", port=0)


def test_a_text_is_encoded_only_if_its_tokens_can_fit(tokenizer: Tokenizer) -> None:
    spelled = [tokenizer.decode([token], errors="surrogateescape") for token in range(300)]
    assert longest_token(tokenizer) == LIMITS.token_bytes == len("<jupyter_output>") == max(map(len, spelled))
