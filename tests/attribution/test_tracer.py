import time
from dataclasses import replace
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import pytest

from starcoder import tokenizer as tokenizers
from starcoder.attribution.corpus import Corpus
from starcoder.attribution.index import Index, index
from starcoder.attribution.spans import Place, Span, verify
from starcoder.attribution.tracer import LONGEST, Tracer, least, pieces
from starcoder.attribution.verdict import judge
from starcoder.corpus.document import shards, write_shard
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError
from tests.attribution.corpora import file, files, function, write_corpus

COPIED = function("bob/tool/main.py/1")
TWICE = function("ann/lib0/src/0.py/0")
MINE = function("mine")
HEADED = f"#{'-' * 78}\n# Imports\n#{'-' * 78}\n"
RULED = f"#{'-' * 70}\n# Copyright (c) 2011 Ann Other. All rights reserved.\n# See LICENSE.\n#{'-' * 70}\n"
TRAIN = [
    *files("ann", 2, 4),
    file("bob/tool", "main.py", copies=3, license="Apache-2.0"),
    *files("cat", 2, 4),
    replace(file("dan/mirror", "copy.py"), content=f"x = 1\n\n\n{TWICE}\n{RULED}{HEADED}"),
    replace(file("eve/web", "page.js"), content=f"// a page\n{TWICE}", language="javascript"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traced")
    index(write_corpus(folder / "corpus", TRAIN), folder / "trace")
    return folder / "trace"


@pytest.fixture(scope="module")
def opened(folder: Path) -> Index:
    return Index.open(folder)


def test_copied_code_is_traced_to_its_lines(opened: Index) -> None:
    indented = "".join(f"        {line}\n" for line in COPIED.splitlines())
    text = f"{MINE}\n\nclass Outer:\n{indented}\n\nlast = 1\n"
    found = Tracer(opened).trace(text)
    best = found.matches[0]
    (source,) = best.sources
    assert " ".join(text[best.start : best.end].split()) == " ".join(COPIED.split())
    first = text[: best.start].count("\n") + 1
    assert best.lines == (first, first + COPIED.count("\n") - 1)
    assert (source.repository, source.path, source.licenses) == ("bob/tool", "main.py", ("Apache-2.0",))
    assert (source.copies, source.commit, source.opted_out) == (3, "c0ffee", None)
    lines = opened.corpus.document(source.address).content.split("\n")[source.lines[0] - 1 : source.lines[1]]
    assert "\n".join(lines) == COPIED.rstrip("\n")
    assert best.rarity == 1
    assert judge(found).level == "verbatim"
    assert any(chain.start < best.end and best.start < chain.end for chain in found.chains)


def test_every_match_stands_where_its_sources_say(opened: Index) -> None:
    text = "\n".join(function(f"{document.repository}/{document.path}/2")[:400] for document in TRAIN[:9]) + TWICE
    found = Tracer(opened).trace(text)
    assert len(found.matches) >= 9
    for match in found.matches:
        span = Span(match.start, match.end, text[match.start : match.end], (), match.count)
        for source in match.sources:
            place = Place(source.address, source.start, source.end, source.lines)
            assert verify(text, span, place, opened.corpus.document(source.address).content)


def test_what_many_have_is_less_rare(opened: Index) -> None:
    found = Tracer(opened).trace(TWICE)
    best = found.matches[0]
    assert {source.repository for source in best.sources} == {"ann/lib0", "dan/mirror", "eve/web"}
    assert best.count == 3
    assert best.rarity < 0.5
    assert best.score == pytest.approx(best.surprise * best.rarity)


def test_filters_leave_others_out(opened: Index) -> None:
    def repositories(**wanted: str) -> set[str]:
        found = Tracer(opened, **wanted).trace(TWICE + COPIED)
        return {source.repository for match in found.matches for source in match.sources} | {
            similar.source.repository for similar in found.similar
        }

    assert repositories(language="javascript") == {"eve/web"}
    assert repositories(repository="dan/mirror") == {"dan/mirror"}
    assert repositories(license="Apache-2.0") == {"bob/tool"}
    assert repositories(license="ISC") == set()


def test_a_verdict_says_where_nothing_was_found(opened: Index) -> None:
    assert judge(Tracer(opened).trace(MINE)).reason.endswith("stands in the corpus")
    verdict = judge(Tracer(opened, license="ISC", repository="bob/tool").trace(COPIED))
    assert verdict.level == "nothing"
    assert verdict.reason.endswith("stands in documents under ISC of bob/tool, and no others were looked at")


def test_boilerplate_is_set_aside_and_why(opened: Index) -> None:
    found = Tracer(opened).trace(f"import os\nimport sys\nfrom pathlib import Path\n\n\n{MINE}")
    assert [(match.lines, match.aside) for match in found.aside] == [((1, 6), "imports")]  # and "def"
    assert judge(found).level == "nothing"


@pytest.mark.parametrize(("text", "reason"), [(RULED, "licence"), (f"#{'-' * 70}\n", "no words"), (HEADED, "no words")])
def test_rules_of_dashes_have_no_weight(opened: Index, text: str, reason: str) -> None:
    found = Tracer(opened).trace(text)
    assert not found.matches
    assert reason in {match.aside for match in found.aside}


def test_boilerplate_and_few_words_are_not_similar(opened: Index) -> None:
    assert not Tracer(opened).trace(RULED + "print(1)\n").similar
    assert not Tracer(opened).trace("\n".join(TWICE.splitlines()[:1])).similar
    headed = Tracer(opened, repository="dan/mirror").trace(f"{RULED}{TWICE}").similar[0]
    assert headed.overlap == Tracer(opened, repository="dan/mirror").trace(TWICE).similar[0].overlap


def test_boilerplate_adds_no_weight(opened: Index) -> None:
    imports = "import os\nimport sys\nfrom pathlib import Path\n\n\n"
    first = function("bob/tool/main.py/0")
    alone, after = (Tracer(opened).trace(text).matches[0] for text in (first, imports + first))
    assert after.tokens > alone.tokens
    assert after.surprise == pytest.approx(alone.surprise, rel=0.03)


def test_of_what_is_set_aside_no_part_is_told_again(opened: Index) -> None:
    found = Tracer(opened).trace("import os\nimport sys\nfrom pathlib import Path\n" * 500)
    assert {match.aside for match in found.aside} == {"imports"}
    assert 500 <= len(found.aside) <= 1000
    assert all(one.end <= two.end for one, two in pairwise(found.aside))


def test_parts_are_told_when_better_ones_leave_half_of_them() -> None:
    parts = np.array([[0, 10], [5, 15], [4, 10], [8, 20], [20, 21], [0, 30]])
    assert least(parts, np.arange(6)) == [0, 1, 4]
    assert least(parts, np.array([5, 0, 4])) == [5]
    assert least(parts, np.array([3, 2, 0])) == [3, 2]
    assert least(np.empty((0, 2), np.int64), np.empty(0, np.int64)) == []


def test_the_longest_texts(opened: Index) -> None:
    for text in (f"{COPIED}\n" * 400, "import os\n" * 20_000, "1, " * 66_000, f"{COPIED} ".replace("\n", " ") * 150):
        found = Tracer(opened).trace(text[:LONGEST])
        assert len(found.matches) + len(found.aside) <= len(text) / 20


def test_what_is_new_is_not_found(opened: Index) -> None:
    found = Tracer(opened).trace(MINE)
    assert judge(found).level == "nothing"
    assert not found.chains


def test_sources_on_a_list_are_marked(opened: Index) -> None:
    found = Tracer(opened, opt_out=OptOut(frozenset({"bob"}))).trace(COPIED + TWICE)
    stated = {source.repository: source.opted_out for match in found.matches for source in match.sources}
    assert stated["bob/tool"] is True
    assert stated["dan/mirror"] is False


def test_a_models_surprise_counts_instead_of_the_corpus(opened: Index) -> None:
    middle = len(COPIED) // 2
    model = [(0, middle, log(0.5)), (middle, len(COPIED), log(0.25))]
    match = Tracer(opened).trace(COPIED, model).matches[0]
    assert match.surprise == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), (" \n\t", "empty"), ("x" * (LONGEST + 1), "at most 200,000 at a time")],
)
def test_texts_that_are_none(opened: Index, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Tracer(opened).trace(text)


@pytest.mark.parametrize("text", ["x", "\ud800", "\x00", "猫" * 5000, "\n" * 9 + "a", "(" * 5000, "😀 " * 400])
def test_texts_that_are_odd(opened: Index, text: str) -> None:
    found = Tracer(opened).trace(text)
    assert judge(found).level == "nothing"


def test_the_whole_corpus_counts_with_suffix_arrays(tmp_path: Path) -> None:
    pytest.importorskip("infini_gram")
    documents = [
        replace(file(f"many/lib{n}", "x.py"), content=f"{function(str(n))}\n{COPIED if n % 2 else ''}")
        for n in range(60)
    ]
    corpus = write_corpus(tmp_path / "corpus", documents)
    tokenizers.train([document.content for document in documents], 340).save(tmp_path / "tokenizer")
    index(corpus, tmp_path / "trace", exact=tmp_path / "tokenizer")
    opened = Index.open(tmp_path / "trace")
    assert Tracer(opened, k=1).trace(COPIED).matches[0].count == 30
    assert Tracer(opened, k=1, repository="many/lib7").trace(COPIED).matches[0].count == 1
    write_shard(shards(corpus, "train")[2], documents[40:50])
    index(corpus, tmp_path / "trace", exact=tmp_path / "tokenizer")
    assert Tracer(Index.open(tmp_path / "trace"), k=1).trace(COPIED).matches[0].count == 25
    index(corpus, tmp_path / "trace")
    assert Index.open(tmp_path / "trace").suffixes is None
    assert not (tmp_path / "trace" / "suffixes").exists()


def test_a_stale_index_answers_nothing(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", TRAIN)
    index(corpus, tmp_path / "trace")
    tracer = Tracer(Index.open(tmp_path / "trace"))
    assert tracer.trace(COPIED).matches
    shard = next(path for number, path in enumerate(shards(corpus, "train")) if holds(corpus, number, "bob/tool"))
    time.sleep(0.01)
    write_shard(shard, [])
    with pytest.raises(UserError, match="changed since it was indexed"):
        tracer.trace(COPIED)


def holds(corpus: Path, shard: int, repository: str) -> bool:
    return any(document.repository == repository for _, document in Corpus.open(corpus).documents(shard))


@pytest.mark.parametrize(
    "text", ["", "\n\n", "short\n", "line\n" * 2000, "x" * 10_000 + "\ny\n", "a b\n" * 3 + "z" * 4000]
)
def test_pieces_are_the_text(text: str) -> None:
    cut = list(pieces(text, 1500))
    assert "".join(cut).strip() == text.strip()
    assert all(len(piece) <= 3000 for piece in cut)
