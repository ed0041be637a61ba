"""`starcoder pii benchmark`: precision, recall and F1 of detectors on labelled texts, beside the paper's Table 8."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starcoder.errors import UserError
from starcoder.pii.detectors import RegexDetector, open_detector
from starcoder.pii.entity import Detector, Entity
from starcoder.pii.examples import SCORED, Example, read_examples
from starcoder.pii.findings import mask, masked
from starcoder.pii.matching import Score, Scores, judge, score
from starcoder.storage import atomic_file
from starcoder.text import visible

PAPER: dict[str, dict[str, tuple[float, float, float]]] = {
    "regex": {
        "EMAIL": (96.20, 97.47, 96.83),
        "IP_ADDRESS": (71.29, 87.71, 78.65),
        "KEY": (3.62, 49.15, 6.74),
    },
    "StarPII": {
        "EMAIL": (97.73, 98.94, 98.15),
        "IP_ADDRESS": (90.10, 93.86, 91.94),
        "KEY": (62.38, 80.81, 70.41),
        "NAME": (86.45, 97.38, 91.59),
        "USERNAME": (52.20, 74.81, 61.49),
        "PASSWORD": (70.94, 95.96, 81.57),
    },
}
"""Precision, recall and F1 in per cent of the paper's Table 8: the rules, and the model after pseudo-labels."""

_AROUND = 40


@dataclass(frozen=True)
class Result:
    """What one detector did on a benchmark.

    Attributes:
        name: Of the detector.
        found: Its entities in each text.
        scores: Its counts in each text.
        seconds: How long it took.
    """

    name: str
    found: list[list[Entity]]
    scores: list[Scores]
    seconds: float

    @property
    def total(self) -> Scores:
        """The counts of all texts."""
        return sum(self.scores, Scores())


def benchmark(
    data: Path | None = None,
    model: str | None = None,
    corpus: Path = Path("build/smoke/corpus"),
    examples: int = 2000,
    seed: int = 0,
    device: str = "auto",
    output: Path | None = None,
    errors: Path | None = None,
    show: bool = False,
) -> None:
    """Measure the rules, a NER model and both together: a hit overlaps 80 % of the finding and of the label (§4.1).

    Args:
        data: Parquet or JSON lines in the columns of the public PII data set (text, fragments). Without it, entities
            are planted in files of the corpus, by templates and names that no training example has.
        model: Folder or Hub repository of a NER model, such as `starcoder pii train` writes or bigcode/starpii.
        corpus: Corpus to plant in.
        examples: How many planted examples.
        seed: Seed of what is planted.
        device: Where the model runs: cpu, cuda, or auto.
        output: JSON file to write the counts to.
        errors: File to write all that was missed or wrongly found to, a line each; all values in it are masked.
        show: Write values there as they are.

    Raises:
        UserError: Data, corpus or model cannot be read, or hold nothing to measure.
    """
    chosen = read_examples(data) if data else list(_planted(corpus, examples, seed))
    if not any(example.entities for example in chosen):
        raise UserError(f"{data or corpus} has nothing to find: no label in {len(chosen):,} texts")
    size = sum(len(example.text.encode(errors="surrogatepass")) for example in chosen)
    results = [measure(detector, chosen) for detector in _detectors(model, device)]
    print(f"{len(chosen):,} texts, {size / 1e6:,.2f} MB, {sum(len(example.entities) for example in chosen):,} entities")
    print("\n".join(table(results)))
    for result in results:
        print(f"{result.name}: {size / 1e6 / result.seconds:,.2f} MB/s")
    if output:
        with atomic_file(output) as partial:
            partial.write_text(json.dumps(_report(results, size), indent=1) + "\n", encoding="utf-8")
        print(f"wrote {output}")
    if errors:
        with atomic_file(errors) as partial:
            partial.write_text("".join(f"{line}\n" for line in tell_errors(chosen, results, show)), encoding="utf-8")
        print(f"wrote {errors}")


def measure(detector: Detector, examples: Sequence[Example]) -> Result:
    """Run a detector over labelled texts and compare."""
    begin = time.perf_counter()
    found = detector.detect_all([example.text for example in examples])
    seconds = time.perf_counter() - begin
    return Result(detector.name, found, list(map(score, examples, found)), seconds)


def table(results: Sequence[Result]) -> Iterator[str]:
    """Precision, recall and F1 in per cent: a row for each label, a column for each detector and the paper's."""
    totals = {result.name: result.total for result in results}
    names = [*totals, *(f"paper: {name}" for name in PAPER)]
    yield "  ".join([f"{'label':<10}", f"{'there':>6}", *(f"{name:>20}" for name in names)])
    for label in (*SCORED, "all"):
        scores = [total.by_label.get(label, total.total) for total in totals.values()]
        there = scores[0].hits + scores[0].missed
        cells = [*map(_cell, scores), *(_published(name, label) for name in PAPER)]
        yield "  ".join([f"{label:<10}", f"{there:>6,}", *(f"{cell:>20}" for cell in cells)])


def numbers(scores: Scores) -> dict[str, dict[str, float]]:
    """Counts and measures of each label, for JSON."""
    counts, measures = ("hits", "extra", "missed"), ("precision", "recall", "f1")
    return {
        label: {name: getattr(score, name) for name in counts}
        | {name: round(getattr(score, name), 4) for name in measures}
        for label, score in scores.by_label.items()
    }


def tell_errors(examples: Sequence[Example], results: Sequence[Result], show: bool) -> Iterator[str]:
    """A line for each entity that was missed and each finding that is none, with what stands around it."""
    for result in results:
        for example, found in zip(examples, result.found, strict=True):
            outcome = judge(example, found)
            hidden = [] if show else _merged([*example.fragments, *found])
            for kind, entities in (("missed", outcome.missed), ("extra", outcome.extra)):
                for entity in entities:
                    context = _context(example.text, entity, hidden)
                    yield f"{result.name}: {kind} {entity.label} {example.kind} {context}"


def _merged(entities: Iterable[Entity]) -> list[Entity]:
    """The entities with those that overlap made one, sorted."""
    merged = list[Entity]()
    for entity in sorted(entities):
        if merged and entity.start < merged[-1].end:
            merged[-1] = replace(merged[-1], end=max(entity.end, merged[-1].end))
        else:
            merged.append(entity)
    return merged


def _context(text: str, entity: Entity, hidden: Sequence[Entity]) -> str:
    value = text[entity.start : entity.end]
    before = masked(text, max(0, entity.start - _AROUND), entity.start, hidden)
    after = masked(text, entity.end, entity.end + _AROUND, hidden)
    return f"{before}[[{mask(entity.label, value) if hidden else visible(value)}]]{after}"


def _cell(score: Score) -> str:
    return f"{100 * score.precision:.1f}/{100 * score.recall:.1f}/{100 * score.f1:.1f}"


def _published(name: str, label: str) -> str:
    return "/".join(f"{value:.1f}" for value in PAPER[name][label]) if label in PAPER[name] else "–"


def _planted(corpus: Path, count: int, seed: int) -> Iterator[Example]:
    from starcoder.pii.plant.generate import generate

    return generate(corpus, "test", count, seed)


def _detectors(model: str | None, device: str) -> Iterator[Detector]:
    yield RegexDetector()
    if model:
        from starcoder.pii.ner import NerDetector

        yield NerDetector.open(model, device)
        yield open_detector(model, device)


def _report(results: Sequence[Result], size: int) -> dict[str, Any]:
    return {
        result.name: {
            "megabytes_per_second": round(size / 1e6 / result.seconds, 3),
            "labels": numbers(result.total),
        }
        for result in results
    }
