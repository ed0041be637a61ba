import base64
import difflib
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus import page as module
from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.page import render, write_page
from starcoder.corpus.sampling import random_key
from starcoder.corpus.survey import survey
from starcoder.text import visible
from tests.corpus.example import HOSTILE, documents, write_corpus
from tests.pages import VOID, Page


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(survey(write_corpus(tmp_path_factory.mktemp("corpus"))), 3, 0)


def repositories(html: str) -> dict[str, list[object]]:
    rows = json.loads(next(text for text in Page(html).all("script") if text.startswith("[")))
    return {row[0]: row[1:] for row in rows}


def test_the_same_corpus_gives_the_same_bytes_anywhere(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_page(tmp_path / f"{name}.html", survey(write_corpus(tmp_path / name / "deep")), 2, 7)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    write_page(tmp_path / "c.html", survey(tmp_path / "a/deep"), 2, 8)
    assert (tmp_path / "c.html").read_bytes() != (tmp_path / "a.html").read_bytes()


def test_hostile_names_and_texts_stay_text(html: str) -> None:
    page = Page(html)
    assert [tag for tag, _ in page.elements if tag in ("script", "img", "iframe", "link", "style")] == [
        "style",
        "script",
        "script",
    ]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert any(text == HOSTILE for text in page.all("pre"))
    assert f"{HOSTILE}/{HOSTILE}\\x1b[2J\\u202e.py" in page.all("b")
    assert HOSTILE in repositories(html)
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_only_the_pages_own_script_may_run_and_nothing_is_loaded(html: str) -> None:
    page = Page(html)
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(page.all("script")[-1].encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert not [a for _, a in page.elements if "src" in a or not (a.get("href") or "#").startswith("#")]
    anchors = {a["href"] for _, a in page.elements if "href" in a}
    assert anchors == {f"#{a['id']}" for tag, a in page.elements if tag == "h2"}
    assert "url(" not in html
    assert "@import" not in html


def test_every_repository_is_there_with_its_counts(html: str) -> None:
    splits = documents()
    kept, left = splits["train"] + splits["validation"], splits["rejected"]
    found = repositories(html)
    assert set(found) == {document.repository for document in kept + left}
    for name, (files, size, left_files, left_size, reasons) in found.items():
        mine = [document for document in kept if document.repository == name]
        others = [document for document in left if document.repository == name]
        assert (files, size) == (len(mine), sum(document.size for document in mine))
        assert (left_files, left_size) == (len(others), sum(document.size for document in others))
        counts = Counter(document.rejection.reason for document in others if document.rejection)
        assert reasons == ", ".join(f"{r} {n}" for r, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    assert f"Search all {len(found)} repositories" in " ".join(html.split())


def test_of_many_repositories_the_largest_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPOSITORIES", 2)
    html = render(survey(write_corpus(tmp_path)), 0, 0)
    sizes = Counter[str]()
    for rows in documents().values():
        sizes.update({name: sum(d.size for d in rows if d.repository == name) for name in {d.repository for d in rows}})
    assert list(repositories(html)) == [name for name, _ in sizes.most_common(2)]
    assert re.search(r"Search the 2 largest of 8\s", html)


def test_numbers_of_the_page(html: str) -> None:
    splits = documents()
    text = " ".join(" ".join(text for _, text in Page(html).texts).split())
    assert f"A corpus of {len(splits['train']) + len(splits['validation'])} files" in text
    assert "PII: not redacted" in text
    assert "Note: two are called folder" in text
    size = sum(document.size for rows in splits.values() for document in rows) / 1e6
    assert f"{sum(map(len, splits.values()))} files, {size:,.2f} MB" in text
    assert "filters longest line 1 50.00" in text
    assert "Proprietary licence unknown 1 7.00" in text
    widths = [float(a["width"] or -1) for tag, a in Page(html).elements if tag == "rect"]
    assert max(widths) == 100
    assert min(widths) >= 0


def test_what_was_redacted(html: str, tmp_path: Path) -> None:
    assert "Left as they are" not in html
    languages = {"python": {"EMAIL": 1200, HOSTILE: 3}}
    facts = {"redacted": {"EMAIL": 1200, HOSTILE: 3}, "redacted_languages": languages, "unredacted": {"KEY": 9}}
    redacted = render(survey(write_corpus(tmp_path, redactor="stars", **facts)), 0, 0)
    text = " ".join(" ".join(text for _, text in Page(redacted).texts).split())
    assert f"PII: redacted by stars: 3 {HOSTILE}, 1,200 EMAIL; left as they are: 9 KEY." in text
    tables = [Page(redacted).table(number) for number in range(redacted.count("<table>"))]
    assert [["language", "EMAIL", HOSTILE], ["python", "1,200", "3"]] in tables
    assert "Left as they are: what Python code would not parse without" in text


def test_samples_are_the_first_in_random_order(html: str) -> None:
    page, train = Page(html), documents()["train"]
    names = [d.name for d in [*train, *documents()["validation"]] if d.language == "python"]
    chosen = sorted(names, key=lambda name: random_key(0, name))[:3]
    shown = [text for text in page.all("b") if text in {visible(name) for name in names}]
    assert shown == [visible(name) for name in chosen]
    code = next(d for d in train if d.name in chosen and d.repository == "bob/tools")
    assert "\n".join(code.content.splitlines()[:40]) in page.all("pre")
    assert "<commit_before>old<commit_msg>why<commit_after>new" in page.all("pre")
    assert "x" * 300 in page.all("pre")  # of "longest line", its line cut
    assert not any("opted out" in text for text in page.all("summary"))


def test_differences_within_a_cluster(html: str) -> None:
    wheel, changed = documents()["train"][0], documents()["rejected"][1]
    diff = list(difflib.unified_diff(wheel.content.splitlines(), changed.content.splitlines(), n=2, lineterm=""))[2:]
    page = Page(html)
    attributes = [attributes for tag, attributes in page.elements if tag not in VOID]
    spans = [(given.get("class"), text) for given, (_, text) in zip(attributes, page.own, strict=True)]
    lines = [(kind, text) for kind, text in spans if kind in ("added", "removed", "hunk")]
    assert lines == [("hunk", diff[0]), ("removed", "-value_30 = 30"), ("added", "+another = 'line'")]
    assert "No line differs in the excerpts." in page.all("p")  # ada/engine/wheel2.py


def test_the_page_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_CHARACTERS", 30_000)
    line = "y = '" + "<" * 60 + "'\n"
    train = [Document("o/r", f"{n}.x", f"language{n % 30}", "x", ("MIT",), 9, line * 500, copies=2) for n in range(300)]
    twins = [
        Document("o/s", f"{n}.x", "c", "x", ("MIT",), 9, (line * 300)[n:], rejection=reason)
        for n in range(300)
        if (reason := Rejection("near-duplicate", f"o/r/{n}.x, Jaccard 0.70", "near-duplicates"))
    ]
    html = render(survey(write_corpus(tmp_path, {"train": train, "validation": [], "rejected": twins})), 5, 0)
    texts = [text for tag, text in Page(html).own if tag == "pre"]
    assert 150 < len(texts) < 180
    assert sum(map(len, texts)) < 40_000
    assert html.count("stands for 2 files") == 10


def test_an_empty_corpus_has_a_page(tmp_path: Path) -> None:
    html = render(survey(write_corpus(tmp_path, {"train": [], "validation": [], "rejected": []})), 5, 0)
    assert "A corpus of 0 files" in html
    assert "No file stands for another." in html
    assert "None: every file has a licence" in html


@given(st.text(), st.sampled_from(["", "\t", "\n\t"]))
def test_what_is_visible_prints(text: str, keep: str) -> None:
    shown = visible(text, keep)
    assert all(c.isprintable() or c in keep for c in shown)
    if text.isprintable():
        assert shown == text
