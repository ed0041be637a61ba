import json
import pickle
import random
import re
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.corpus import decontamination
from starcoder.corpus.benchmarks import NGRAM, BenchmarkString, BenchmarkStrings, load_benchmarks
from starcoder.corpus.decontamination import COMMON, SHARE, Decontaminator, Match, ngram_hashes
from starcoder.corpus.document import Document, Rejection

PUBLISHED = Path(__file__).parents[2] / "../shared/data"
STATEMENT = (
    "Given the widths of all shelves, return how many of them can hold\na box that is twice as wide as it is high."
)
SOLUTION = "total = 0\n    for w in widths:\n        total += w >= 2\n    return total"


def strings(*texts: str) -> BenchmarkStrings:
    listed = [BenchmarkString(text, f"Set/{i} text", f"Set/{i}") for i, text in enumerate(texts)]
    return BenchmarkStrings(tuple(listed), {"set": len(texts)}, ())


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{i}" for i in range(count)]


TWO = Decontaminator(strings(STATEMENT, SOLUTION))


def test_a_substring_in_any_case() -> None:
    text = f"def f(widths):\n    {SOLUTION.upper()}\n"
    expected = Match("Set/1 text", "substring", "total = 0 for w in widths: total += w >= 2 return total")
    assert TWO.find(text) == expected
    assert TWO.find(text.replace("\n", "\r\n")) == expected
    assert TWO.find(text.replace("+=", "=")) is None


@pytest.mark.parametrize(
    "copy",
    [
        STATEMENT.replace("\n", " "),
        "    # " + STATEMENT.replace("\n", "\n    # "),
        "\n".join(STATEMENT.split()),
        STATEMENT.replace(" ", "\t"),
        json.dumps({"prompt": STATEMENT}),
        json.dumps(json.dumps({"prompt": STATEMENT})),
        STATEMENT.replace(",", " --").replace(".", ""),
        STATEMENT.replace("\n", "\\u000a"),
    ],
)
def test_a_copy_with_another_layout(copy: str) -> None:
    found = TWO.find(f"import os\n\n{copy}\n\nprint(os.name)\n")
    assert found
    assert (found.origin, found.how) == ("Set/0 text", "13-gram share 1.00")
    assert found.excerpt.startswith("Given the widths of all shelves")


def test_reject_reason_names_the_string_and_how_it_was_found() -> None:
    document = Document("owner/name", "x.py", "python", "py", ("MIT",), 0, STATEMENT.replace("\n", "\n# "))
    excerpt = "Given the widths of all shelves, return how many of them can hold #"
    assert TWO.reject_reason(document) == Rejection("benchmark content", f"Set/0 text, 13-gram share 1.00: {excerpt}")
    clean = Document("owner/name", "x.py", "python", "py", ("MIT",), 0, "print(1)\n")
    assert TWO.reject_reason(clean) is None


@pytest.mark.parametrize("kept", range(NGRAM, 33))
def test_share_is_that_of_the_windows(kept: int) -> None:
    """The first `kept` of 33 words have kept - 12 of the 21 windows."""
    words = numbered("word", 33)
    found = Decontaminator(strings(" ".join(words))).find("\n".join(words[:kept]))
    share = (kept - NGRAM + 1) / (33 - NGRAM + 1)
    expected = Match("Set/0 text", f"13-gram share {share:.2f}", " ".join(words[:NGRAM])[:80])
    assert found == (expected if share >= SHARE else None)


def test_the_string_with_the_largest_share_is_told() -> None:
    """Words 0-32 and 20-42 of a text that holds words 0-39: all of the first, 8 of 11 windows of the second."""
    words = numbered("word", 43)
    both = Decontaminator(strings(" ".join(words[20:]), " ".join(words[:33])))
    assert (both.find("\t".join(words[:40])) or Match("", "", "")).origin == "Set/1 text"
    assert (both.find("\t".join(words[15:40])) or Match("", "", "")).how == "13-gram share 0.73"


def test_windows_of_many_problems_are_boilerplate() -> None:
    """What is in one problem more than the limit is none's own; strings of one problem may have it in common.

    Of 44 words the last 24 are the harness: without its 12 windows 20 are left, 8 of them in the first 20 words.
    """
    harness = " ".join(numbered("harness", 24))
    own = [" ".join(numbered(f"own{i}_", 20)) for i in range(COMMON + 1)]
    texts = [f"{text} {harness}" for text in own]
    copy = harness.replace(" ", "\n")
    assert Decontaminator(strings(*texts)).find(copy) is None
    assert Decontaminator(strings(*texts[:COMMON])).find(copy) is not None
    variants = [BenchmarkString(text, f"Set/0 variant {i}", "Set/0") for i, text in enumerate(texts)]
    assert Decontaminator(BenchmarkStrings(tuple(variants), {}, ())).find(copy) is not None
    assert (Decontaminator(strings(*texts)).find(own[3].replace(" ", "\n")) or Match("", "", "")).how.endswith("0.40")


def test_numbers_count_only_where_there_is_nothing_else() -> None:
    table = " ".join(map(str, range(30)))
    words = " ".join(numbered("word", 20))
    assert Decontaminator(strings(f"{words} {table}")).find(table.replace(" ", ", ")) is None
    assert Decontaminator(strings(table)).find(table.replace(" ", ", ")) is not None


def test_strings_too_short_for_a_window_match_as_they_are() -> None:
    short = Decontaminator(strings("return sorted(widths)[1:]", "für alle", "數字"))
    assert (short.find("x = 1; RETURN sorted(widths)[1:]") or Match("", "", "")).origin == "Set/0 text"
    assert (short.find("FÜR ALLE\n") or Match("", "", "")).origin == "Set/1 text"
    assert (short.find("# 數字") or Match("", "", "")).origin == "Set/2 text"
    assert short.find("return sorted(widths)  [1:]") is None
    assert short.find("") is None


def test_no_strings_find_nothing() -> None:
    assert Decontaminator(strings()).find(STATEMENT) is None


def test_pickles_as_the_strings_alone() -> None:
    assert TWO.find(SOLUTION)
    data = pickle.dumps(TWO)
    assert len(data) < 2000
    assert pickle.loads(data).find(SOLUTION) == TWO.find(SOLUTION)


_TEXTS = st.text(alphabet=st.sampled_from("aBß é\n"), max_size=30)


@given(st.lists(_TEXTS.filter(str.strip), min_size=1, max_size=4), _TEXTS)
def test_short_strings_equal_the_loop_of_the_released_code(texts: list[str], text: str) -> None:
    expected = any(string.lower() in text.lower() for string in texts)
    assert (Decontaminator(strings(*texts)).find(text) is not None) == expected


def windows(text: str) -> list[tuple[str, ...]]:
    """The windows of 13 words by an independent way: regular expressions."""
    words = re.findall(r"[a-z0-9_]+", re.sub(r"(?i)\\(?:[nrt]|u.{4})", " ", text).lower(), re.ASCII)
    return [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


_WORDS = st.sampled_from(["a", "b", "ab", "A", "_", "0", "é", "-", "\\n", "\\u00e9", "\\", "\0", "x" * 40])
_GAPS = st.sampled_from([" ", "\n    ", ", ", "", "§"])


@settings(max_examples=100)
@given(st.lists(st.tuples(_WORDS, _GAPS), max_size=80).map(lambda parts: "".join(a + b for a, b in parts)))
def test_hashes_are_equal_where_the_windows_are(text: str) -> None:
    expected = windows(text)
    hashes = ngram_hashes(text).tolist()
    assert len(hashes) == len(expected)
    assert len(set(zip(hashes, expected, strict=True))) == len(set(hashes)) == len(set(expected))


@pytest.mark.parametrize("block", [2**10, 2**11, 2**15])
def test_hashes_do_not_depend_on_the_place(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even at the borders of the blocks that are hashed at a time."""
    rng = random.Random(block)
    words = ["".join(rng.choices("abcdefg_0", k=rng.randint(1, 30))) for _ in range(4000)]
    alone = np.concatenate([ngram_hashes(" ".join(words[i : i + NGRAM])) for i in range(len(words) - NGRAM + 1)])
    monkeypatch.setattr(decontamination, "_BLOCK", block)
    np.testing.assert_array_equal(ngram_hashes("\n".join(words)), alone)


@pytest.fixture(scope="module")
def published() -> Decontaminator:
    if not (PUBLISHED / "humaneval").is_dir():
        pytest.skip(f"the published benchmarks are not in {PUBLISHED}")
    return Decontaminator(load_benchmarks(PUBLISHED))


def library(count: int) -> list[str]:
    """Files of Python's standard library, in random order."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [file for file in root.rglob("*.py") if "site-packages" not in file.parts]
    random.Random(0).shuffle(files := sorted(files))
    return [file.read_bytes().decode(errors="replace") for file in files[:count]]


def test_a_thousand_files_of_the_standard_library_are_clean(published: Decontaminator) -> None:
    assert [found for text in library(1000) if (found := published.find(text))] == []


LAYOUTS: dict[str, Callable[[str], str]] = {
    "verbatim": lambda text: text,
    "upper case": str.upper,
    "indented": lambda text: "        " + text.replace("\n", "\n        "),
    "comment": lambda text: "# " + text.replace("\n", "\n# "),
    "one line": lambda text: " ".join(text.split()),
    "narrow": lambda text: "\n".join(text.split()),
    "JSON": json.dumps,
    "DOS": lambda text: text.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_planted_string_is_found(published: Decontaminator, layout: str) -> None:
    """One in 160 of all; short ones need to be as they are, in any case."""
    host = library(1)[0][:2000]
    exact = layout in ("verbatim", "upper case")
    planted = [s for s in published.benchmarks.strings[::160] if exact or len(windows(s.text)) > 0]
    assert len(planted) > 150
    missed = [s.origin for s in planted if not published.find(f"{host}\n{LAYOUTS[layout](s.text)}\n{host}")]
    assert missed == []
