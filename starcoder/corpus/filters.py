"""The paper's quality filters (§5.1): each looks at one document and answers with the reason to leave it out, or None.

All lengths are in characters. The thresholds of each language and extension are in `languages`; the rest is here.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape

from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.languages import THRESHOLDS

STAGE = "filters"
"""The stage of the pipeline that these rejections belong to, and those of the filters of commits and issues."""


@dataclass(frozen=True)
class FilterOptions:
    """Thresholds that do not depend on the extension.

    Attributes:
        mean_line: Longest mean line length; only where the longest line is limited too.
        xml_head: Where in a file an XML declaration makes it XML: its first characters.
        html_share: Visible text of an HTML page, least share of the page.
        html_text: Visible text of an HTML page, least number of characters.
        data_min: Shortest JSON or YAML file (50 in the paper; the released code's default is 100).
        data_max: Longest JSON or YAML file.
    """

    mean_line: float = 100.0
    xml_head: int = 100
    html_share: float = 0.2
    html_text: int = 100
    data_min: int = 50
    data_max: int = 5000


DEFAULTS = FilterOptions()
Filter = Callable[[Document, FilterOptions], Rejection | None]


def reject_reason(document: Document, options: FilterOptions = DEFAULTS) -> Rejection | None:
    """Return the first reason to leave `document` out; its (language, extension) must be a row of the table."""
    return next(filter(None, (rule(document, options) for rule in FILTERS)), None)


def decode(data: bytes) -> str | Rejection:
    """Return the text of a file, or why it is not one: it is empty, not UTF-8, or has NUL characters as binaries do."""
    if b"\0" in data:
        return Rejection("binary")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return Rejection("not UTF-8", f"byte {error.start}")
    return text if text.strip() else Rejection("empty")


def xml(document: Document, options: FilterOptions) -> Rejection | None:
    """XML under another language's extension."""
    declared = "<?xml version=" in document.content[: options.xml_head]
    return Rejection("XML") if declared and THRESHOLDS[document.language, document.extension].xml else None


def long_lines(document: Document, options: FilterOptions) -> Rejection | None:
    """The longest and the mean line: longer ones mean minified code, data, or generated files."""
    limit = THRESHOLDS[document.language, document.extension].line
    lengths = [len(line) for line in document.content.splitlines()]
    if limit is None or not lengths:
        return None
    if max(lengths) > limit:
        return Rejection("longest line", f"{max(lengths)} > {limit}")
    mean = sum(lengths) / len(lengths)
    return Rejection("mean line", f"{mean:.1f} > {options.mean_line:g}") if mean > options.mean_line else None


def few_alphanumerics(document: Document, options: FilterOptions) -> Rejection | None:
    """The share of letters and digits: tables of symbols and ASCII art have few."""
    threshold = THRESHOLDS[document.language, document.extension].alnum
    return _too_few("alphanumeric share", _count(document.content, _ALNUM, str.isalnum), document, threshold)


def few_letters(document: Document, options: FilterOptions) -> Rejection | None:
    """The share of letters: files of numbers, such as data and hardware dumps, have few."""
    threshold = THRESHOLDS[document.language, document.extension].alpha
    return _too_few("alphabetic share", _count(document.content, _ALPHA, str.isalpha), document, threshold)


def hidden_html(document: Document, options: FilterOptions) -> Rejection | None:
    """HTML that is mostly markup: the visible text must be long enough, and a large enough share of the page."""
    if document.language != "html":
        return None
    text = visible_text(document.content)
    if isinstance(text, Rejection):
        return text
    visible = len(text)
    share = visible / len(document.content)
    if share > options.html_share and visible > options.html_text:
        return None
    return Rejection("visible HTML text", f"{visible} characters, {share:.0%} of the page")


def data_size(document: Document, options: FilterOptions) -> Rejection | None:
    """JSON and YAML that is too short or too long: the long ones are data, which would drown the code."""
    size = len(document.content)
    if document.language not in ("json", "yaml") or options.data_min <= size <= options.data_max:
        return None
    return Rejection("size of a data file", f"{size} characters")


FILTERS: tuple[Filter, ...] = (xml, long_lines, few_alphanumerics, few_letters, hidden_html, data_size)


# A piece of markup as html.parser reads it, which Beautiful Soup used for the authors: a ">" in a quoted value does not
# end a tag. Possessive repetitions never go back over what they matched, so that a tag is read once.
_MARKUP = re.compile(
    r"""
    <(?P<tag>[a-zA-Z][^\s/>]*+) (?: [^>=]++ | =\s*+ (?: "[^"]*+" | '[^']*+' | (?!["']) ) )*+ >
    | <!-- .*? --\s*+>
    | <!\[(?i:cdata)\[ (?P<cdata> .*? ) \]\s*+\]\s*+>
    | <!\[(?i:cdata|temp|ignore|include|rcdata)\b .*? \]\s*+\]\s*+>
    | <!\[(?i:if|else|endif)\b .*? \]\s*+>
    | <(?: [/?] | !(?!--|\[) ) [^>]*+ >
    """,
    re.VERBOSE | re.DOTALL,
)
_NO_MARKUP = re.compile(r"<(?![a-zA-Z/!?])")
_UNKNOWN_SECTION = re.compile(r"<!\[(?!(?i:cdata|temp|ignore|include|rcdata|if|else|endif)\b)")
_HIDDEN_END = {name: re.compile(rf"</\s*+{name}\s*+>", re.IGNORECASE) for name in ("script", "style")}
_MOST_BROKEN = 10
_SPACES = " \t\n\f\r"


def visible_text(page: str) -> str | Rejection:
    """Return the text of an HTML page without its scripts, styles, tags, comments and indentation, or why it has none.

    White space that only indents the markup counts as one character, as in Beautiful Soup. Markup that does not end is
    text up to the next ">"; from the tenth such piece on, so that no page takes long, all of the page is.
    """
    try:
        return "".join(map(_unescaped, _texts(page)))
    except ValueError as error:
        return Rejection("HTML cannot be parsed", str(error))


def _texts(page: str) -> Iterator[str]:
    """Yield the texts between pieces of markup.

    Raises:
        ValueError: There is a marked section that is not HTML's.
    """
    start = at = broken = 0
    while broken < _MOST_BROKEN and (at := page.find("<", at)) >= 0:
        if markup := _MARKUP.match(page, at):
            yield page[start:at]
            yield markup["cdata"] or ""
            start = at = _end(markup)
        elif _NO_MARKUP.match(page, at):
            at += 1
        elif section := _UNKNOWN_SECTION.match(page, at):
            raise ValueError(f"marked section {page[at : section.end() + 20]!r}")
        else:
            broken += 1
            at = page.find(">", at) + 1 or len(page)
    yield page[start:]


def _end(markup: re.Match[str]) -> int:
    """Where a piece of markup ends: a script or a style with its end tag, or else with the page."""
    hidden = None if markup[0].endswith("/>") else _HIDDEN_END.get((markup["tag"] or "").lower())
    if not hidden:
        return markup.end()
    end = hidden.search(markup.string, markup.end())
    return end.end() if end else len(markup.string)


def _unescaped(text: str) -> str:
    """A text with its characters for references to them, and as one character when it is white space alone.

    Raises:
        ValueError: A reference has more digits than Python turns into a number.
    """
    text = unescape(text)
    return text if text.strip(_SPACES) else text[:1] and ("\n" if "\n" in text else " ")


# Counting characters one by one is the slowest part of the filters: bytes.translate counts the ASCII ones at once.
_DIGITS = b"0123456789"
_ALPHA = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ALNUM = _ALPHA + _DIGITS
_OTHERS = {kept: bytes(set(range(256)) - set(kept)) for kept in (_ALPHA, _ALNUM)}
_ASCII = re.compile(r"[\x00-\x7f]+")


def _count(text: str, ascii_kind: bytes, is_kind: Callable[[str], bool]) -> int:
    """How many characters of `text` are of one kind, given as its ASCII members and as the test for all others."""
    in_ascii = len(text.encode().translate(None, _OTHERS[ascii_kind]))
    return in_ascii if text.isascii() else in_ascii + sum(map(is_kind, _ASCII.sub("", text)))


def _too_few(reason: str, count: int, document: Document, threshold: float | None) -> Rejection | None:
    share = count / max(len(document.content), 1)
    return Rejection(reason, f"{share:.3f} < {threshold:g}") if threshold is not None and share < threshold else None
