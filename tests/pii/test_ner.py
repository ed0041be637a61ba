"""A model's probabilities against the model itself, and folders that hold something else than a detector."""

import itertools
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForPreTraining, BertForTokenClassification, BertModel

from starcoder.errors import UserError
from starcoder.pii.bio import TAGS, encode
from starcoder.pii.entity import LABELS
from starcoder.pii.ner import NerDetector, _groups, windows_of
from starcoder.tokenizer import train

RELEASED = Path(__file__).parents[2] / "../shared/data/starcoder-tokenizer"
STARPII = ("AMBIGUOUS", "EMAIL", "IP_ADDRESS", "KEY", "NAME", "PASSWORD", "USERNAME")
TEXTS = ["", "x", "ada = 'lovelace'\n" * 40, "😀\ud800 10.0.0.1", "name: Ada Lovelace <ada@example.org>\n" * 9]


def shape(tags: tuple[str, ...], vocab_size: int, **changes: Any) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,
        id2label=dict(enumerate(tags)),
        label2id={tag: number for number, tag in enumerate(tags)},
        **changes,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of ours that has learned nothing."""
    place = tmp_path_factory.mktemp("starpii")
    tokenizer = train(["name = 'ada'; ip = 10.0.0.1\n"] * 9, 284)
    tokenizer.save(place)
    torch.manual_seed(1)
    BertForTokenClassification(shape(TAGS, tokenizer.vocab_size + 4)).save_pretrained(place)
    return place


@given(st.integers(0, 300), st.integers(1, 50), st.data())
def test_windows_give_every_token_once_and_see_it(length: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    windows = windows_of(length, size, overlap)
    assert [i for w in windows for i in range(w.kept.start, w.kept.stop)] == list(range(length))
    for window in windows:
        assert window.seen.start <= window.kept.start <= window.kept.stop <= window.seen.stop
        assert window.seen.stop - window.seen.start == min(size, length)
        if window.kept.start > 0:
            assert window.kept.start - window.seen.start >= overlap // 2
        if window.kept.stop < length:
            assert window.seen.stop - window.kept.stop >= overlap // 2


@pytest.mark.parametrize("overlap", [0, 16])
def test_probabilities_are_the_models_whatever_shares_the_batch(folder: Path, overlap: int) -> None:
    detector = NerDetector.open(str(folder), "cpu", overlap=overlap)
    model = BertForTokenClassification.from_pretrained(folder).eval()
    tokens = [encode(detector.tokenizer, text) for text in TEXTS]
    for text, got in zip(tokens, detector._probabilities(tokens), strict=True):
        for seen, kept in windows_of(len(text.ids), 64, overlap):
            with torch.inference_mode():
                row = model(torch.from_numpy(text.ids[None, seen])).logits.softmax(-1)[0].numpy()
            np.testing.assert_allclose(got[kept], row[kept.start - seen.start :][: kept.stop - kept.start], atol=1e-5)


def test_windows_are_those_of_the_training(folder: Path) -> None:
    model = BertForTokenClassification.from_pretrained(folder)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert NerDetector(model, tokenizer).window == 64
    model.config.window = 40
    detector = NerDetector(model, tokenizer)
    assert (detector.window, detector.overlap) == (40, 10)


def test_texts_together_and_alone_have_the_same_entities(folder: Path) -> None:
    detector = NerDetector.open(str(folder), "cpu", overlap=16)
    together = detector.detect_all(TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        alone = detector.detect(text)
        assert [(e.start, e.end, e.label) for e in alone] == [(e.start, e.end, e.label) for e in found]
        assert all(0 <= e.start < e.end <= len(text) for e in found)
        assert all(a.end <= b.start for a, b in itertools.pairwise(found))
        assert all(e.label in LABELS and 0 < e.score <= 1 and e.detector == "ner" for e in found)
    assert any(together)


def test_a_long_text_is_read_in_pieces_with_places_of_the_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = NerDetector.open(str(folder), "cpu")
    line = "name: Ada Lovelace <ada@example.org>\n"
    monkeypatch.setattr("starcoder.pii.ner._PIECE", len(line) + 3)
    once = detector.detect(line)
    assert once
    places = [(e.start, e.end, e.label) for e in detector.detect(line * 5)]
    assert places == [(e.start + i * len(line), e.end + i * len(line), e.label) for i in range(5) for e in once]


@given(st.text(max_size=80))
def test_places_are_inside_of_any_text(folder: Path, text: str) -> None:
    found = DETECTORS.setdefault(folder, NerDetector.open(str(folder), "cpu")).detect(text)
    assert all(0 <= e.start < e.end <= len(text) for e in found)


DETECTORS: dict[Path, NerDetector] = {}


def test_a_detector_can_be_sent_to_another_process(folder: Path) -> None:
    detector = NerDetector.open(str(folder), "cpu")
    other = pickle.loads(pickle.dumps(detector))
    assert other.detect(TEXTS[2]) == detector.detect(TEXTS[2])
    sentinel = "<fim_prefix>"
    ids = encode(other.tokenizer, sentinel).ids.tolist()
    assert ids == encode(detector.tokenizer, sentinel).ids.tolist() != [detector.tokenizer.token_to_id(sentinel)]


def test_texts_are_held_by_the_million_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are: 300,000 would take minutes if every one of them looked at those before."""
    monkeypatch.setattr("starcoder.pii.ner._PIECES_TOGETHER", 1000)
    groups = list(_groups(["ten chars."] * 250 + ["", "x" * 2500]))
    assert [len(group) for group in groups] == [100, 100, 51, 0]
    monkeypatch.undo()
    assert [len(group) for group in _groups(["a"] * 300_000)] == [300_000]


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released tokenizer is not here")
def test_a_folder_like_the_released_one(tmp_path: Path) -> None:
    """Its own tags, StarCoder's tokenizer without a token for padding, four more rows in the table of embeddings."""
    shutil.copy(RELEASED / "tokenizer.json", tmp_path)
    tags = ("O", *(f"{place}-{label}" for label in STARPII for place in "BI"))
    torch.manual_seed(1)
    BertForTokenClassification(shape(tags, 49156)).save_pretrained(tmp_path)
    found = NerDetector.open(str(tmp_path), "cpu").detect_all(TEXTS)
    assert {e.label for entities in found for e in entities} <= set(STARPII)
    assert any(found)


def broken(folder: Path, tmp_path: Path, file: str, content: str | None) -> str:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / file).unlink()
    if content is not None:
        (tmp_path / "model" / file).write_text(content)
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "model: no config.json is there"),
        ("config.json", "{}", "model: its config.json cannot be read"),
        ("tokenizer.json", None, "model: no tokenizer.json is there"),
        ("tokenizer.json", "{", "model: its tokenizer.json is damaged"),
        ("model.safetensors", None, "^the model in .*model cannot be read"),
        ("model.safetensors", "what?", "^the model in .*model cannot be read"),
    ],
)
def test_what_a_folder_lacks_is_said(
    folder: Path, tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        NerDetector.open(broken(folder, tmp_path, file, content))
    assert "\n" not in str(error.value)


def test_a_model_without_its_classifier_is_refused(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Transformers would draw one at random, which would find people and secrets everywhere."""
    model = broken(folder, tmp_path, "model.safetensors", None)
    BertModel(shape(TAGS, 288)).save_pretrained(tmp_path / "headless")
    shutil.copy(tmp_path / "headless" / "model.safetensors", model)
    capfd.readouterr()
    with pytest.raises(UserError, match=r"lacks weights, such as classifier\.bias"):
        NerDetector.open(model)
    assert capfd.readouterr() == ("", "")


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    BertForPreTraining(shape(("O",), 300)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="it is a BertForPreTraining, no classifier of tokens"):
        NerDetector.open(str(tmp_path))


def test_tags_of_another_task_and_another_tokenizer_are_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["1"] = "B-LOC"
    with pytest.raises(UserError, match="but LOC"):
        NerDetector.open(broken(folder, tmp_path, "config.json", json.dumps(config)))
    model = BertForTokenClassification(shape(TAGS, 200))
    with pytest.raises(UserError, match="its tokenizer has 284 tokens, its model 200"):
        NerDetector(model, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")))


def test_places_and_devices_that_do_not_exist(folder: Path) -> None:
    with pytest.raises(UserError, match="neither a folder nor a repository"):
        NerDetector.open("no/such/folder/here")
    with pytest.raises(UserError, match="no device abacus here"):
        NerDetector.open(str(folder), "abacus")
    with pytest.raises(UserError, match="windows of 64 tokens cannot overlap by 64"):
        NerDetector.open(str(folder), "cpu", overlap=64)
