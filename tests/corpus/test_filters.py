import csv
import os
import sysconfig
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.filters import DEFAULTS, FILTERS, FilterOptions, decode, hidden_html, reject_reason, visible_text
from starcoder.corpus.languages import language_of

TABLE = Path(__file__).parents[2] / "../shared/data/stack-filters/filters.csv"
Row = Mapping[str, str]


def document(content: str, language: str = "python", extension: str = "py") -> Document:
    return Document("repository", f"x.{extension}", language, extension, ("MIT",), len(content.encode()), content)


def reason(content: str, language: str = "python", extension: str = "py", **options: Any) -> str | None:
    rejection = reject_reason(document(content, language, extension), FilterOptions(**options))
    return rejection.reason if rejection else None


CODE = "def square(x):\n    return x * x\n"


@pytest.mark.parametrize(
    ("content", "language", "extension", "expected"),
    [
        (CODE, "python", "py", None),
        (f"{CODE * 9}x = '{'a' * 994}'\n", "python", "py", None),
        (f"{CODE * 9}x = '{'a' * 995}'\n", "python", "py", "longest line"),
        ("a" * 100, "python", "py", None),
        ("a" * 101, "python", "py", "mean line"),
        ("a" * 2000, "markdown", "md", None),  # no line rule, so no rule on the mean either
        ("a" * 501, "glsl", "fsh", "longest line"),
        ("x" + "=" * 3, "python", "py", None),
        ("x" + "=" * 4, "python", "py", "alphanumeric share"),
        ("٣" + "=" * 3, "python", "py", None),  # digits of any script are alphanumeric
        ("a" * 5 + "1" * 15, "ada", "ads", None),
        ("a" * 4 + "1" * 16, "ada", "ads", "alphabetic share"),
        ("é" * 5 + "1" * 15, "ada", "ads", None),
        ("=" * 99 + "a", "sas", "sas", None),
        ('<?xml version="1.0"?>\n<a>text of the file</a>', "python", "py", "XML"),
        ('<?xml version="1.0"?>\n<xsl>text of the file</xsl>', "xslt", "xsl", None),
        (f'{"a" * 85}\n<?xml version="1.0"?>', "python", "py", "XML"),  # the declaration ends with the 100th character
        (f'{"a" * 86}\n<?xml version="1.0"?>', "python", "py", None),
        ('"' + "a" * 47 + '"', "json", "json", "size of a data file"),
        ('"' + "a" * 48 + '"', "json", "json", None),
        ('"' + "a" * 4998 + '"', "json", "json", None),
        ('"' + "a" * 4999 + '"', "json", "json", "size of a data file"),
        ("[" + "1, " * 30 + "1]", "json", "json", "alphabetic share"),
        ("key: value\n" * 10, "yaml", "yml", None),
        (f"<p>{'a' * 101}</p>", "html", "html", "mean line"),
        (f"<p>{'a ' * 40}\n{'b ' * 40}</p>", "html", "html", None),
        (f"<p>{'a ' * 20}\n{'b ' * 20}</p>", "html", "html", "visible HTML text"),
        (
            f"{'<p class=`a long name of a class`></p>' * 2}\n" * 9 + "some text " * 11,
            "html",
            "htm",
            "visible HTML text",
        ),
    ],
)
def test_rules_at_their_thresholds(content: str, language: str, extension: str, expected: str | None) -> None:
    assert reason(content, language, extension) == expected


def test_options_change_the_rules() -> None:
    assert reason(CODE, mean_line=5) == "mean line"
    assert reason("{}" + "a" * 60, "json", "json", data_min=100) == "size of a data file"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<"), min_size=1))
def test_shares_equal_counting_each_character(content: str) -> None:
    """Without line rules (sas has no alphanumeric one, R no line rule) the verdict depends on the shares alone."""
    alnum = sum(character.isalnum() for character in content) / len(content)
    alpha = sum(character.isalpha() for character in content) / len(content)
    assert (reason(content, "r", "r") is not None) == (alnum < 0.25)
    expected = "alphabetic share" if alpha < 0.25 else None
    assert reason(content, "matlab", "matlab") == ("alphanumeric share" if alnum < 0.25 else expected)


_TAGS = st.sampled_from(
    [
        *("<p>", "</p>", "<script>", "</script>", "<style>", "</style>", "<br/>", "<!-- no -->", "<b a='<'>"),
        *(
            "<b a='>'>",
            '<b a = "\'>">',
            "<!DOCTYPE x>",
            "<?php no ?>",
            "<![CDATA[ yes ]]>",
            "<![endif]>",
            "<b a=>",
            "< /p>",
        ),
    ]
)
_PAGES = st.lists(_TAGS | st.sampled_from(["text", " ", "\n", "&amp;", "&#65;", "a < b", "é", "\xa0"])).map("".join)


@given(_PAGES)
def test_visible_text_equals_beautiful_soup(page: str) -> None:
    bs4 = pytest.importorskip("bs4", reason="Beautiful Soup, the reference, is not installed")
    soup = bs4.BeautifulSoup(page, "html.parser")
    for hidden in soup(["script", "style"]):
        hidden.decompose()
    assert visible_text(page) == soup.get_text()


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>a<![CDATA[ b ]]>c<![if !IE]>d<![endif]>e<!DOCTYPE x>f<?php g ?>h", "a b cdefh"),
        ("a <b c='>'>d</b e='>'>f", "a d'>f"),  # nothing in an end tag is quoted
        ("a<script>b</SCRIPT >c<style/>d<STYLE>e", "acd"),
        ("<i>\xa0\xa0</i>  <i> \n </i>", "\xa0\xa0 \n"),
        ("a < b <= c <", "a < b <= c <"),
        ("a <b c='d> e <i>f</i>", "a <b c='d> e f"),
        ("a <!-- b <i>c</i>", "a <!-- b <i>c"),
        ("a <b c", "a <b c"),
        ("a <!-- b -- > c <!-- d --> e", "a  c  e"),
        ("&lt;p&gt; &#233; &amp;amp;", "<p> é &amp;"),
    ],
)
def test_visible_text_of_odd_markup(page: str, text: str) -> None:
    assert visible_text(page) == text


@pytest.mark.parametrize("page", ["<![foo[x]]>", "<p>text</p>\n<![%x", "<p>&#" + "1" * 5000 + ";</p>"])
def test_a_page_that_html_parser_refuses_is_left_out(page: str) -> None:
    refused = hidden_html(document(page, "html", "html"), DEFAULTS)
    assert refused
    assert refused.reason == "HTML cannot be parsed"


@pytest.mark.parametrize(
    "piece",
    [
        *("<ab c\n", "<ab c='", "<ab c='>' ", "<!--", "</", "<![CDATA[", "<![if ", "< ", "<!-- --", "<a =\n"),
        "<b>x</b>\n",
    ],
)
def test_no_page_takes_long(piece: str) -> None:
    """A megabyte in less than a second; with the standard library's parser it is hours for some."""
    page = piece * (1_000_000 // len(piece))
    text = visible_text(page)
    assert text == ("x\n" * (len(page) // len(piece)) if piece.startswith("<b>") else page)


def test_decode() -> None:
    assert decode("é\r\n".encode()) == "é\r\n"
    assert decode(b"") == decode(b" \n\t") == Rejection("empty")
    assert decode(b"MZ\0\0") == Rejection("binary")
    assert decode(b"a = '\xe9'") == Rejection("not UTF-8", "byte 5")


def real_files(most: int, of_each: int, size: int) -> Iterator[tuple[tuple[str, str], str]]:
    """Language and extension, and text, of files of the standard library and of what is installed, of many kinds."""
    seen: Counter[tuple[str, str]] = Counter()
    trees = [tree for name in ("stdlib", "purelib") for tree in sorted(os.walk(sysconfig.get_path(name)))]
    for path in (Path(folder, name) for folder, _, names in trees for name in sorted(names)):
        key = language_of(path.name)
        if key and seen[key] < of_each and path.is_file() and 0 < path.stat().st_size < size:
            text = decode(path.read_bytes())
            if isinstance(text, str):
                seen[key] += 1
                yield key, text
        if seen.total() == most:
            return


def verdicts(row: Row, text: str) -> dict[str, bool]:
    """What the released table says about a text: whether each of the filters leaves it out."""
    lengths = [len(line) for line in text.splitlines()]
    line, alnum, alpha = (row[f"{name}_threshold"] for name in ("long_line", "alphanumeric", "alphabetic"))
    return {
        "xml": row["xml_filter"] == "1" and "<?xml version=" in text[:100],
        "long_lines": line.isdigit() and (max(lengths) > int(line) or sum(lengths) / len(lengths) > 100),
        "few_alphanumerics": "." in alnum and sum(map(str.isalnum, text)) / len(text) < float(alnum),
        "few_letters": "." in alpha and sum(map(str.isalpha, text)) < float(alpha) * len(text),
        "hidden_html": row["language"] == "html" and is_hidden(text),
        "data_size": row["language"] in ("json", "yaml") and not 50 <= len(text) <= 5000,
    }


def is_hidden(page: str) -> bool:
    bs4 = pytest.importorskip("bs4", reason="Beautiful Soup, the reference, is not installed")
    soup = bs4.BeautifulSoup(page, "html.parser")
    for hidden in soup(["script", "style"]):
        hidden.decompose()
    text = soup.get_text()
    return not (len(text) / len(page) > 0.2 and len(text) > 100)


def test_each_filter_equals_the_released_table_on_real_files() -> None:
    """Each file is judged as what it is, and as if it had the next extension of the table."""
    if not TABLE.is_file():
        pytest.skip("the table of the released preprocessing is not beside the checkout")
    with TABLE.open(newline="") as file:
        rows = {(row["language"], row["extension"]): row for row in csv.DictReader(file) if row["include"] == "1"}
    others = [key for key in rows if key[0] != "html"]  # the reference is slow, and not made for what is no markup
    left_out: Counter[str] = Counter()
    files = 0
    for files, (key, text) in enumerate(real_files(most=5500, of_each=1500, size=20_000), 1):
        for language, extension in (key, others[files % len(others)]):
            judged = document(text, language, extension)
            ours = {rule.__name__: rule(judged, DEFAULTS) is not None for rule in FILTERS}
            assert ours == verdicts(rows[language, extension], text), (language, extension, text)
            left_out.update(name for name, out in ours.items() if out)
    assert files >= 5000
    assert set(left_out) == {rule.__name__ for rule in FILTERS}
