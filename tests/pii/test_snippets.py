import itertools
import json
from collections import Counter

from starcoder.pii.examples import CATEGORIES
from tests.pii.snippets import LABELS, load

ROWS = [json.loads(line) for line in LABELS.read_text(encoding="utf-8").splitlines()]


def test_at_least_300_snippets_are_labelled_each_once() -> None:
    assert [row["id"] for row in ROWS] == list(range(len(ROWS)))
    assert len({row["sha256"] for row in ROWS}) == len(ROWS) >= 300


def test_labels_are_of_the_rules_within_the_text_and_apart() -> None:
    found, missing = load()
    print(f"{len(missing)} snippets are of other versions of their packages")
    assert len(found) > 100
    for snippet in found:
        places = sorted(tuple(fragment["position"]) for fragment in snippet.fragments)
        assert all(0 <= start < end <= len(snippet.text) for start, end in places)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(places))


def test_every_category_of_the_rules_that_is_scored_occurs() -> None:
    counts = Counter(fragment["category"].removesuffix("_LICENSE") for row in ROWS for fragment in row["fragments"])
    assert set(counts) <= set(CATEGORIES)
    assert min(counts[label] for label in ("NAME", "EMAIL", "USERNAME", "KEY", "IP_ADDRESS", "PASSWORD")) >= 10
