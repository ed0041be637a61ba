"""Keys: speed, equality of the prefilter with a full scan, and planted secrets, beside detect-secrets itself.

The files are those of the installed packages and the standard library. detect-secrets runs with the same plugins, the
same filters and its own gibberish filter, through its own scan of a file. Run by `make bench`, or
`python -m tests.benchmarks.bench_pii_keys [--characters N] [--files N] [--planted N]`.
"""

import argparse
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random

from starcoder.pii.entity import Entity
from starcoder.pii.keys import KeyDetector
from starcoder.pii.prefilter import LONGEST, all_plugins, plugin_findings
from tests.benchmarks.bench_tokenizer import SUFFIXES, code
from tests.pii.secrets import secret_line

_FILTERS = ("is_potential_uuid", "is_likely_id_string", "is_templated_secret", "is_sequential_string")


def files(count: int, seed: int) -> list[Path]:
    """Source files of the standard library and the installed packages."""
    found = [file for root in ("stdlib", "purelib") for file in Path(sysconfig.get_path(root)).rglob("*")]
    return Random(seed).sample(sorted(file for file in set(found) if file.suffix in SUFFIXES), count)


Found = set[tuple[int, str, str]]


def full_scan(text: str) -> Found:
    """Line, plugin and value of what the plugins' own `analyze_line` returns for every line of ordinary length."""
    return {
        (number, name, secret.secret_value or "")
        for number, line in enumerate(text.split("\n"))
        if len(line) <= LONGEST
        for name, plugin in all_plugins().items()
        for secret in plugin.analyze_line("", line.rstrip())
    }


def prefiltered(text: str) -> tuple[Found, int]:
    """The same from the prefilter, and the number of findings on longer lines."""
    lengths = [len(line) for line in text.split("\n")]
    findings = [(text.count("\n", 0, f.start), f) for f in plugin_findings(text)]
    found = {(number, type(f.plugin).__name__, f.value) for number, f in findings if lengths[number] <= LONGEST}
    return found, sum(lengths[number] > LONGEST for number, _ in findings)


def detect_secrets(path: Path) -> set[str]:
    """The values that detect-secrets' own scan of a file finds; call inside of `settings`."""
    from detect_secrets.core.scan import scan_file

    return {secret.secret_value or "" for secret in scan_file(str(path))}


def settings() -> dict[str, object]:
    """The paper's plugins and filters for detect-secrets, with its gibberish filter."""
    return {
        "plugins_used": [{"name": name} for name in all_plugins()],
        "filters_used": [
            *({"path": f"detect_secrets.filters.heuristic.{name}"} for name in _FILTERS),
            {"path": "detect_secrets.filters.gibberish.should_exclude_secret", "limit": 3.7},
        ],
    }


def planted(count: int, seed: int) -> tuple[list[str], list[list[tuple[int, int, str]]]]:
    """Real files with three secrets each on lines of their own, and where these are."""
    random = Random(seed)
    texts, places = [], []
    for text in code(count * 20_000, seed)[:count]:
        lines, gold = text[:30_000].split("\n"), []
        inserted = {random.randrange(len(lines)): secret_line(random) for _ in range(3)}
        out = ""
        for number, line in enumerate(lines):
            if number in inserted:
                kind, secret, secret_text = inserted[number]
                start = len(out) + secret_text.index(secret)
                gold.append((start, start + len(secret), kind))
                out += secret_text + "\n"
            out += line + "\n"
        texts.append(out)
        places.append(gold)
    return texts, places


def hit(found: Entity, gold: tuple[int, int, str]) -> bool:
    """Whether the two share 80 % of each, as the paper counts."""
    shared = min(found.end, gold[1]) - max(found.start, gold[0])
    return shared >= 0.8 * max(found.end - found.start, gold[1] - gold[0])


def located(text: str, values: set[str]) -> list[Entity]:
    """The first place of each value."""
    places = ((text.find(value), value) for value in values if value)
    return [Entity(place, place + len(value), "KEY") for place, value in places if place >= 0]


def judge(name: str, texts: list[str], places: list[list[tuple[int, int, str]]], found: list[list[Entity]]) -> None:
    """Print precision, recall and the recall of each format."""
    recalls: defaultdict[str, list[bool]] = defaultdict(list)
    right = 0
    for gold, entities in zip(places, found, strict=True):
        right += sum(any(hit(entity, one) for one in gold) for entity in entities)
        for one in gold:
            recalls[one[2]].append(any(hit(entity, one) for entity in entities))
    total, hits = sum(map(len, found)), sum(map(sum, recalls.values()))
    print(f"{name}: precision {right}/{total}, recall {hits}/{sum(map(len, recalls.values()))}")
    print("   ", ", ".join(f"{kind} {sum(values)}/{len(values)}" for kind, values in sorted(recalls.items())))


def rate(name: str, texts: list[str], detect: Callable[[str], object]) -> None:
    """Print MB a CPU second."""
    start = time.process_time()
    for text in texts:
        detect(text)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{name}: {size / (time.process_time() - start):.2f} MB/s over {size:.1f} MB")


def compare(count: int) -> None:
    """Print how far prefiltered findings equal a full scan's, and where they differ."""
    lines = kept = beyond = differences = 0
    for file in files(count, seed=1):
        text = file.read_bytes().decode("utf-8", "replace")
        full, (fast, longer) = full_scan(text), prefiltered(text)
        lines, kept, beyond = lines + text.count("\n") + 1, kept + len(full), beyond + longer
        differences += len(full ^ fast)
        for number, name, value in full ^ fast:
            print(f"differs: {file}:{number + 1} {name} {value!r}")
    print(f"full scan and prefilter on {count:,} files, {lines:,} lines: {kept:,} findings, {differences} differences")
    print(f"    and {beyond:,} findings of the prefilter on lines above {LONGEST:,} characters")


def against_library(count: int, seed: int) -> None:
    """Print rate, precision and recall of detect-secrets and of ours on planted secrets."""
    from detect_secrets.filters.gibberish import initialize
    from detect_secrets.settings import transient_settings

    texts, places = planted(count, seed)
    judge("ours", texts, places, KeyDetector().detect_all(texts))
    rate("ours, planted", texts, KeyDetector().detect)
    with tempfile.TemporaryDirectory() as folder, transient_settings(settings()):
        initialize()
        paths = [Path(folder, f"{number}.txt") for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
        start = time.process_time()
        values = [detect_secrets(path) for path in paths]
        size = sum(len(text.encode()) for text in texts) / 1e6
        print(f"detect-secrets, planted: {size / (time.process_time() - start):.2f} MB/s over {size:.1f} MB")
    judge("detect-secrets", texts, places, list(map(located, texts, values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, default=50_000_000)
    parser.add_argument("--files", type=int, default=2500)
    parser.add_argument("--planted", type=int, default=300)
    arguments = parser.parse_args()
    rate("ours", code(arguments.characters, seed=4), KeyDetector().detect)
    against_library(arguments.planted, seed=5)
    compare(arguments.files)


if __name__ == "__main__":
    main()
