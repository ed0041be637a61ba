"""The page in a real browser: reached by keyboard, named, legible, and as wide as the screen."""

import pytest

from tests.playground.browser import Browser, Tab
from tests.playground.conftest import CONTRASTS, TEXT, WIDTHS, Playground, set_options, settle, traced


def test_all_is_reached_by_tab_in_order_and_the_focus_is_seen(tab: Tab) -> None:
    traced(tab)
    tab.click("h1")
    order, outlines = [], []
    for _ in range(30):
        tab.press("Tab")
        order.append(
            tab.js(
                "document.activeElement.id || document.activeElement.className || document.activeElement.textContent"
            )
        )
        outlines.append(
            tab.js(
                "(() => { const at = document.activeElement;"
                " return getComputedStyle(at.id === 'editor' ? at.parentElement : at).outlineStyle })()"
            )
        )
        if order[-1] == "pick" and order.count("pick") == 3:
            break
    wanted = ["temperature", "max-tokens", "seed", "editor", "complete", "infill", "stop", "undo", "redo", "trace"]
    wanted += ["Keys", "export", "previous", "next", "traced", "pick", "pick", "pick"]
    assert [name for name in order if name in wanted] == wanted
    assert set(outlines) == {"solid"}


def test_every_control_has_a_name(tab: Tab) -> None:
    traced(tab)
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "spinbutton", "region"}
    named = {(n["role"]["value"], n["name"]["value"].strip()) for n in nodes if n.get("role", {}).get("value") in roles}
    assert {("textbox", "Code"), ("spinbutton", "Seed"), ("button", "Next match"), ("button", "Infill")} <= named
    assert not [role for role, name in named if not name]
    live = tab.js("[...document.querySelectorAll('[role=status], [role=alert]')].map(each => each.id)")
    assert live == ["state", "failure", "chosen"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_it_fits_and_is_legible(browser: Browser, playground: Playground, width: int, height: int, dark: bool) -> None:
    tab = browser.open(playground.url, width, height, dark)
    set_options(tab, 5, 8)
    tab.fill("#editor", TEXT + "x" * 300)
    tab.click("#complete")
    settle(tab)
    tab.click("#next")
    tab.js("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert tab.js("document.documentElement.scrollWidth") <= width
    assert tab.js(CONTRASTS) == []
    small = (
        "[...document.querySelectorAll('button, input')].filter(each => each.checkVisibility()).map(each =>"
        " each.getBoundingClientRect()).filter(box => box.height < 24 || box.width < 24 || box.right > innerWidth)"
        ".length"
    )
    assert tab.js(small) == 0


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_the_marks_lie_under_the_letters_of_the_editor(
    browser: Browser, playground: Playground, width: int, height: int
) -> None:
    """The editor draws letters, what lies behind it the marks: both must break lines at the same places."""
    tab = browser.open(playground.url, width, height)
    tab.fill("#editor", "a b\tcd " * 60 + "\n" + "x" * 300 + "\n\tö 漢字 \U0001f600\n" * 5)
    same = "(editor => editor.scrollHeight === editor.clientHeight && editor.scrollWidth === editor.clientWidth)"
    assert tab.js(f"{same}(document.querySelector('#editor'))")
    styles = ["fontFamily", "fontSize", "lineHeight", "letterSpacing", "tabSize", "whiteSpace", "overflowWrap"]
    for style in [*styles, "wordBreak", "paddingLeft", "width"]:
        read = f"[...document.querySelectorAll('#editor, #backdrop')].map(each => getComputedStyle(each).{style})"
        assert len(set(tab.js(read))) == 1, style
