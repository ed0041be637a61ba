"""The page of a report: one HTML file that needs nothing else.

Prompts, completions and outputs come from strangers and from programs that they wrote. They are escaped; no script but
the page's own can run, because the page allows that one by its hash; and what does not print is written as its escape.
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from typing import Any

from starcoder.evaluation import report, tables
from starcoder.evaluation.results import Results, Sample
from starcoder.pages import page_environment
from starcoder.text import visible

OF_EACH_VERDICT = 20
"""Samples of each task and verdict at most."""
SAMPLES = 400
"""Samples of the page at most, unless there are more verdicts than that."""
CHARACTERS = 4000
"""Length at which texts are cut, at most."""
PAGE_CHARACTERS = 1_500_000
"""Length of all texts together, at most; in HTML, a character takes up to five."""
_TEXTS = ("prompt", "suffix", "completion", "expected", "stdout", "stderr", "detail")
_ENDS = ("prompt", "stderr")  # the end is what matters: the text before the gap, the exception


def render(results: Results, samples: Iterable[Sample]) -> str:
    """Return the page as HTML; the parameters are those of `write_report`."""
    chosen = choose(samples)
    characters = _fair_length([len(text) for sample in chosen for text in _texts(sample, CHARACTERS).values()])
    environment = page_environment("starcoder.evaluation")
    environment.filters["plain"] = report.plain
    return environment.get_template("evaluation.html").render(
        results=results,
        report=report,
        tables=tables,
        titles={task.name: task.title for task in results.tasks},
        samples=[replace(sample, **_texts(sample, characters)) for sample in chosen],
        most_of_each=OF_EACH_VERDICT,
        characters=characters,
    )


def choose(samples: Iterable[Sample]) -> list[Sample]:
    """Random samples of each task and verdict, wrong ones first within a task; the same ones in whatever order."""
    heaps: dict[tuple[str, bool, str], list[tuple[int, int, Sample]]] = {}
    numbers = count()
    for sample in samples:
        heap = heaps.setdefault((sample.task, sample.right, sample.verdict), [])
        push = heapq.heappush if len(heap) < OF_EACH_VERDICT else heapq.heappushpop
        push(heap, (-_random(sample), next(numbers), sample))
    most = max(1, SAMPLES // max(1, len(heaps)))
    return [sample for key in sorted(heaps) for _, _, sample in heapq.nlargest(most, heaps[key])]


def _random(sample: Sample) -> int:
    name = f"{sample.task}\0{sample.problem}\0{sample.sample}"
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest())


def _fair_length(lengths: list[int]) -> int:
    """Where to cut texts of these lengths so that all fit the page: short ones leave their room to the long ones."""
    room = PAGE_CHARACTERS
    for place, length in enumerate(sorted(lengths)):
        share = room // (len(lengths) - place)
        if length > share:
            return min(share, CHARACTERS)
        room -= length
    return CHARACTERS


def _texts(sample: Sample, characters: int) -> dict[str, Any]:
    return {name: _cut(getattr(sample, name), characters, keep_end=name in _ENDS) for name in _TEXTS}


def _cut(text: str, characters: int, keep_end: bool) -> str:
    """The beginning or the end of a text, as it prints, and how many characters are left out."""
    kept = visible(text[-characters:] if keep_end else text[:characters], keep="\n\t")
    left_out = max(0, len(text) - characters)
    if len(kept) > characters:
        kept = kept[-characters:] if keep_end else kept[:characters]
        left_out = max(1, left_out)
    if not left_out:
        return kept
    told = f"[… at least {left_out:,} characters left out …]"
    return f"{told}\n{kept}" if keep_end else f"{kept}\n{told}"
