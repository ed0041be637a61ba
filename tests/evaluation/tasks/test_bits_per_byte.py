"""Bits per byte against closed forms, and against a direct computation with a real model."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from starcoder import tokenizer as tokenizers
from starcoder.corpus.document import Document, write_documents
from starcoder.errors import UserError
from starcoder.evaluation.engines.kit import KitEngine
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.bits_per_byte import BitsPerByte
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.tokenizer import EOD

TEXT = "naïve = 'héllo wörld'  # 素晴らしい\n" * 3


def bits(task: BitsPerByte, problems: list[Problem], nats: list[list[float]]) -> float:
    """Σ sum / Σ weight, as the report adds problems up."""
    found = [task.scores(problem, [own])["bits_per_byte"] for problem, own in zip(problems, nats, strict=True)]
    return sum(total for total, _ in found) / sum(weight for _, weight in found)


def test_uniform_bytes_are_8_bits_whatever_the_tokens() -> None:
    task, problems = BitsPerByte(), [Problem("a", TEXT), Problem("b", "x = 1\n")]
    for width in (1, 2, 7):  # bytes in a token
        sizes = [[len(data[at : at + width]) for at in range(0, len(data), width)] for data in _data(problems)]
        nats = [[size * math.log(256) for size in own] for own in sizes]
        assert bits(task, problems, nats) == pytest.approx(8, abs=1e-9)


def test_unigram_model_reaches_the_entropy_of_its_bytes() -> None:
    problems = [Problem("a", TEXT), Problem("b", "for i in range(10):\n    print(i)\n")]
    counts = Counter(b"".join(_data(problems)))
    total = counts.total()
    nats = [[-math.log(counts[byte] / total) for byte in data] for data in _data(problems)]
    entropy = -sum(count / total * math.log2(count / total) for count in counts.values())
    assert bits(BitsPerByte(), problems, nats) == pytest.approx(entropy)


def test_real_model(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "held-out").symlink_to(tiny.corpus)
    tokenizer = tokenizers.load(tiny.tokenizer)
    model = StarCoder(StarCoderConfig(tokenizer.vocab_size, 512, n_layer=1, n_head=2, n_embd=32)).eval()
    task = BitsPerByte(characters=600)
    problems = task.problems(tmp_path)
    assert [problem.group for problem in problems] == ["Python", "Python"]
    nats = list(KitEngine(model, tokenizer, "tiny").nats([pair for each in problems for pair in task.requests(each)]))
    direct = 0.0
    for problem in problems:
        ids = torch.tensor([[EOD, *tokenizer.encode(problem.prompt)]])
        with torch.no_grad():
            direct += F.cross_entropy(model(ids[:, :-1])[0].double(), ids[0, 1:], reduction="sum").item()
    size = sum(len(data) for data in _data(problems))
    assert bits(task, problems, nats) == pytest.approx(direct / math.log(2) / size, rel=1e-5)


def test_files_are_drawn_by_their_names(tmp_path: Path) -> None:
    documents = [
        Document("r", f"{n}.{language}", language, language, ("MIT",), 9, f"text {n}\n")
        for n in range(20)
        for language in ("go", "c")
    ]
    issue = Document("r", "issue/1", "", "", (), 5, "text\n", kind="issue")
    (tmp_path / "held-out").mkdir()
    write_documents(tmp_path / "held-out", "validation", [*documents, issue])
    first = BitsPerByte(per_language=5).problems(tmp_path)
    assert Counter(problem.group for problem in first) == {"Go": 5, "C": 5}
    assert first == BitsPerByte(per_language=5).problems(tmp_path)
    assert first != BitsPerByte(per_language=5, seed=1).problems(tmp_path)
    more = BitsPerByte(per_language=6).problems(tmp_path)
    assert {problem.id for problem in first} < {problem.id for problem in more}
    assert len(BitsPerByte().problems(tmp_path)) == 40


def test_bad_input(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        with pytest.raises(UserError, match="held-out code is missing: make it with `starcoder corpus build"):
            BitsPerByte().problems(folder)
    (tmp_path / "held-out").mkdir()
    with pytest.raises(UserError, match="no validation documents"):
        BitsPerByte().problems(tmp_path)
    write_documents(tmp_path / "held-out", "validation", [Document("r", "1", "", "", (), 1, "x", kind="issue")])
    with pytest.raises(UserError, match="no source files"):
        BitsPerByte().problems(tmp_path)


def _data(problems: list[Problem]) -> list[bytes]:
    return [problem.prompt.encode() for problem in problems]
