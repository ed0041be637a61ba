"""The losses of the smoke recipe, written down: whatever changes them is a change of the training itself.

The text has no origin but a formula, and the tokenizer no merges, so that nothing on the machine matters. After a
change that is meant, copy what the failing test prints into `smoke-losses.json`.
"""

import csv
import json
from pathlib import Path

import pytest

from starcoder import tokenizer as tokenizers
from starcoder.corpus.document import Document, write_documents
from starcoder.executors import Execution
from starcoder.training.shards import tokenize
from tests.conftest import ROOT, starcoder

STEPS = 20
GOLDEN = Path(__file__).with_name("smoke-losses.json")


def source(number: int) -> str:
    functions = (
        f"def f{number}_{n}(x, y={n * number}):\n    return x ** {n} % {(n * 7919 + number) % 1009} + y\n"
        for n in range(number % 7 + 3)
    )
    return "\n\n".join(functions)


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    root = tmp_path_factory.mktemp("golden")
    documents = [
        Document("formula", f"f{n}.py", "python", "py", ("MIT",), len(source(n)), source(n)) for n in range(400)
    ]
    (root / "corpus").mkdir()
    write_documents(root / "corpus", "train", documents)
    tokenizer = tokenizers.train([document.content for document in documents], 275)
    tokenizer.save(root / "tokenizer")
    tokenize(root / "corpus", root / "tokenizer", root / "shards", execution=Execution(workers=1))
    options = {
        "data.train": root / "shards",
        "data.validation": "null",
        "data.tokenizer": root / "tokenizer",
        "checkpoint.folder": root / "checkpoints",
        "trainer.max_steps": STEPS,
        "trainer.log_every_n_steps": 1,
        "trainer.logger.init_args.save_dir": root / "metrics",
    }
    recipe = ROOT / "recipes" / "smoke.yaml"
    starcoder(root, "fit", f"--config={recipe}", *(f"--{key}={value}" for key, value in options.items()), check=True)
    with (root / "metrics" / "version_0" / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]


def test_the_losses_are_those_written_down(losses: list[float]) -> None:
    """Within what another processor's order of summation does."""
    assert len(losses) == STEPS
    assert losses == pytest.approx(json.loads(GOLDEN.read_text()), rel=1e-4), json.dumps(losses)
