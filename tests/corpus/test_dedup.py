import re
import subprocess
import sys
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from starcoder.corpus.dedup import drop_exact_duplicates, jaccard, near_duplicates, shingles, signatures
from starcoder.corpus.document import Document
from starcoder.corpus.sources import find_repositories


@cache
def windows(text: str) -> set[tuple[str, ...]]:
    """The reference: the set of five-word windows as tuples."""
    words = re.findall(r"[A-Za-z0-9_]+", text)
    return {tuple(words[start : start + 5]) for start in range(len(words) - 4)}


def similarity(a: str, b: str) -> float:
    common = len(windows(a) & windows(b))
    return common / max(len(windows(a)) + len(windows(b)) - common, 1)


@pytest.fixture(scope="module")
def near_copies() -> tuple[list[str], list[str]]:
    """Real near-duplicates: two distributions that ship nearly the same files, 60 of each."""
    by_name = {repository.name: repository for repository in find_repositories()}
    texts = []
    for name, folder in (("lightning", "lightning/pytorch"), ("pytorch-lightning", "pytorch_lightning")):
        paths = [path for path in by_name[name].paths if path.startswith(folder) and path.endswith(".py")]
        texts.append([(by_name[name].root / path).read_text() for path in paths[:60]])
    return texts[0], texts[1]


def test_near_duplicates_equal_brute_force_on_real_files(near_copies: tuple[list[str], list[str]]) -> None:
    held_out, train = near_copies
    exact = {(a, b): similarity(held_out[a], train[b]) for a, b in product(range(60), range(60))}
    found = {(near.query, near.match): near.similarity for near in near_duplicates(held_out, train)}
    assert all(value >= 0.7 and value == pytest.approx(exact[pair]) for pair, value in found.items())
    best = {query: max(exact[query, match] for match in range(60)) for query in range(60)}
    # LSH finds a pair with probability 1 - (1 - J^10)^25: 0.994 at J = 0.85, 0.51 at 0.7.
    certain = {query for query, value in best.items() if value >= 0.85}
    assert len(certain) > 30
    assert certain <= {query for query, _ in found} <= {query for query, value in best.items() if value >= 0.7}


def test_threshold_decides(near_copies: tuple[list[str], list[str]]) -> None:
    held_out, train = near_copies
    found = {near.query: near.similarity for near in near_duplicates(held_out, train, 0.95)}
    assert found
    assert min(found.values()) >= 0.95
    assert len(found) < len(list(near_duplicates(held_out, train, 0.7)))


def test_shingles_and_jaccard_equal_sets_of_words() -> None:
    a = "def f(x, y):\n    return x + y  # the sum of x and y\n" * 3
    b = a.replace("sum", "difference", 1) + "print(f(1, 2), f(3, 4))"
    assert len(np.unique(shingles(a))) == len(windows(a))
    assert jaccard(shingles(a), shingles(b)) == pytest.approx(similarity(a, b))
    assert len(shingles("only four words here")) == 0
    assert jaccard(shingles(""), shingles("")) == 0
    assert shingles("a b c d e") != shingles("e d c b a")


def test_indentation_and_punctuation_do_not_matter() -> None:
    a = "for item in items:\n    total = total + item.price * item.count\n"
    assert jaccard(shingles(a), shingles(a.replace("    ", "\t\t").replace(" + ", "+"))) == 1


def test_signatures_estimate_the_similarity(near_copies: tuple[list[str], list[str]]) -> None:
    """A place of two signatures agrees with probability J, so the share of 256 places is J ± 0.03; here 900 pairs."""
    held_out, train = (signatures(texts[:30]) for texts in near_copies)
    assert held_out.shape == (30, 256)
    errors = [
        (held_out[a] == train[b]).mean() - similarity(near_copies[0][a], near_copies[1][b])
        for a, b in product(range(30), range(30))
    ]
    assert abs(np.mean(errors)) < 0.01
    assert np.sqrt(np.mean(np.square(errors))) < 0.035


def test_short_texts_are_nobodys_near_duplicate() -> None:
    assert list(near_duplicates(["", "a b", "x = 1"], ["", "a b", "x = 1"])) == []
    assert list(near_duplicates([], ["a b c d e f"])) == list(near_duplicates(["a b c d e f"], [])) == []


def test_signatures_are_the_same_in_every_process() -> None:
    program = "from starcoder.corpus.dedup import signatures; print(signatures(['a b c d e f g']).sum(dtype='u8'))"
    root = Path(__file__).parents[2]
    outputs = {
        subprocess.check_output([sys.executable, "-c", program], cwd=root, env={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    }
    assert outputs == {f"{signatures(['a b c d e f g']).sum(dtype='u8')}\n".encode()}


def test_exact_duplicates_name_the_first_and_pass_rejected_documents_on() -> None:
    def document(path: str, content: str) -> Document:
        return Document("r", path, "python", "py", ("MIT",), len(content), content)

    rejected = document("0.py", "a").reject("empty")
    documents = [rejected, document("1.py", "a"), document("2.py", "b"), document("3.py", "a"), document("4.py", "a")]
    out = list(drop_exact_duplicates(documents))
    assert out[:3] == documents[:3]
    assert [(d.rejection and d.rejection.detail, d.content) for d in out[3:]] == [("r/1.py", ""), ("r/1.py", "")]
