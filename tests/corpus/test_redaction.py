import pickle
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Document, Mark
from starcoder.corpus.redaction import NoRedaction, Redaction, Redactor, redact_document


class Digits:
    """Takes runs of digits for keys, and an a at the end of a text for a name: as long as it was, longer or shorter."""

    name = "digits"

    def redact(self, text: str) -> Redaction:
        changed, keys = re.subn("[0-9]+", "<KEY>", text)
        shorter, names = re.subn(r"a+\Z", "", changed)
        return Redaction(shorter, {"KEY": keys, "NAME": names})


def document(content: str, *marks: Mark) -> Document:
    return Document("r", "p", "", "", ("MIT",), 77, content, stars=3, marks=marks, kind="issue", sha256="abc", copies=2)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    content = draw(st.text("a1 é"))
    places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=5)))
    return document(content, *(Mark(at, f"<{number}>") for number, at in enumerate(places)))


def texts(document: Document) -> list[str]:
    """What stands between the control tokens."""
    borders = [0, *(mark.at for mark in document.marks), len(document.content)]
    return [document.content[start:end] for start, end in pairwise(borders)]


@given(documents())
def test_each_text_is_redacted_alone_and_marks_stay_between_them(original: Document) -> None:
    redactor = Digits()
    redacted, counts = redact_document(original, redactor)
    parts = [redactor.redact(text) for text in texts(original)]
    assert texts(redacted) == [part.text for part in parts]
    assert [mark.sentinel for mark in redacted.marks] == [mark.sentinel for mark in original.marks]
    for label in ("KEY", "NAME"):
        assert counts[label] == sum(part.counts[label] for part in parts)
    assert replace(redacted, content=original.content, marks=original.marks) == original


def test_a_control_token_ends_an_entity() -> None:
    marks = (Mark(0, "<issue_start>"), Mark(5, "<issue_comment>"), Mark(9, "<issue_closed>"))
    redacted, counts = redact_document(document("id 1234 56", *marks), Digits())
    assert redacted.content == "id <KEY><KEY> <KEY><KEY>"
    assert redacted.marks == (Mark(0, "<issue_start>"), Mark(8, "<issue_comment>"), Mark(19, "<issue_closed>"))
    assert counts["KEY"] == 4


@given(documents())
def test_no_redaction_changes_nothing(original: Document) -> None:
    redactor: Redactor = pickle.loads(pickle.dumps(NoRedaction()))
    assert redactor.name == "none"
    assert redact_document(original, redactor) == (original, Counter())
