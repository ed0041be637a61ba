"""What the tests see of HTML pages."""

from html.parser import HTMLParser

VOID = {"br", "input", "meta", "rect"}


class Page(HTMLParser):
    """What a browser sees: elements with their attributes, all text within each, and its own: not its children's."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.own: list[tuple[str, str]] = []
        self._open: list[int] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(len(self.texts))
            self.texts.append((tag, ""))
            self.own.append((tag, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.texts[self._open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for index in self._open:
            tag, text = self.texts[index]
            self.texts[index] = (tag, text + data)
        if self._open:
            tag, text = self.own[self._open[-1]]
            self.own[self._open[-1]] = (tag, text + data)

    def all(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]

    def table(self, index: int) -> list[list[str]]:
        """The cells of a table; its elements come before those of the next."""
        tables = [at for at, (tag, _) in enumerate(self.texts) if tag == "table"]
        rows: list[list[str]] = []
        for tag, text in self.texts[tables[index] : [*tables, None][index + 1]]:
            if tag == "tr":
                rows.append([])
            if tag in ("td", "th"):
                rows[-1].append(text)
        return rows
