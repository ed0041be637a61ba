"""Perplexity by position against closed forms, torchmetrics and a direct computation with a real model."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics.text import Perplexity

from starcoder import tokenizer as tokenizers
from starcoder.corpus.document import Document, write_documents
from starcoder.errors import UserError
from starcoder.evaluation.engines.kit import KitEngine
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.long_context import CURVE, LONG, REGION, SHORT, LongContext
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.tokenizer import EOD

TASK = LongContext()


def summary(found: dict[str, tuple[float, float]]) -> dict[str, float]:
    return TASK.summary({name: total / weight for name, (total, weight) in found.items()})


def test_uniform_model_has_perplexity_v_everywhere() -> None:
    problem = Problem("r", "x" * CURVE)
    nats = [[math.log(512)] * 9000, [math.log(512)] * 1000, [math.log(512)] * 1000]
    found = TASK.scores(problem, nats)
    assert {name: weight for name, (_, weight) in found.items()} == {
        "perplexity 0-256": 256,
        "perplexity 256-512": 256,
        "perplexity 512-1024": 512,
        "perplexity 1024-2048": 1024,
        "perplexity 2048-4096": 2048,
        "perplexity 4096-8192": 4096,
        "perplexity@2K": 1000,
        "perplexity@8K": 1000,
    }
    assert summary(found) == pytest.approx(dict.fromkeys(found, 512))


def test_each_position_counts_in_its_own_bucket() -> None:
    nats = [[float(position) for position in range(3000)], [1.0], [2.0]]
    found = TASK.scores(Problem("r", ""), nats)
    assert found["perplexity 256-512"] == (sum(range(256, 512)), 256)
    assert found["perplexity 2048-4096"] == (sum(range(2048, 3000)), 952)
    assert "perplexity 4096-8192" not in found
    assert summary({name: found[name] for name in ("perplexity@2K", "perplexity@8K")}) == pytest.approx(
        {"perplexity@2K": math.e, "perplexity@8K": math.e**2}
    )


def test_both_windows_end_with_the_same_region() -> None:
    text = "".join(f"{number:06d}\n" for number in range(CURVE // 7))
    curve, short, long = TASK.requests(Problem("r", text))
    assert curve == ("", text)
    assert short[1] == long[1]
    assert (len(short[1]), len("".join(short)), len("".join(long))) == (REGION, SHORT, LONG)
    assert "".join(long) == text[:LONG]
    assert "".join(long).endswith("".join(short))


def test_repositories_are_put_together_by_language(tmp_path: Path) -> None:
    (tmp_path / "held-out").mkdir()

    def document(repository: str, path: str, language: str, content: str) -> Document:
        return Document(repository, path, language, language, (), len(content), content)

    documents = [
        document("big", "b.go", "go", "B" * LONG),
        document("big", "a.go", "go", "A" * 10),
        document("big", "c.py", "python", "P" * LONG),
        document("small", "a.go", "go", "S" * 10),
    ]
    write_documents(tmp_path / "held-out", "validation", documents)
    go, python = TASK.problems(tmp_path)
    assert (go.group, go.prompt) == ("Go", "A" * 10 + "\n" + "B" * LONG)
    assert (python.group, python.prompt) == ("Python", "P" * LONG)
    write_documents(tmp_path / "held-out", "validation", documents[-1:])
    with pytest.raises(UserError, match=f"no held-out repository has {LONG} characters"):
        TASK.problems(tmp_path)


def test_positions_and_windows_beyond_the_models_are_left_out() -> None:
    task, problem = LongContext(), Problem("r", "x" * CURVE)
    task.window = 2048
    requests = task.requests(problem)
    assert [(len(context), len(text)) for context, text in requests] == [(0, CURVE), (SHORT - REGION, REGION)]
    found = task.scores(problem, [[1.0] * 9000, [2.0] * 1000])
    assert {name: weight for name, (_, weight) in found.items()} == {
        "perplexity 0-256": 256,
        "perplexity 256-512": 256,
        "perplexity 512-1024": 512,
        "perplexity 1024-2048": 1024,
        "perplexity@2K": 1000,
    }
    assert task.missing() == dict.fromkeys(
        ("perplexity 2048-4096", "perplexity 4096-8192", "perplexity@8K"), "the model's window holds 2048 tokens"
    )
    task.window = 8192
    assert (len(task.requests(problem)), task.missing()) == (3, {})


def test_real_model(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "held-out").symlink_to(tiny.corpus)
    tokenizer = tokenizers.load(tiny.tokenizer)
    model = StarCoder(StarCoderConfig(tokenizer.vocab_size, 512, n_layer=1, n_head=2, n_embd=32)).eval()
    engine, task = KitEngine(model, tokenizer, "tiny"), LongContext()
    task.window = engine.context_length
    (problem,) = task.problems(tmp_path)
    found = summary(task.scores(problem, list(engine.nats(task.requests(problem)))))

    ids = torch.tensor([[EOD, *tokenizer.encode(problem.prompt)[:512]]])
    with torch.no_grad():
        logits = model(ids[:, :-1])
    for low, high in ((0, 256), (256, 512)):
        direct = Perplexity()(logits[:, low:high], ids[:, 1 + low : 1 + high]).item()
        assert found[f"perplexity {low}-{high}"] == pytest.approx(direct, rel=1e-5)
    assert found.keys() == {"perplexity 0-256", "perplexity 256-512"}
