"""The PII detectors on the snippets labelled by hand and on planted entities: the rules, the model, and both.

    python -m tests.benchmarks.bench_pii [MODEL]

Without a model it takes the one of `make pii`, which is run first when there is none.
"""

import subprocess
import sys
from pathlib import Path

from starcoder.pii.benchmark import benchmark, measure, table, tell_errors
from starcoder.pii.detectors import RegexDetector, open_detector
from starcoder.pii.entity import Entity
from starcoder.pii.examples import Example
from starcoder.pii.ner import NerDetector
from tests.pii.snippets import load

MODEL = Path("build/pii/starpii")
CORPUS = Path("build/pii/corpus")
ERRORS = Path("build/pii/errors.txt")


def snippets() -> list[Example]:
    """The labelled snippets that the installed packages still have."""
    found, missing = load()
    print(f"{len(found)} labelled snippets; {len(missing)} are of other versions of their packages")
    return [
        Example(
            snippet.text,
            tuple(sorted(Entity(*f["position"], f["category"]) for f in snippet.fragments)),
            snippet.language,
            f"snippet {snippet.id}",
            snippet.id,
        )
        for snippet in found
    ]


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else str(MODEL)
    if not Path(model).exists():
        subprocess.run(["make", "pii"], check=True)
    examples = snippets()
    results = [
        measure(detector, examples) for detector in (RegexDetector(), NerDetector.open(model), open_detector(model))
    ]
    print("\n".join(table(results)))
    ERRORS.parent.mkdir(parents=True, exist_ok=True)
    ERRORS.write_text("".join(f"{line}\n" for line in tell_errors(examples, results, show=True)), encoding="utf-8")
    print(f"errors: {ERRORS}")
    print("\nplanted, held-out repositories, templates and names")
    benchmark(model=model, corpus=CORPUS, examples=1500)


if __name__ == "__main__":
    main()
