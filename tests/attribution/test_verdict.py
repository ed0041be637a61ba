from dataclasses import replace

import pytest

from starcoder.attribution.obligations import asks
from starcoder.attribution.trace import Similar
from starcoder.attribution.verdict import Thresholds, judge
from starcoder.corpus.licenses import PERMISSIVE
from tests.attribution.traces import SOURCE, TEXT, match, trace

LIMITS = Thresholds(verbatim=400, verbatim_tokens=50, partial=150, similar=0.5)


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (trace((match(4, 6, 400, 50),)), "verbatim"),
        (trace((match(4, 6, 399.9, 50),)), "partial"),
        (trace((match(4, 6, 400, 49),)), "partial"),
        (trace((match(4, 6, 900, surprise=800, rarity=0.5),)), "verbatim"),
        (trace((match(4, 6, 900, surprise=798, rarity=0.5),)), "partial"),
        (trace((match(4, 6, 150),)), "partial"),
        (trace((match(4, 6, 149.9),), (Similar(SOURCE, 9.0, 0.5),)), "similar"),
        (trace((match(4, 6, 149.9),), (Similar(SOURCE, 9.0, 0.49),)), "nothing"),
        (trace(aside=(match(1, 1, 9000, aside="imports"),)), "nothing"),
        (trace(), "nothing"),
    ],
)
def test_levels_begin_at_their_thresholds(found: object, level: str) -> None:
    verdict = judge(found, LIMITS)  # type: ignore[arg-type]
    assert verdict.level == level
    assert bool(verdict.owed) == (level in ("partial", "verbatim"))


def test_each_source_is_owed_once_with_all_its_lines() -> None:
    other = replace(SOURCE, repository="bob/copy", lines=(1, 3))
    later = replace(SOURCE, lines=(13, 14))
    verdict = judge(
        trace(
            (
                match(4, 6, sources=(SOURCE, other)),
                match(1, 1, 450, sources=(other, later)),
                match(9, 9, 300, sources=(replace(SOURCE, lines=(40, 40)),)),
                match(9, 9, 10, sources=(replace(other, path="light.py"),)),
            )
        ),
        LIMITS,
    )
    (owed,) = verdict.owed
    assert (owed.source, owed.lines) == (SOURCE, ((10, 14), (40, 40)))
    assert list(owed.asks) == ["MIT"]
    assert verdict.reason == "lines 4-6, 60 tokens and 500 bits, stand word for word in 2 repositories"


def test_where_sources_are_cut_the_repositories_are_more() -> None:
    (reason,) = {judge(trace((match(4, 6, count=count),))).reason for count in (2, 30)}
    assert reason.endswith("stand word for word in at least one repository")


def test_a_source_of_its_own_is_owed_beside_the_first() -> None:
    other = replace(SOURCE, repository="bob/other", licenses=("Apache-2.0", "MIT"))
    verdict = judge(trace((match(4, 6), match(9, 9, sources=(other,)))), LIMITS)
    assert [owed.source.repository for owed in verdict.owed] == ["ann/lib", "bob/other"]
    assert list(verdict.owed[1].asks) == ["Apache-2.0", "MIT"]


def test_what_licences_ask_for() -> None:
    assert "copyright notice" in asks("MIT")
    assert "NOTICE file" in asks("Apache-2.0 WITH LLVM-exception")
    assert asks("CC0-1.0").startswith("asks for nothing")
    assert asks("GPL-3.0-only") == "read its terms: https://spdx.org/licenses/GPL-3.0-only"
    assert asks("LicenseRef-own").startswith("read the terms in the repository")
    with_words = {license_id for license_id in PERMISSIVE if "spdx.org" not in asks(license_id)}
    assert len(with_words) > len(PERMISSIVE) * 0.6


def test_the_share_of_a_text_counts_no_character_twice() -> None:
    whole = match(4, 6)
    found = trace((whole, match(5, 6), match(9, 9), match(1, 1, 10)))
    assert judge(found).share == (whole.end - whole.start + len("print(area(2, 3))")) / len(TEXT)
    assert judge(found).weighty == 3
    assert judge(trace()).share == 0
