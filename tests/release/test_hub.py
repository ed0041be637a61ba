"""The stand-in for the Hub is strict itself: what a careless client would send, it refuses."""

import base64
import hashlib
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.release.hub import Hub, User

CONTENT = bytes(range(256)) * 40
OID = hashlib.sha256(CONTENT).hexdigest()
HEADER = {"key": "header", "value": {"summary": "a commit"}}
LARGE = {"key": "lfsFile", "value": {"path": "a.safetensors", "algo": "sha256", "oid": OID, "size": len(CONTENT)}}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Hub]:
    with Hub(tmp_path / "hub") as running:
        running.users |= {"ada's": User("ada"), "bob's": User("bob")}
        assert ask(running, "POST", "/api/repos/create", {"name": "m", "organization": None})[0] == 200
        yield running


def ask(hub: Hub, method: str, path: str, body: Any = None, token: str | None = "ada's", **headers: str) -> Any:
    """Status and content of an answer."""
    connection = HTTPConnection("127.0.0.1", hub.port, timeout=10)
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, sent, headers | ({"Authorization": f"Bearer {token}"} if token else {}))
    answer = connection.getresponse()
    content = answer.read()
    return answer.status, json.loads(content or b"null")


def commit(hub: Hub, *lines: Any, token: str = "ada's", revision: str = "main") -> Any:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    kind = {"Content-Type": "application/x-ndjson"}
    return ask(hub, "POST", f"/api/models/ada/m/commit/{revision}", body, token, **kind)


def file(content: bytes, path: str = "a.txt") -> dict[str, Any]:
    return {"key": "file", "value": {"path": path, "encoding": "base64", "content": base64.b64encode(content).decode()}}


def upload_address(hub: Hub, size: int = len(CONTENT), oid: str = OID) -> str:
    wish = {
        "operation": "upload",
        "transfers": ["basic"],
        "hash_algo": "sha256",
        "objects": [{"oid": oid, "size": size}],
    }
    status, answer = ask(hub, "POST", "/ada/m.git/info/lfs/objects/batch", wish, Accept="application/vnd.git-lfs+json")
    assert status == 200
    href = urlsplit(answer["objects"][0]["actions"]["upload"]["href"])
    return f"{href.path}?{href.query}"


def test_a_large_file_must_have_its_hash_and_its_size(server: Hub) -> None:
    address = upload_address(server)
    assert ask(server, "PUT", address, CONTENT[:-1], None)[0] == 400
    assert ask(server, "PUT", address, CONTENT[::-1], None)[0] == 400
    assert ask(server, "PUT", address.split("?")[0], CONTENT, None)[0] == 403
    assert ask(server, "PUT", f"/upload/{'0' * 64}?X-Amz-Signature=never-show-this", CONTENT, None)[0] == 403
    assert commit(server, HEADER, LARGE)[0] == 400
    assert ask(server, "PUT", upload_address(server, len(CONTENT) + 1), CONTENT, None)[0] == 400
    assert ask(server, "PUT", upload_address(server), CONTENT, None)[0] == 200
    wrong = {"oid": OID, "size": len(CONTENT) + 1}
    assert ask(server, "POST", "/ada/m.git/info/lfs/verify", wrong)[0] == 422
    assert commit(server, HEADER, {**LARGE, "value": LARGE["value"] | {"size": 1}})[0] == 400  # type: ignore[operator]
    assert commit(server, HEADER, LARGE)[0] == 200
    assert server.content("ada/m")["a.safetensors"] == CONTENT


def test_a_token_sent_to_another_host_is_remembered(server: Hub) -> None:
    ask(server, "PUT", upload_address(server), CONTENT, "ada's")
    assert len(server.leaks) == 1


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([file(b"a")], 400),
        ([{"key": "header", "value": {"summary": ""}}, file(b"a")], 400),
        ([{"key": "header", "value": {"summary": "a", "parentCommit": "0" * 40}}, file(b"a")], 412),
        ([HEADER, file(b"a", "../a")], 400),
        ([HEADER, file(b"a", "a.safetensors")], 400),
        ([HEADER, {"key": "deletedFile", "value": {"path": "nothing"}}], 404),
        ([HEADER, {"key": "wish", "value": {"path": "a"}}], 400),
        ([HEADER], 400),
    ],
)
def test_a_commit_that_is_none_changes_nothing(server: Hub, lines: list[Any], status: int) -> None:
    assert commit(server, *lines)[0] == status
    assert len(server.repos["ada/m"].commits) == 1


def test_rights(server: Hub) -> None:
    assert commit(server, HEADER, file(b"a"), token="bob's")[0] == 403
    assert commit(server, HEADER, file(b"a"), token="nobody's")[0] == 401
    assert commit(server, HEADER, file(b"a"), revision="nowhere")[0] == 404
    assert ask(server, "POST", "/api/repos/create", {"name": "m", "organization": "ada"}, "bob's")[0] == 403
    assert ask(server, "POST", "/api/repos/create", {"name": "m", "organization": None})[0] == 409
    assert ask(server, "PUT", "/api/models/ada/m/settings", {"gated": "auto"})[0] == 200
    assert ask(server, "GET", "/ada/m/resolve/main/.gitattributes", token="bob's")[0] == 403
    assert ask(server, "PUT", "/api/models/ada/m/settings", {"visibility": "private"})[0] == 200
    assert ask(server, "GET", "/api/models/ada/m", token="bob's")[0] == 404
    assert ask(server, "GET", "/api/models/ada/m", token=None)[0] == 404


def test_it_shares_nothing_with_the_kit_or_the_client() -> None:
    source = (Path(__file__).parent / "hub.py").read_text()
    assert not [
        name for name in ("starcoder", "huggingface_hub") if f"import {name}" in source or f"from {name}" in source
    ]
