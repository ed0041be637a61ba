import hashlib
import pickle
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForTokenClassification

from starcoder.corpus.document import Document, Mark
from starcoder.corpus.redaction import NoRedaction, Redactor, describe, open_redactor, redact_documents
from starcoder.errors import UserError
from starcoder.pii.bio import TAGS
from starcoder.pii.detectors import open_detector
from starcoder.pii.redaction import Redacted, redactable
from starcoder.tokenizer import train


class Digits:
    """Takes runs of digits for keys, and an a at the end of a text for a name: as long as it was, longer or shorter.

    A text in Python keeps its spaces, which are counted as left.
    """

    name = "digits"

    def redact_all(self, texts: Sequence[str], languages: Sequence[str]) -> Sequence[Redacted]:
        return [self.redact(text, language) for text, language in zip(texts, languages, strict=True)]

    def redact(self, text: str, language: str) -> Redacted:
        changed, keys = re.subn("[0-9]+", "<KEY>", text)
        shorter, names = re.subn(r"a+\Z", "", changed)
        return Redacted(shorter, {"KEY": keys, "NAME": names}, {"KEY": text.count(" ")} if language == "python" else {})


def document(content: str, *marks: Mark, language: str = "") -> Document:
    return Document(
        "r", "p", language, "", ("MIT",), 77, content, stars=3, marks=marks, kind="issue", sha256="abc", copies=2
    )


@st.composite
def documents(draw: st.DrawFn) -> Document:
    content = draw(st.text("a1 é"))
    places = sorted(draw(st.lists(st.integers(0, len(content)), max_size=5)))
    marks = (Mark(at, f"<{number}>") for number, at in enumerate(places))
    return document(content, *marks, language=draw(st.sampled_from(["", "python"])))


def texts(document: Document) -> list[str]:
    """What stands between the control tokens."""
    borders = [0, *(mark.at for mark in document.marks), len(document.content)]
    return [document.content[start:end] for start, end in pairwise(borders)]


@given(st.lists(documents(), max_size=4))
def test_each_text_is_redacted_alone_and_marks_stay_between_them(originals: list[Document]) -> None:
    redactor = Digits()
    results = redact_documents(originals, redactor)
    assert len(results) == len(originals)
    for original, (redacted, counted) in zip(originals, results, strict=True):
        parts = [redactor.redact(text, original.language) for text in texts(original)]
        assert texts(redacted) == [part.text for part in parts]
        assert [mark.sentinel for mark in redacted.marks] == [mark.sentinel for mark in original.marks]
        assert redacted.content == counted.text
        for label in ("KEY", "NAME"):
            assert counted.counts.get(label, 0) == sum(part.counts[label] for part in parts)
        spaces = original.content.count(" ") if original.language else 0
        assert counted.left.get("KEY", 0) == spaces
        assert replace(redacted, content=original.content, marks=original.marks) == original


def test_a_control_token_ends_an_entity() -> None:
    marks = (Mark(0, "<issue_start>"), Mark(5, "<issue_comment>"), Mark(9, "<issue_closed>"))
    ((redacted, counted),) = redact_documents([document("id 1234 56", *marks)], Digits())
    assert redacted.content == "id <KEY><KEY> <KEY><KEY>"
    assert redacted.marks == (Mark(0, "<issue_start>"), Mark(8, "<issue_comment>"), Mark(19, "<issue_closed>"))
    assert counted.counts["KEY"] == 4


@given(st.lists(documents(), max_size=4))
def test_no_redaction_changes_nothing(originals: list[Document]) -> None:
    redactor: Redactor = pickle.loads(pickle.dumps(NoRedaction()))
    assert redactor.name == "none"
    assert redact_documents(originals, redactor) == [(each, Redacted(each.content)) for each in originals]


def test_redactors_by_name() -> None:
    assert (open_redactor("none")[0].name, open_redactor("none")[1]) == ("none", "")
    redactor, version = open_redactor("regex")
    assert redactor.name == "regex"
    assert re.fullmatch(r"detect-secrets [0-9.]+", version)
    copy: Redactor = pickle.loads(pickle.dumps(redactor))
    assert copy.redact_all(["# ada@lovelace.org"], ["python"]) == [Redacted("# <EMAIL>", {"EMAIL": 1})]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of tokens that has learned nothing, and so finds something nearly everywhere."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train(["name = 'ada'\n"] * 9, 280)
    tokenizer.save(folder)
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    tags = {"id2label": dict(enumerate(TAGS)), "label2id": {tag: number for number, tag in enumerate(TAGS)}}
    vocabulary = {"vocab_size": tokenizer.vocab_size + 4, "max_position_embeddings": 256, "initializer_range": 0.5}
    BertForTokenClassification(BertConfig(**sizes, **vocabulary, **tags)).save_pretrained(folder)
    return folder


def test_a_model_beside_the_rules(model: Path) -> None:
    redactor, version = open_redactor(str(model))
    digest = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert version.endswith(f", model.safetensors {digest[:16]}")
    size = len(pickle.dumps(redactor))
    assert redactor.name.startswith("regex+")
    assert len(pickle.dumps(redactor)) == size < 1000  # each process reads the weights itself
    text = "# Ada Lovelace wrote the first program, ada@lovelace.org paid for it.\nwheel = 'cog'\n" * 3
    texts = ["", text, "x", "😀 " + text]
    languages = ["", "python", "c", ""]
    copy: Redactor = pickle.loads(pickle.dumps(redactor))
    results = copy.redact_all(texts, languages)
    assert "ada@lovelace.org" not in results[1].text + results[3].text
    assert sum(sum(result.counts.values()) for result in results) > 6  # it has found more than the rules
    found = open_detector(str(model), "cpu").detect_all([result.text for result in results])
    for result, entities in zip(results, found, strict=True):
        assert Counter(each.label for each, _ in redactable(result.text, entities)) == result.left


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        open_redactor(str(tmp_path))[0].name  # noqa: B018


def test_what_a_corpus_says_of_its_redaction() -> None:
    assert describe({"redactor": "none"}) == "PII: not redacted"
    assert describe({"redactor": "regex"}) == "PII: redacted by regex: nothing was found"
    counts = {"redacted": {"EMAIL": 1234, "KEY": 1}, "unredacted": {"KEY": 2}}
    assert describe({"redactor": "regex", **counts}) == (
        "PII: redacted by regex: 1,234 EMAIL, 1 KEY; left as they are: 2 KEY"
    )
