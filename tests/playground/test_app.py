"""What the server answers without a browser, and to whom."""

import http.client
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from starcoder.errors import UserError
from starcoder.playground.page import check, write_page
from starcoder.playground.run import playground as command
from tests.pages import Page
from tests.playground.conftest import FILES, FileTracer, Playground, Playing

TEXT = FILES[0][3] + "\n\n" + FILES[2][3]
LOCAL_ONLY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "


def ask(
    playground: Playground, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, str]:
    connection = http.client.HTTPConnection(urlsplit(playground.url).netloc, timeout=30)
    try:
        content = body if body is None or isinstance(body, str) else json.dumps(body)
        kind = {"Content-Type": "application/json"} if content else {}
        connection.request(
            method, path, content, kind | {name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def seen(html: str) -> Page:
    return Page(re.sub("<link.*?>", "", html))


def found(text: str = TEXT) -> dict[str, Any]:
    return FileTracer().trace(text) | {"text": text}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/playground.js", "text/javascript"),
        ("/trace.js", "text/javascript"),
        ("/playground.css", "text/css"),
    ],
)
def test_the_page_and_its_files(playground: Playground, path: str, kind: str) -> None:
    status, headers, body = ask(playground, "GET", path)
    assert status == 200
    assert headers["content-type"].startswith(kind)
    assert headers["content-security-policy"].startswith(LOCAL_ONLY)
    assert body
    assert "http:" not in body
    assert "https:" not in body


def test_a_trace(playground: Playground) -> None:
    status, _, body = ask(playground, "POST", "/trace", {"text": TEXT})
    assert status == 200
    assert json.loads(body) == FileTracer().trace(TEXT)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/trace", {"text": " \n"}, "there is no text to trace"),
        ("/trace", {"text": "\ud800"}, "there is no text to trace"),
        ("/trace", {}, "there is no text to trace"),
        ("/trace", [1], "the body is no JSON object"),
        ("/trace", "{", "the body is no JSON"),
        ("/trace", {"text": "\0ELF"}, "the text is binary"),
        ("/export", {"text": "a"}, "this is no trace"),
    ],
)
def test_bad_input_is_one_line(playground: Playground, path: str, body: Any, words: str) -> None:
    status, _, answer = ask(playground, "POST", path, body)
    message = json.loads(answer)["error"]["message"]
    assert status == 400
    assert words in message
    assert "\n" not in message


def test_too_long_a_text_is_refused(playground: Playground) -> None:
    status, _, answer = ask(playground, "POST", "/trace", {"text": "a" * 1_000_001})
    assert status == 413
    assert "at most 1000000 bytes" in answer


@pytest.mark.parametrize("name", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "www.localhost"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("POST", "/trace"), ("POST", "/v1/completions")])
def test_a_page_whose_name_means_this_machine_gets_no_further(
    playground: Playground, method: str, path: str, name: str
) -> None:
    assert ask(playground, method, path, {"text": TEXT}, Host=name)[0] == 400


@pytest.mark.parametrize("name", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8080"])
def test_names_of_this_machine_are_answered(playground: Playground, name: str) -> None:
    assert ask(playground, "GET", "/", Host=name)[0] == 200


def test_forms_of_other_pages_are_refused(playground: Playground) -> None:
    status, headers, answer = ask(playground, "POST", "/trace", json.dumps({"text": TEXT}), Content_Type="text/plain")
    assert status == 400
    assert "Content-Type: application/json" in answer
    assert "access-control-allow-origin" not in headers


def test_without_a_tracer_there_are_no_traces(playing: Playing) -> None:
    with playing() as bare:
        assert ask(bare, "POST", "/trace", {"text": TEXT})[0] == 404
        page = ask(bare, "GET", "/")[2]
    assert 'id="trace"' not in page
    assert json.loads(seen(page).all("script")[0])["traces"] is False


def test_a_page_to_keep_needs_nothing_and_runs_no_script_of_strangers(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "trace.html"
    write_page(found(), path)
    html = path.read_text()
    page = seen(html)
    assert re.findall("<link.*?>", html) == ['<link rel="icon" href="data:,">']
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 2
    assert not {"link", "img", "iframe", "form", "object"} & set(tags)
    assert not [
        value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    policy = next(a["content"] or "" for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert json.loads(page.all("script")[0]) == found()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "change",
    [
        {"text": None},
        {"text": TEXT[:5]},
        {"matches": None},
        {"matches": [found()["matches"][0] | {"start": -1}]},
        {"matches": [found()["matches"][0] | {"score": "high"}]},
        {"matches": [found()["matches"][0] | {"sources": [{}]}]},
        {"similar": [{}]},
        {"verdict": "bad"},
        {"generated": [{"start": 4, "end": 4}]},
    ],
)
def test_what_is_no_trace_is_not_written(tmp_path: Path, change: dict[str, Any]) -> None:
    check(found())
    with pytest.raises(UserError, match="this is no trace"):
        write_page(found() | change, tmp_path / "trace.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70_000}, "port is 70000"),
        ({"rows": 0}, "rows is 0, below 1"),
        ({"port": 0}, "nowhere"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        command("nowhere", **options)
    assert "\n" not in str(error.value)
