"""Membership per CPU second: storing and asking, beside one keyed hash for each window, taking turns in one run.

The training documents of a corpus are stored; its validation documents, whose repositories are not among those, are
asked for, as are random windows for the rate. Run by `make bench`, or
`python -m tests.benchmarks.bench_membership [CORPUS] [--rate R] [--rounds N]`.
"""

import argparse
import hashlib
import random
import statistics
from collections.abc import Callable

from rbloom import Bloom

from starcoder.attribution.membership import Membership
from starcoder.attribution.squeezed import squeeze
from starcoder.corpus.document import read_documents
from tests.benchmarks.bench_tokenizer import measure
from tests.benchmarks.corpora import add_corpus, is_there


def keyed(window: str) -> int:
    """128 bits of BLAKE2, the usual stable hash for this filter."""
    return int.from_bytes(
        hashlib.blake2b(window.encode("utf-8", "surrogatepass"), digest_size=16).digest(), signed=True
    )


def window_by_window(texts: list[str], capacity: int, rate: float) -> int:
    """Windows stored by the plain way."""
    bloom = Bloom(capacity, rate, keyed)
    for text in texts:
        view = " ".join(text.split())
        bloom.update(view[start : start + 50] for start in range(0, len(view) - 49, 50))
    return sum(len(" ".join(text.split())) // 50 for text in texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_corpus(parser)
    parser.add_argument("--rate", type=float, default=1e-6)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not is_there(arguments.corpus):
        return
    stored, others = (
        [document.content for document in read_documents(arguments.corpus, split)] for split in ("train", "validation")
    )
    capacity = sum(map(len, stored)) // 50
    megabytes = sum(len(text.encode()) for text in stored) / 1e6

    def store() -> int:
        membership = Membership.create(capacity, arguments.rate)
        return sum(map(membership.add, stored))

    membership = Membership.create(capacity, arguments.rate)
    windows = sum(map(membership.add, stored))

    def ask(texts: list[str]) -> Callable[[], int]:
        windows = sum(max(0, len(squeeze(text).text) - 49) for text in texts)
        return lambda: windows if all(membership.chains(text) is not None for text in texts) else 0

    whole = "\n".join(others)[:10_000_000]
    draw = random.Random(4)
    places = [(text, draw.randrange(max(1, len(text) - 500))) for text in draw.choices(others, k=2000)]
    contenders = {
        "store, a hash for each window": lambda: window_by_window(stored, capacity, arguments.rate),
        "store": store,
        "ask, 500 characters each time": ask([text[place : place + 500] for text, place in places]),
        f"ask, {len(whole) / 1e6:.0f} MB at once": ask([whole]),
    }
    print(f"{arguments.corpus}: {len(stored):,} documents, {megabytes:.1f} MB, {windows:,} windows")
    for name, values in measure(contenders, arguments.rounds).items():
        rate = statistics.median(values)
        size = f"{rate * megabytes / windows:8.1f} MB/s" if name.startswith("store") else ""
        print(f"{name:<32} {rate / 1e6:6.2f} M windows/s {size}")
    found = sum(bool(membership.chains(text)) for text in others)
    random_rate = membership.measured_rate(2_000_000)
    print(f"asked for {len(others):,} documents of other repositories, {found:,} have a window that is stored")
    print(f"random windows found: {random_rate:.2e} of 2,000,000, asked for: {arguments.rate:g}")


if __name__ == "__main__":
    main()
