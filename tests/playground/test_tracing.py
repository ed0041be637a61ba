"""The page in a real browser: matches, their sources, stepping, strangers' texts, the page to keep."""

import json
import re
from math import log
from pathlib import Path
from typing import Any

from starcoder.playground.page import write_page
from tests.playground.browser import Browser, Tab
from tests.playground.conftest import (
    CONTRASTS,
    FILES,
    TEXT,
    WIDTHS,
    FileTracer,
    Playing,
    ask,
    set_options,
    settle,
    traced,
)
from tests.serving.conftest import until

DATA = r'<script type="application/json" id="found">(.*)</script>'
CHOSEN = "[...document.querySelectorAll('#traced mark.chosen')].map(mark => mark.textContent).join('')"
ENTRY = "document.querySelector('#matches li.chosen')"


def test_a_click_on_a_match_tells_its_source_and_licence(tab: Tab) -> None:
    traced(tab)
    tab.click("#traced mark[data-matches='1']")
    assert tab.js(CHOSEN) == FILES[0][3]
    entry = tab.js(f"{ENTRY}.innerText")
    assert all(word in entry for word in ("MIT", "ada/engine", "src/notes.py, lines 7–8", "3 files of its cluster"))
    assert all(word in entry for word in ("450 bits", "commit 184318431843", "not opted out"))
    assert tab.text("#chosen") == "2 of 3 lines 6–7: MIT ada/engine, src/notes.py, lines 7–8"
    owed = tab.text("#owed")
    assert "To ship this text you owe attribution to" in owed
    assert "MIT ada/engine" in owed
    assert tab.text("#verdict").startswith("Verbatim and rare: lines 1-2 stand word for word")


def test_a_click_in_the_list_chooses_the_match_in_the_text(tab: Tab) -> None:
    traced(tab)
    tab.click("#matches li:first-child .pick")
    assert tab.js(CHOSEN) == FILES[1][3]
    assert tab.js(f"{ENTRY}.querySelector('.pick').getAttribute('aria-current')") == "true"


def test_the_traced_text_is_the_text_with_its_marks(tab: Tab) -> None:
    traced(tab)
    assert tab.text("#traced") == TEXT.replace("\u202e", "\\u202e")
    assert tab.text("#traced mark.aside") == "import os"
    shades = tab.js(
        "[...document.querySelectorAll('#traced mark.match')].map(mark => mark.className.match(/level-(.)/)[1])"
    )
    assert shades == ["4", "5", "3"]
    colours = tab.js(
        "[...document.querySelectorAll('#traced mark.match')].map(mark => getComputedStyle(mark).backgroundColor)"
    )
    assert len(set(colours)) == len(set(shades)) > 1


class Overlapping(FileTracer):
    """Two matches that overlap, and a third within the first."""

    SPANS = ((0, 12), (8, 20), (2, 5))

    def trace(self, text: str) -> dict[str, Any]:
        found = super().trace(FILES[0][3])
        (row,) = found["matches"]
        return found | {"matches": [row | {"start": start, "end": end} for start, end in self.SPANS]}


def test_matches_that_overlap_can_all_be_chosen(browser: Browser, playing: Playing) -> None:
    text = "0123456789abcdefghij, the rest"
    with playing(Overlapping()) as crossed:
        tab = traced(browser.open(crossed.url), text)
        assert tab.text("#traced") == text
        assert tab.js("[...document.querySelectorAll('#traced mark')].map(mark => mark.dataset.matches)") == [
            "0",
            "0 1",
            "0",
            "0 2",
            "2",
        ]
        seen = []
        for _ in range(3):
            tab.click("#next")
            seen.append(tab.js(CHOSEN))
        assert seen == [text[0:12], text[2:5], text[8:20]]
        tab.click("#traced mark[data-matches='0 1']")
        assert tab.js(CHOSEN) == text[2:5]
        assert tab.errors() == []


class Whole(FileTracer):
    """One match, which is the whole text."""

    def trace(self, text: str) -> dict[str, Any]:
        found = super().trace(FILES[0][3])
        return found | {"matches": [found["matches"][0] | {"start": 0, "end": len(text)}]}


def test_a_match_is_told_with_the_surprise_of_the_model_that_wrote_it(browser: Browser, playing: Playing) -> None:
    before, after = "\U0001f600 def add", "return a"
    with playing(Whole()) as known:
        tab = browser.open(known.url)
        set_options(tab, 5, 12)
        tab.fill("#editor", before + after)
        tab.js(f"document.querySelector('#editor').setSelectionRange({len(before) + 1}, {len(before) + 1})")
        tab.click("#infill")
        settle(tab)
        asked = {"model": "tiny", "prompt": before, "suffix": after, "seed": 5, "max_tokens": 12, "temperature": 1}
        (choice,) = ask(known.url + "v1/completions", **asked, logprobs=0)["choices"]
        assert tab.value() == before + choice["text"] + after
        bits = -sum(choice["logprobs"]["token_logprobs"]) / log(2)
        assert bits > 20
        wanted = f"; {bits:,.0f} bits to the model, as far as it wrote it"
        assert tab.text("#matches .note").endswith(wanted)
        tab.click("#trace")
        tab.type("x")
        tab.click("#trace")
        tab.wait("document.querySelector('#matches .note').textContent.endsWith('place')")
        assert tab.errors() == []


def test_keys_step_through_the_matches(tab: Tab) -> None:
    traced(tab)
    tab.js("document.querySelector('#traced').focus()")
    seen = []
    for key in "nnjn":
        tab.press(key)
        seen.append(tab.js(CHOSEN))
    first, second, third = FILES[1][3], FILES[0][3], FILES[2][3]
    assert seen == [first, second, third, first]
    tab.press("k")
    assert tab.js(CHOSEN) == third
    tab.js("document.querySelector('#matches .pick').focus()")
    tab.press("p")
    assert tab.js(CHOSEN) == second
    assert tab.js(f"document.activeElement === {ENTRY}.querySelector('.pick')")
    tab.click("#editor")
    tab.press("Alt", "n")
    assert tab.js(CHOSEN) == third
    assert tab.value() == TEXT


def test_hostile_texts_stay_texts(tab: Tab) -> None:
    tab.call("Page.addScriptToEvaluateOnNewDocument", source="window.alert = () => { window.alerted = true }")
    tab.goto(tab.js("location.href"))
    traced(tab, TEXT + "<img src=x onerror=alert(3)></textarea></pre><script>alert(4)</script>")
    tab.click("#traced mark[data-matches='2']")
    assert tab.js("window.alerted") is None
    assert tab.js("document.querySelectorAll('img').length + document.querySelectorAll('script').length") == 2
    assert "<script>alert(1)</script>/evil\\u202e" in tab.text("#matches")
    assert "no licence known" in tab.js(f"{ENTRY}.innerText")
    assert "\u202e" not in tab.js("document.body.innerText.replace(document.querySelector('#backdrop').innerText, '')")
    assert tab.text("#odd-said").startswith("1 character does not print: \\u202e in line 9")


def test_the_page_to_keep_works_alone(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "trace.html"
    generated = [{"start": TEXT.index("class"), "end": TEXT.index("\n\ndef")}]
    write_page(FileTracer().trace(TEXT) | {"text": TEXT, "generated": generated}, path)
    kept(browser, path)


def kept(browser: Browser, path: Path) -> None:
    for width, height in WIDTHS:
        tab = browser.open("about:blank", width, height)
        tab.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        tab.goto(path.as_uri())
        assert tab.text("#traced") == TEXT.replace("\u202e", "\\u202e")
        tab.press("n")
        assert tab.js(CHOSEN) == FILES[1][3]
        tab.click("#traced mark[data-matches='1']")
        assert "MIT ada/engine" in tab.text("#chosen")
        assert "keep the copyright notice" in tab.text("#owed")
        assert tab.js("document.documentElement.scrollWidth") <= width
        assert tab.js(CONTRASTS) == []
        assert tab.text("#traced mark.made") == FILES[1][3]
        assert tab.requests() == [path.as_uri()]
        assert tab.errors() == []


def data(html: str) -> Any:
    return json.loads(re.findall(DATA, html)[0])


def test_export_gives_that_page(tab: Tab, browser: Browser, tmp_path: Path) -> None:
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    traced(tab)
    tab.click("#export")
    until(lambda: [path.name for path in tmp_path.iterdir()] == ["trace.html"])
    write_page(FileTracer().trace(TEXT) | {"text": TEXT, "generated": []}, tmp_path / "again.html")
    exported, written = ((tmp_path / name).read_text() for name in ("trace.html", "again.html"))
    assert data(exported) == data(written)
    assert re.sub(DATA, "", exported) == re.sub(DATA, "", written)
