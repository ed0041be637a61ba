"""A small model with random weights behind the playground, a tracer of three known files, and a browser."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest
from uvicorn import Server

from starcoder.batch import Batch
from starcoder.errors import UserError
from starcoder.model import StarCoder
from starcoder.playground.app import Traces
from starcoder.playground.run import extension
from starcoder.serving.app import Settings
from starcoder.serving.engine import Engine
from starcoder.serving.serve import Access, listen, new_server, working
from starcoder.tokenizer import Tokenizer
from tests.playground.browser import Browser, Tab
from tests.serving.conftest import LIMITS, Gated, gate, model, tokenizer  # noqa: F401

FILES = (
    (
        "ada/engine",
        "src/notes.py",
        ("MIT",),
        "def bernoulli(n):\n    return sum(a(n, k) for k in range(n))",
        3,
        "1843" * 10,
    ),
    ("grace/flow", "compiler.py", ("Apache-2.0", "BSD-3-Clause"), "class Compiler(Linker):\n    moth = None", 1, ""),
    ("<script>alert(1)</script>/evil\u202e", "a\u202eb.py", (), "print('<script>alert(2)</script>')", 1, ""),
)


def source(number: int, lines: tuple[int, int] | None = None) -> dict[str, Any]:
    repository, path, licenses, content, copies, commit = FILES[number]
    return {
        "repository": repository,
        "path": path,
        "language": "python",
        "licenses": list(licenses),
        "lines": list(lines or (7, 7 + content.count("\n"))),
        "copies": copies,
        "opted_out": False if number == 0 else None,
        "commit": commit,
    }


class FileTracer:
    """Finds the three files in a text, as a whole; the JSON is that of `starcoder trace query`."""

    def trace(self, text: str) -> dict[str, Any]:
        if "\0" in text:
            raise UserError("the text is binary: give source code")
        places = [(text.find(file[3]), number) for number, file in enumerate(FILES)]
        matches = [self._match(text, start, number) for start, number in places if start >= 0]
        owed = [{"source": row["sources"][0], "lines": [row["sources"][0]["lines"]], "asks": ASKS} for row in matches]
        verdict = {"level": "verbatim", "reason": "lines 1-2 stand word for word in one repository", "owed": owed[:1]}
        nothing = {"level": "nothing", "reason": "no part of it stands in the corpus", "owed": []}
        start = text.find("import os")
        aside = [{"start": start, "end": start + 9, "lines": [1, 1], "aside": "imports"}] if start >= 0 else []
        similar = [{"source": source(1, (1, 90)), "score": 12.5, "overlap": 0.25}]
        return {
            "schema": 1,
            "verdict": verdict if matches else nothing,
            "calibration": "1 in 100 unrelated files has this verdict",
            "matches": matches,
            "aside": aside,
            "similar": similar,
        }

    def check(self) -> None:
        pass

    def _match(self, text: str, start: int, number: int) -> dict[str, Any]:
        content = FILES[number][3]
        first, surprise = text.count("\n", 0, start) + 1, 90.0 * (5 - 2 * number)
        return {
            "start": start,
            "end": start + len(content),
            "lines": [first, first + content.count("\n")],
            "tokens": len(content.split()),
            "surprise": surprise,
            "rarity": 1.0,
            "score": surprise,
            "count": 1 + number,
            "sources": [source(number)] * (number + 1),
        }


ASKS = {"MIT": "keep the copyright notice and the licence's text"}

TEXT = "import os  # \U0001f600\n\n" + FILES[1][3] + "\n\n" + FILES[0][3] + "\n\n" + FILES[2][3] + "  # a\u202eb\n"
WIDTHS = [(1280, 900), (360, 740)]
CONTRASTS = """(() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = colour => [.2126, .7152, .0722].reduce((sum, part, i) => sum + part * linear(colour[i] / 255), 0);
  const behind = at => {
    const colour = channels(getComputedStyle(at).backgroundColor);
    return colour[3] !== 0 || !at.parentElement ? colour : behind(at.parentElement);
  };
  const low = [];
  for (const at of document.querySelectorAll("body *:not(#backdrop, #backdrop *, script)")) {
    const own = [...at.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !at.checkVisibility() || at.ariaDisabled === "true") continue;
    const [a, b] = [light(channels(getComputedStyle(at).color)), light(behind(at))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) low.push([at.id || at.className || at.tagName, ratio.toFixed(2)]);
  }
  return low;
})()"""
"""What is too faint to read, by the formula of WCAG: texts of less than 4.5 to 1."""


@dataclass
class Playground:
    """A server that runs."""

    url: str
    engine: Engine
    server: Server


Playing = Callable[..., AbstractContextManager[Playground]]


@pytest.fixture(scope="session")
def playing(model: StarCoder, tokenizer: Tokenizer) -> Playing:  # noqa: F811
    """What starts a playground: `with playing(tracer=…) as playground`."""

    @contextmanager
    def playing(tracer: Traces | None = None, batch: type[Batch] = Batch) -> Iterator[Playground]:
        engine = Engine(lambda: batch(model, 4, tokenizer.vocab_size), 4, 16)
        settings = Settings("tiny", LIMITS)
        extend = extension(settings, "127.0.0.1", tracer)
        server = new_server(engine, tokenizer, settings, Access(1_000_000), 2, extend)
        with listen("127.0.0.1", 0) as listener, working(engine, 5):
            listener.listen()
            thread = Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield Playground(f"http://127.0.0.1:{listener.getsockname()[1]}/", engine, server)
            finally:
                Gated.steps.release(10_000)
                server.should_exit = True
                thread.join()

    return playing


@pytest.fixture(scope="module")
def playground(playing: Playing) -> Iterator[Playground]:
    with playing(FileTracer()) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def tab(browser: Browser, playground: Playground) -> Iterator[Tab]:
    tab = browser.open(playground.url)
    yield tab
    assert tab.errors() == []
    assert {url for url in tab.requests() if not url.startswith(("blob:", playground.url))} == set()


def ask(url: str, **body: Any) -> Any:
    """What the server answers to a body of JSON."""
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urlopen(request, timeout=60))


def settle(tab: Tab, words: str = "Traced") -> None:
    tab.wait(f"document.querySelector('#state').textContent.includes({json.dumps(words)})")


def traced(tab: Tab, text: str = TEXT) -> Tab:
    tab.fill("#editor", text)
    tab.click("#trace")
    settle(tab)
    return tab


def set_options(tab: Tab, seed: int, tokens: int, temperature: float = 1) -> None:
    for selector, value in (("#seed", seed), ("#max-tokens", tokens), ("#temperature", temperature)):
        tab.fill(selector, str(value))
