"""Texts of strangers, made fit to be shown."""


def visible(text: str, keep: str = "") -> str:
    """`text` with every character that does not print, but for those in `keep`, written as its escape.

    A control character in a stranger's text could move the cursor or turn the reading direction.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
