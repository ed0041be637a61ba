"""What models write, traced: `generate --trace` and `evaluate --trace`."""

import json
import re
from math import log
from pathlib import Path

import pytest

from starcoder import tokenizer as tokenizers
from starcoder.attribution.index import Index, index
from starcoder.attribution.query import tell
from starcoder.errors import UserError
from starcoder.evaluation.evaluate import evaluate
from starcoder.evaluation.memorisation import Memorisation
from starcoder.evaluation.results import Sample, read_report
from starcoder.generation import complete
from starcoder.release.folder import save
from starcoder.tokenizer import EOD
from tests.attribution.corpora import file, files, function, write_corpus
from tests.test_generation import reciter

COPIED = function("bob/tool/main.py/1")


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("memory")
    index(write_corpus(folder / "corpus", [*files("ann", 2, 4), file("bob/tool", "main.py")]), folder / "trace")
    return folder / "trace"


def test_what_a_completion_copies_is_told_below_it(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = tokenizers.train([COPIED] * 9, vocab_size=340)
    script = [*tokenizer.encode(COPIED), EOD]
    save(reciter(script, tokenizer.vocab_size, len(script) + 8), tmp_path / "model", tokenizer)
    options = {"max_new_tokens": len(script), "temperature": 0.0}
    complete(str(tmp_path / "model"), "", trace=trace, **options)  # type: ignore[arg-type]
    completion, _, told = capsys.readouterr().out.partition("\n\nVERBATIM AND RARE: ")
    assert completion == COPIED
    assert "bob/tool/main.py:" in told
    assert re.search(r"\[1\] .*, [\d,]{3,} bits of surprise .*; at one place; 0 bits to the model\n", told)
    complete(str(tmp_path / "model"), "", max_new_tokens=1, stop=["d"], trace=trace)
    assert capsys.readouterr().out.endswith("nothing to trace\n")
    with pytest.raises(UserError, match="no index in"):
        complete("no model is looked for", "", trace=tmp_path)


def test_a_match_is_told_with_the_surprise_of_its_model(trace: Path) -> None:
    told = [(n, -log(2) / 2) for n in range(len(COPIED) + 9)]  # half a bit a character
    (line,) = (line for line in tell(Index.open(trace), "# mine 0\n" + COPIED, told).split("\n") if line[:3] == "[1]")
    assert line.endswith(f"; {(len(COPIED) - 1) / 2:,.0f} bits to the model")


def test_a_completion_that_is_too_long_to_trace_is_cut(trace: Path) -> None:
    sample = Sample("sums", "sums/0", 0, "failed", right=False, prompt="", completion="x" * 300_000)
    assert "0.0% of the characters of 1 completions" in Memorisation(trace).note([sample])


def test_a_report_tells_the_share_that_is_copied(trace: Path, tmp_path: Path) -> None:
    texts = [COPIED if n < 2 else function(f"new {n}") if n < 7 else " " for n in range(8)]
    rows = [{"task_id": f"sums/{n}", "completion": text} for n, text in enumerate(texts)]
    samples = tmp_path / "samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluate(samples=samples, tasks="tests.evaluation.sums:Sums", output=tmp_path / "out", workers=1, trace=trace)
    (task,) = read_report(tmp_path / "out" / "report").tasks
    share = 2 * (len(COPIED) - 1) / sum(map(len, texts[:7]))
    assert f"verbatim in the training data ({trace}): {share:.1%} of the characters of 7 completions" in task.notes[-1]
    assert task.notes[-1].endswith("2 of them verbatim and rare, 0 in part")
    assert "verbatim in the training data" in (tmp_path / "out" / "report" / "report.md").read_text()
    with pytest.raises(UserError, match="no index in"):
        evaluate(samples=samples, tasks="tests.evaluation.sums:Sums", output=tmp_path / "none", trace=tmp_path)
