"""What the rules find and redaction replaces in the standard library, whose keys and addresses are nobody's secrets.

Counts per label, tests apart from the rest, since they are full of made-up addresses; then, outside tests, each key and
IP address that would be replaced (`--all`: each that is found), a line each. Keys are masked. MB/s are per second of
CPU, of the whole way from text to replacements.

Run by `make bench`, or `python -m tests.benchmarks.bench_pii_stdlib [--all]`.
"""

import argparse
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from starcoder.pii.detectors import RegexDetector
from starcoder.pii.entity import Entity
from starcoder.pii.findings import findings_of, mask
from starcoder.pii.redaction import redactable

STDLIB = Path(sysconfig.get_path("stdlib"))
TESTS = {"test", "tests", "idle_test"}
LISTED = {"KEY", "IP_ADDRESS"}


@dataclass
class Part:
    """What was seen in the tests, or in the rest."""

    files: int = 0
    found: Counter[str] = field(default_factory=Counter)
    replaced: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)


def sources() -> Iterator[tuple[Path, str]]:
    """The library's modules, by their paths in it, without what is installed beside them."""
    for file in sorted(STDLIB.rglob("*.py")):
        path = file.relative_to(STDLIB)
        if "site-packages" not in path.parts:
            yield path, file.read_bytes().decode("utf-8", "replace")


def tell(path: Path, text: str, entities: list[Entity]) -> Iterator[str]:
    """File, line, label and value of keys and addresses; a key's value is masked."""
    listed = [entity for entity in entities if entity.label in LISTED]
    for finding in findings_of(str(path), text, entities, listed, show=True):
        value = mask("KEY", finding.value) if finding.label == "KEY" else finding.value
        yield f"{path}:{finding.line}  {finding.label}  {value}"


def show(title: str, part: Part) -> None:
    print(f"{title}: {part.files:,} files")
    for label in sorted(LISTED | part.found.keys()):
        print(f"  {label:<12}{part.found[label]:>7,} found{part.replaced[label]:>7,} replaced")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="list what redaction spares as well")
    arguments = parser.parse_args()
    tests, rest = Part(), Part()
    size, seconds = 0, 0.0
    detector = RegexDetector()
    detector.detect("")  # so that loading the plugins is not timed
    for path, text in sources():
        start = time.process_time()
        found = detector.detect(text)
        replaced = [entity for entity, _ in redactable(text, found)]
        seconds += time.process_time() - start
        size += len(text.encode())
        part = rest if TESTS.isdisjoint(path.parts[:-1]) else tests
        part.files += 1
        part.found.update(entity.label for entity in found)
        part.replaced.update(entity.label for entity in replaced)
        part.lines += tell(path, text, found if arguments.all else replaced)
    print(f"{STDLIB}: {size / 1e6:.1f} MB, {size / 1e6 / seconds:.1f} MB/s")
    show("tests", tests)
    show("the rest", rest)
    print(f"keys and addresses of the rest, {'found' if arguments.all else 'replaced'}:")
    print("\n".join(rest.lines))


if __name__ == "__main__":
    main()
