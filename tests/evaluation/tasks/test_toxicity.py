"""RealToxicityPrompts: which prompts are posed, the list of words, and a classifier against its own logits."""

import json
from pathlib import Path
from typing import Any

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.tasks.toxicity import NonToxicPrompts, Toxicity, word_list

ROWS: list[dict[str, Any]] = [
    {"prompt": {"text": "One", "toxicity": 0.9}, "challenging": True},
    {"prompt": {"text": "Two", "toxicity": 0.1}, "challenging": False},
    {"prompt": {"text": "Three", "toxicity": None}, "challenging": False},
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data in a folder with a list of words, and a Hub's cache without the paper's classifier."""
    monkeypatch.setattr("starcoder.evaluation.tasks.toxicity._cached", lambda: None)
    write(tmp_path, ROWS)
    (tmp_path / "real-toxicity-prompts" / "words.txt").write_text("darn\n")
    return tmp_path


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "real-toxicity-prompts" / "prompts.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_first_prompts_are_posed(data: Path) -> None:
    assert [problem.prompt for problem in Toxicity().problems(data)] == ["One", "Two", "Three"]
    (problem,) = NonToxicPrompts().problems(data)
    assert (problem.id, problem.prompt) == ("1", "Two")
    assert len(Toxicity().problems(write(data, ROWS[:1] * 10_003))) == 10_000


def test_nothing_is_posed_when_nothing_can_be_measured(data: Path) -> None:
    (data / "real-toxicity-prompts" / "words.txt").unlink()
    for task in (Toxicity(), NonToxicPrompts()):
        with pytest.raises(UserError) as error:
            task.problems(data)
        for part in (
            f"{task.name} can measure nothing",
            "words.txt",
            "hf download",
            "real-toxicity-prompts/classifier",
        ):
            assert part in str(error.value)
        assert "\n" not in str(error.value)


def test_words_count_only_whole_and_in_any_case(data: Path) -> None:
    words = data / "real-toxicity-prompts" / "words.txt"
    words.write_text("darn\n\n  shut   up \n$#!t\n")
    task = Toxicity()
    (problem, *_) = task.problems(data)
    assert set(task.missing()) == {"toxic", "toxicity"}
    assert "hf download" in task.missing()["toxic"]
    for text in ("Oh, DARN!", "please shut\nup", "darn", "what $#!t is"):
        assert task.scores(problem, text) == {"offensive": 1.0}
    for text in ("darned", "goldarn it", "shut the door up", "shutup", ""):
        assert task.scores(problem, text) == {"offensive": 0.0}
    words.write_text("\n")
    with pytest.raises(UserError, match=r"words\.txt holds no word"):
        word_list(words)


def make_classifier(folder: Path, labels: dict[int, str]) -> Any:
    """A tiny model with random weights that tells two words apart, saved as transformers saves one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=16,
        initializer_range=2.0,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
    )
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def test_the_classifiers_scores_are_those_of_its_logits(data: Path) -> None:
    import torch

    (data / "real-toxicity-prompts" / "words.txt").unlink()
    model = make_classifier(data / "real-toxicity-prompts" / "classifier", {0: "nothate", 1: "hate"})
    task = Toxicity()
    (problem, *_) = task.problems(data)
    assert set(task.missing()) == {"offensive"}
    assert "words.txt" in task.missing()["offensive"]
    found = []
    for text, token in (("good", 2), ("bad", 3)):
        with torch.no_grad():
            expected = float(model(torch.tensor([[token]])).logits.softmax(-1)[0, 1])
        scores = task.scores(problem, text)
        assert scores == {"toxic": float(expected > 0.5), "toxicity": pytest.approx(expected, rel=1e-4)}
        found.append(scores["toxicity"])
    assert found[0] != pytest.approx(found[1], rel=0.1)
    assert 0 <= task.scores(problem, "bad " * 50)["toxicity"] <= 1


def test_what_is_wrong_is_said(data: Path) -> None:
    make_classifier(data / "real-toxicity-prompts" / "classifier", {0: "cat", 1: "dog"})
    with pytest.raises(UserError, match="has the labels cat, dog, and none of hate, toxic"):
        Toxicity().problems(data)
    (data / "real-toxicity-prompts/classifier/config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as a classifier"):
        Toxicity().problems(data)
    with pytest.raises(UserError, match="row 1 has no text under prompt"):
        NonToxicPrompts().problems(write_bad(data))
    with pytest.raises(UserError, match=r"no \*\.jsonl in .*allenai/real-toxicity-prompts"):
        Toxicity().problems(data / "elsewhere")


def write_bad(data: Path) -> Path:
    import shutil

    shutil.rmtree(data / "real-toxicity-prompts/classifier")
    return write(data, [{"prompt": {"toxicity": 0.1}}])
