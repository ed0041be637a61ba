"""The page over a real index, and the command that serves it."""

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from starcoder.attribution.index import index
from starcoder.attribution.query import query
from starcoder.corpus.forget import forget
from starcoder.errors import UserError
from starcoder.playground.run import playground as command
from starcoder.playground.tracing import IndexTraces
from tests.attribution.corpora import file, files, function, write_corpus
from tests.conftest import ROOT, start
from tests.playground.browser import Browser
from tests.playground.conftest import Playing, ask, traced
from tests.serving.conftest import folder  # noqa: F401

COPIED = function("ann/lib/geometry.py/1")
TEXT = "import os\n\n\n# \U0001f600\n" + COPIED + "\nprint(1)\n"


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("indexed")
    documents = [*files("bob", 3, 4), file("ann/lib", "geometry.py", copies=3, license="BSD-3-Clause")]
    write_corpus(root / "corpus", documents, [])
    index(root / "corpus", root / "trace")
    return root


def test_a_copy_is_marked_and_its_source_told(browser: Browser, playing: Playing, indexed: Path) -> None:
    (indexed / "opt-out.txt").write_text("ann\n")
    with playing(IndexTraces(indexed / "trace", indexed / "opt-out.txt")) as playground:
        tab = traced(browser.open(playground.url), TEXT)
        assert tab.text("#verdict").startswith("Verbatim and rare: ")
        tab.click("#traced mark.match")
        marked = tab.js("[...document.querySelectorAll('#traced mark.chosen')].map(mark => mark.textContent).join('')")
        assert marked in TEXT
        assert COPIED.strip() in marked
        entry = tab.js("document.querySelector('#matches li.chosen').innerText")
        assert all(
            word in entry for word in ("BSD-3-Clause", "ann/lib", "geometry.py, lines", "3 files of its cluster")
        )
        assert "opted out" in entry
        assert "its owner opted out: do not ship it" in tab.text("#owed")
        assert tab.errors() == []


def test_a_text_that_is_nowhere(browser: Browser, playing: Playing, indexed: Path) -> None:
    with playing(IndexTraces(indexed / "trace")) as playground:
        tab = traced(browser.open(playground.url), "zebra(quokka)[7] = 'ibex'\n")
        assert tab.text("#level") in ("Nothing found", "Only similar")
        assert not tab.shown("#matches")
        assert not tab.shown("#owed")
        assert not tab.shown("#previous")


def test_the_command_serves_page_completions_and_traces(indexed: Path, folder: Path) -> None:  # noqa: F811
    args = ("playground", str(folder), "--index", str(indexed / "trace"), "--port", "0")
    with start(ROOT, *args) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("playground at http://127.0.0.1:"), process.communicate(timeout=30)
            url = line.split()[2].rstrip(";")
            assert b'"model": "tiny"' in urllib.request.urlopen(url).read()
            assert ask(url + "trace", text=TEXT)["verdict"]["level"] == "verbatim"
            answer = ask(url + "v1/completions", model="tiny", prompt="def", max_tokens=3)
            assert answer["usage"]["completion_tokens"] <= 3
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (130, "")
        finally:
            process.kill()


def test_a_trace_of_what_was_taken_out_is_not_kept(playing: Playing, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", [*files("bob", 3, 4), file("ann/lib", "geometry.py")], [])
    index(tmp_path / "corpus", tmp_path / "trace")
    (tmp_path / "opt-out.txt").write_text("ann\n")
    with playing(IndexTraces(tmp_path / "trace")) as playground:
        found = ask(playground.url + "trace", text=TEXT)
        forget(tmp_path / "opt-out.txt", tmp_path / "corpus")
        for path, body in (("trace", {"text": TEXT}), ("export", found)):
            with pytest.raises(HTTPError) as error:
                ask(playground.url + path, **body)
            assert error.value.code == 503
            assert "changed since it was indexed" in json.load(error.value)["error"]["message"]


def test_a_query_writes_the_page(
    browser: Browser, indexed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "copied.py").write_text(TEXT)
    query(tmp_path / "copied.py", indexed / "trace", html=tmp_path / "a.html")
    assert "BSD-3-Clause" in capsys.readouterr().out
    tab = browser.open((tmp_path / "a.html").as_uri())
    tab.press("n")
    assert "BSD-3-Clause ann/lib, geometry.py, lines" in tab.text("#chosen")
    assert tab.errors() == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"index": Path("missing")}, "no index in missing"),
        ({"opt_out": Path("list.txt")}, "give an index, too"),
    ],
)
def test_an_index_that_cannot_be(folder: Path, options: dict[str, Any], words: str) -> None:  # noqa: F811
    with pytest.raises(UserError, match=words) as error:
        command(str(folder), port=0, **options)
    assert "\n" not in str(error.value)
