"""Near-deduplication beside its peers: the speed of MinHash signatures, and which duplicates are found.

Signatures take turns in one run and are measured in CPU seconds. The pairs are real files beside changed copies, and
their labels the true Jaccard similarities. datatrove runs on words between spaces, and as it is by default where spaCy
and xxhash are installed (`pip install spacy 'xxhash<4'`).

Run by `make bench`, or `python -m tests.benchmarks.bench_dedup [--megabytes N] [--rounds N] [--pairs N]`.
"""

import argparse
import hashlib
import re
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from starcoder.corpus.dedup import THRESHOLD, shingles, signatures, stars, windows
from tests.benchmarks.bench_corpus import show_rates
from tests.benchmarks.bench_tokenizer import code, measure
from tests.corpus.pairs import KINDS, Pair, candidates, chains, labelled_pairs, true_similarity, verified

_PRIME = np.uint64(2**61 - 1)
_TOGETHER = 64  # texts in a call of our signature function


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=100)
    arguments = parser.parse_args()
    texts = code(arguments.megabytes * 10**6, seed=1)
    show_rates("MinHash signatures", measure(signers(texts), arguments.rounds))
    pairs = labelled_pairs(arguments.pairs)
    show_quality(pairs)
    show_clusters(sorted({text for pair in pairs for text in (pair.a, pair.b)}))


def signers(texts: list[str]) -> dict[str, Callable[[], int]]:
    """Ways to make signatures; the slower a way, the fewer texts it gets."""

    def ours() -> int:
        for start in range(0, len(texts), _TOGETHER):
            signatures([windows(text) for text in texts[start : start + _TOGETHER]])
        return _size(texts)

    contenders = {"ours": ours, "the original's way": _over(texts[::8], original_signature)}
    for name, step in datatrove_steps().items():
        contenders[name] = _over(texts[::16], partial(datatrove_signature, step))
    return contenders


def _over(texts: Sequence[str], sign: Callable[[str], object]) -> Callable[[], int]:
    def run() -> int:
        for text in texts:
            sign(text)
        return _size(texts)

    return run


def _size(texts: Sequence[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def _permutations(count: int) -> npt.NDArray[np.uint64]:
    draw = np.random.RandomState(42)
    least = (1, 0)
    return np.array([[draw.randint(low, _PRIME, dtype=np.uint64) for low in least] for _ in range(count)], np.uint64).T


_FACTORS, _SUMMANDS = _permutations(256)


def original_signature(text: str) -> npt.NDArray[np.uint64]:
    """The released script's way: windows of five tokens as strings, four bytes of their SHA-1, 256 permutations."""
    tokens = re.split("[^A-Za-z0-9_]", text)
    grams = {" ".join(tokens[start : start + 5]) for start in range(max(1, len(tokens) - 4))}
    hashes = [int.from_bytes(hashlib.sha1(gram.encode()).digest()[:4], "little") for gram in grams]
    permuted = np.array(hashes, np.uint64)[:, None] * _FACTORS + _SUMMANDS
    return np.asarray((permuted % _PRIME & np.uint64(2**32 - 1)).min(axis=0))


class _Split(WordTokenizer):  # type: ignore[misc]  # datatrove ships no annotations
    """Words are what stands between spaces."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


def datatrove_steps() -> dict[str, Any]:
    """datatrove's signature step with its own 14 buckets of 8; it writes no file before it runs."""
    nowhere = tempfile.gettempdir()
    sha1 = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    steps = {"datatrove, words at spaces": MinhashDedupSignature(nowhere, sha1, language=_Split())}
    if find_spec("spacy") and find_spec("xxhash"):
        steps["datatrove, default"] = MinhashDedupSignature(nowhere)
    return steps


def datatrove_signature(step: Any, text: str) -> list[list[int]]:
    grams = step.get_shingles(text)
    return list(step.get_signature(grams)) if grams.size else []


def datatrove_match(step: Any, pair: Pair) -> bool:
    a, b = datatrove_signature(step, pair.a), datatrove_signature(step, pair.b)
    return any(x == y for x, y in zip(a, b, strict=False))


def show_quality(pairs: list[Pair]) -> None:
    """Print how many true duplicates each way finds, and how many of its finds are none, by kind of change."""
    found = {"LSH": candidates(pairs), "LSH, verified": verified(pairs)}
    found |= {name: [datatrove_match(step, pair) for pair in pairs] for name, step in datatrove_steps().items()}
    true = [pair.similarity >= THRESHOLD for pair in pairs]
    print(f"\n{'':32}{'true duplicates found, wrong finds':>40}")
    print(f"{'pairs':<18}{'number':>6}{'true':>7}{'mean J':>8}", *(f"{name:>27}" for name in found))
    for group, places in _groups(pairs).items():
        cells = [
            _cell([flags[place] for place in places], [true[place] for place in places]) for flags in found.values()
        ]
        mean = statistics.fmean(pairs[place].similarity for place in places)
        print(f"{group:<18}{len(places):>6}{sum(true[p] for p in places):>7}{mean:>8.2f}", *(f"{c:>27}" for c in cells))


def _groups(pairs: list[Pair]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        groups[pair.kind].append(place)
    for name, least in (("J >= 0.85", 0.85), ("J >= 0.7", 0.7), ("all", 0.0)):
        groups[name] = [place for place, pair in enumerate(pairs) if pair.similarity >= least]
    return {name: groups[name] for name in (*KINDS, "J >= 0.85", "J >= 0.7", "all") if groups[name]}


def _cell(found: list[bool], true: list[bool]) -> str:
    right = sum(f and t for f, t in zip(found, true, strict=True))
    share = f"{right / sum(true):.1%}" if any(true) else "-"
    return f"{share}, {sum(found) - right}"


def show_clusters(texts: list[str]) -> None:
    """Print what is removed of all texts together when each chain keeps one, and when chains are cut into stars."""
    clusters = [[texts[place] for place in places] for places in chains(texts)]
    of_chains = [true_similarity(cluster[0], text) for cluster in clusters for text in cluster[1:]]
    of_stars: list[float] = []
    for cluster in clusters:
        matches = stars([shingles(text) for text in cluster])
        of_stars += [true_similarity(text, cluster[m.kept]) for text, m in zip(cluster, matches, strict=True) if m]
    print(f"\n{len(texts)} texts together, the largest cluster has {max(map(len, clusters))}")
    for name, similarities in (("one of each chain", of_chains), ("stars", of_stars)):
        good = sum(similarity >= THRESHOLD for similarity in similarities)
        print(f"{name:<18} {len(similarities)} removed, {good / len(similarities):.1%} with J >= 0.7 to what stays")


if __name__ == "__main__":
    main()
