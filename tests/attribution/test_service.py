import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from starcoder.attribution.index import Index, index
from starcoder.attribution.service import Current
from starcoder.corpus.forget import forget
from tests.attribution.corpora import file, files, function, write_corpus
from tests.conftest import starcoder, start
from tests.test_cli import assert_one_line

COPIED = function("bob/tool/main.py/1")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where the service of an index listens, which lies in build/trace."""
    corpus = write_corpus(tmp_path / "corpus", [*files("ann", 2, 4), file("bob/tool", "main.py")])
    index(corpus, tmp_path / "build" / "trace")
    with start(tmp_path, "trace", "serve", "--port", "0") as process:
        assert process.stdout is not None
        told = re.fullmatch(
            r"build/trace at (http://127\.0\.0\.1:\d+/overlap); Ctrl-C ends it\n", process.stdout.readline()
        )
        assert told is not None
        yield told[1]
        process.terminate()
        process.communicate(timeout=30)


def asked(address: str, text: str) -> dict[str, list[list[int]]]:
    body = json.dumps({"document": text}).encode()
    with urlopen(Request(address, body, {"Content-Type": "application/json"})) as answer:
        told: dict[str, list[list[int]]] = json.load(answer)
    return told


def test_an_editor_is_told_until_the_corpus_changes(address: str, tmp_path: Path) -> None:
    ((start, end),) = asked(address, f"# mine\n{COPIED}")["spans"]
    assert end - start > len(COPIED) * 0.7
    assert asked(address, function("mine"))["spans"] == []
    (tmp_path / "list.txt").write_text("bob\n")
    forget(tmp_path / "list.txt", tmp_path / "corpus")
    with pytest.raises(HTTPError) as error:
        asked(address, COPIED)
    assert error.value.code == 503
    assert "changed since it was indexed" in json.load(error.value)["error"]


def answered(service: Current) -> list[dict[str, Any]]:
    """What an application sends of itself, whatever it is asked."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(service({"type": "http"}, None, send))  # type: ignore[arg-type]
    return sent


def test_what_an_editor_does_not_show_is_told_on_the_terminal_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", files("ann", 2, 4))
    index(corpus, tmp_path / "trace")
    opened = Index.open(tmp_path / "trace")

    async def fine(scope: Any, receive: Any, send: Any) -> None:
        await send({"status": 200})

    service = Current(fine, opened)
    assert answered(service) == [{"status": 200}]
    capsys.readouterr()
    (tmp_path / "trace" / "manifest.json").unlink()
    told = [answered(service) for _ in range(2)]
    assert [start["status"] for start, _ in told] == [503, 503]
    assert capsys.readouterr().err == f"starcoder: {json.loads(told[0][1]['body'])['error']}\n"


def test_a_page_whose_name_means_this_machine_gets_no_further(address: str) -> None:
    with pytest.raises(HTTPError) as error:
        urlopen(Request(address, b'{"document": ""}', {"Content-Type": "application/json", "Host": "evil.example"}))
    assert error.value.code == 400


def test_a_service_of_nothing_is_refused(tmp_path: Path) -> None:
    assert_one_line(starcoder(tmp_path, "trace", "serve"), "no index in build/trace")
    assert_one_line(starcoder(tmp_path, "trace", "serve", "--port", "70000"), "outside [0, 65535]")
