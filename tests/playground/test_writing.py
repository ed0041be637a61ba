"""The page in a real browser: completing, infilling, stopping, undoing."""

import time

import pytest

from starcoder.generation import generate, infill
from starcoder.model import StarCoder
from starcoder.text import visible
from starcoder.tokenizer import Tokenizer
from tests.playground.browser import Browser, Tab
from tests.playground.conftest import FileTracer, Playing, set_options, settle
from tests.serving.conftest import Gated, until


def made(tab: Tab) -> list[str]:
    return list(tab.js("[...document.querySelectorAll('#backdrop mark.made')].map(mark => mark.textContent)"))


def plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def move(tab: Tab, place: int, end: int | None = None) -> None:
    tab.click("#editor")
    tab.js(f"document.querySelector('#editor').setSelectionRange({place}, {place if end is None else end})")
    tab.wait(f"document.querySelector('#place').textContent.includes('; {place} characters before')")


def test_complete_goes_on_at_the_end(tab: Tab, model: StarCoder, tokenizer: Tokenizer) -> None:
    (expected,) = generate(model, tokenizer, ["def add"], max_new_tokens=20, temperature=1, seed=5)
    set_options(tab, 5, 20)
    tab.fill("#editor", "def add")
    move(tab, 2)
    tab.click("#complete")
    settle(tab)
    assert tab.value() == "def add" + plain(expected)
    assert "".join(made(tab)) == plain(expected)
    assert tab.text("#state").startswith("20 tokens written; that is the most it was let write.")


def test_infill_writes_at_the_cursor(tab: Tab, model: StarCoder, tokenizer: Tokenizer) -> None:
    (expected,) = infill(model, tokenizer, [("def add", "return a")], max_new_tokens=12, temperature=1, seed=4)
    set_options(tab, 4, 12)
    tab.fill("#editor", "def addreturn a")
    move(tab, len("def add"))
    tab.click("#infill")
    settle(tab)
    assert tab.value() == "def add" + plain(expected) + "return a"
    assert "".join(made(tab)) == plain(expected)


def test_infill_replaces_what_is_selected(tab: Tab, model: StarCoder, tokenizer: Tokenizer) -> None:
    (expected,) = infill(model, tokenizer, [("def add", "return a")], max_new_tokens=12, temperature=1, seed=4)
    set_options(tab, 4, 12)
    tab.fill("#editor", "def addXXXreturn a")
    move(tab, len("def add"), len("def addXXX"))
    tab.press("Control", "Enter")
    settle(tab)
    assert tab.value() == "def add" + plain(expected) + "return a"


def test_the_answer_is_seen_as_it_comes_and_escape_stops_it(
    browser: Browser, playing: Playing, gate: type[Gated]
) -> None:
    with playing(FileTracer(), gate) as slow:
        tab = browser.open(slow.url)
        set_options(tab, 5, 60)
        tab.fill("#editor", "def add")
        tab.press("Control", "Enter")
        settle(tab, "Writing")
        assert tab.value() == "def add"
        lengths = []
        for _ in range(3):
            before = len(tab.value())
            deadline = time.monotonic() + 30
            while len(tab.value()) == before:  # a token may hold but a part of a character
                assert time.monotonic() < deadline
                gate.steps.release()
                time.sleep(0.1)
            lengths.append(len(tab.value()))
        assert lengths == sorted(set(lengths))
        assert tab.js("document.querySelector('#editor').readOnly")
        assert tab.js("document.querySelector('#stop').getAttribute('aria-disabled')") == "false"
        tab.press("Escape")
        settle(tab, "Stopped.")
        gate.steps.release(200)
        until(lambda: slow.engine.load == (0, 0))
        assert len(tab.value()) == lengths[-1]
        assert not tab.js("document.querySelector('#editor').readOnly")
        assert tab.errors() == []


def test_a_failure_half_way_is_told_and_what_came_stays(browser: Browser, playing: Playing, gate: type[Gated]) -> None:
    with playing(batch=gate) as slow:
        tab = browser.open(slow.url)
        set_options(tab, 5, 60)
        tab.fill("#editor", "def add")
        tab.press("Control", "Enter")
        gate.steps.release(8)
        tab.wait("document.querySelector('#editor').value.length > 'def add'.length")
        until(lambda: gate.steps._value == 0)
        gate.broken = True
        gate.steps.release()
        tab.wait("!document.querySelector('#failure').hidden")
        assert "failed" in tab.text("#failure")
        assert tab.value().startswith("def add")
        assert len(tab.value()) > len("def add")
        assert not tab.js("document.querySelector('#editor').readOnly")
    tab.press("Control", "Enter")
    tab.wait("document.querySelector('#failure').textContent.includes('does it still run?')")


def test_undo_takes_back_a_completion_and_then_what_was_typed(tab: Tab) -> None:
    set_options(tab, 5, 8)
    tab.fill("#editor", "def add")
    tab.click("#complete")
    settle(tab)
    whole = tab.value()
    tab.click("#undo")
    assert (tab.value(), made(tab)) == ("def add", [])
    tab.press("Control", "z")
    assert tab.value() == ""
    tab.click("#redo")
    tab.click("#redo")
    assert tab.value() == whole
    assert "".join(made(tab)) == whole.removeprefix("def add")


def test_what_the_model_wrote_stays_told_apart_while_one_edits(tab: Tab) -> None:
    set_options(tab, 5, 8)
    tab.fill("#editor", "def add")
    tab.click("#complete")
    settle(tab)
    (written,) = made(tab)
    move(tab, 0)
    tab.type("# \U0001f600 mine\n")
    assert made(tab) == [written]
    assert not tab.js("document.querySelector('#stale').hidden")
    move(tab, len("# 12 mine\ndef add") + 2)
    tab.type("x")
    assert made(tab) == [written[:2], written[2:]]
    tab.click("#trace")
    settle(tab)
    tab.wait("document.querySelector('#stale').hidden")
    marked = tab.js("[...document.querySelectorAll('#traced mark.made')].map(mark => mark.textContent)")
    assert marked == [visible(part, keep="\n\t") for part in (written[:2], written[2:])]


def test_examples_put_the_cursor_where_it_goes_on(tab: Tab) -> None:
    names = tab.js("[...document.querySelectorAll('#examples button')].map(button => button.textContent)")
    assert len(names) == 4
    tab.click("#examples button:nth-of-type(2)")
    assert "line 6, column 1;" in tab.text("#place")
    assert "‸" not in tab.value()
    tab.press("Control", "z")
    assert tab.value() == ""


def test_a_refusal_of_the_server_is_told(tab: Tab) -> None:
    tab.fill("#editor", "a" * 5000)
    tab.click("#complete")
    tab.wait("!document.querySelector('#failure').hidden")
    assert "shorten it" in tab.text("#failure")
    tab.events.clear()  # the browser's own line about the status


def test_options_out_of_range_are_not_sent(tab: Tab) -> None:
    tab.fill("#editor", "def")
    tab.fill("#temperature", "3")
    tab.click("#complete")
    assert tab.js("document.activeElement.id") == "temperature"
    assert not [url for url in tab.requests() if "completions" in url]


def test_without_an_index_it_completes(browser: Browser, playing: Playing) -> None:
    with playing() as bare:
        tab = browser.open(bare.url)
        set_options(tab, 5, 8)
        tab.fill("#editor", "def add")
        tab.click("#complete")
        settle(tab, "8 tokens written")
        assert not tab.shown("#result")
        assert tab.errors() == []


def test_the_cursor_is_seen_while_one_is_elsewhere(tab: Tab) -> None:
    tab.fill("#editor", "def add\n  \U0001f600 b")
    assert not tab.js("Boolean(document.querySelector('.caret'))")
    move(tab, 9)
    tab.click("#seed")
    caret = tab.js("(({x, y}) => [x, y])(document.querySelector('.caret').getBoundingClientRect())")
    letters = tab.js(
        "(() => { const range = document.createRange(), box = document.querySelector('#backdrop');"
        " range.setStart(box, 0); range.setEndBefore(box.querySelector('.caret'));"
        " return [range.toString(), ...(r => [r.right, r.y])([...range.getClientRects()].at(-1))] })()"
    )
    assert letters[0] == "def add\n "
    assert abs(caret[0] - letters[1]) < 1
    assert tab.text("#place").startswith("line 2, column 2;")


def test_the_editor_takes_no_more_than_it_can_show(tab: Tab) -> None:
    tab.fill("#editor", ("x" * 2999 + "\n") * 80)
    assert len(tab.value()) == 200_000
    assert tab.shown("#full")
    tab.press("Control", "z")
    assert tab.value() == ""
    assert not tab.shown("#full")


def test_a_missing_browser_is_told_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"):
        Browser()
