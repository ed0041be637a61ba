import json
from dataclasses import replace

from starcoder.attribution.report import as_json, as_text
from starcoder.attribution.trace import Chain, Similar, Trace
from starcoder.attribution.verdict import judge
from tests.attribution.traces import SOURCE, match, trace

FULL = trace(
    (match(4, 6), match(5, 5, 160, sources=(replace(SOURCE, repository="bob/x", commit="", opted_out=True),))),
    aside=(match(1, 1, aside="imports"),),
    chains=(Chain(11, 70, (4, 6), 1),),
)


def report(found: Trace) -> str:
    return as_text(found, judge(found), "1 in 40")


def test_a_report_marks_the_text_and_names_sources_and_debts() -> None:
    assert (
        report(FULL)
        == """\
VERBATIM AND RARE: lines 4-6, 60 tokens and 500 bits, stand word for word in one repository
  1 in 40

          ⋮
  2
  3
  4 [1]   ┃ def area(width, height):
  5 [1,2] ┃     total = width * height
  6 [1]   ┃     return total
  7
  8
          ⋮

[1] lines 4-6: 60 tokens, 500 bits of surprise × 1.00 rarity = 500; at one place
    MIT  ann/lib/geometry.py:10-12  (2 duplicates of it were left out)

[2] line 5: 60 tokens, 160 bits of surprise × 1.00 rarity = 160; at one place
    MIT  bob/x/geometry.py:10-12  (2 duplicates of it were left out; OPTED OUT)

set aside: line 1, imports
membership test: 1 chain of known windows, at lines 4-6
surprise: by how often the corpus has each token after the one before

To ship this text you owe attribution to
  ann/lib at abc (MIT): geometry.py, lines 10-12
    keep its copyright notice, and ship a copy of the licence
  bob/x (MIT): geometry.py, lines 10-12
    its owner opted out: do not ship it
    keep its copyright notice, and ship a copy of the licence
"""
    )


def test_what_a_model_wrote_is_told_with_its_own_surprise() -> None:
    told = report(replace(FULL, matches=tuple(replace(each, to_model=12.4) for each in FULL.matches)))
    assert "= 500; at one place; 12 bits to the model\n" in told
    assert "; to the model by its own probabilities, and what it recites has few bits\n" in told


def test_a_report_without_matches_names_what_is_similar() -> None:
    found = trace(similar=(Similar(SOURCE, 12.0, 0.61), Similar(replace(SOURCE, path="other.py"), 11.0, 0.04)))
    assert (
        report(found)
        == """\
ONLY SIMILAR: 61% of its short runs of tokens stand in one document
  1 in 40

membership test: no window of 50 characters is known

similar documents:
  61% overlap  MIT  ann/lib/geometry.py
"""
    )


def test_the_names_of_strangers_cannot_move_the_cursor() -> None:
    evil = replace(SOURCE, repository="a/\x1b[2J", path="\u202eyp.py", licenses=("MIT\x07",))
    found = trace((match(4, 6, sources=(evil,)),), (Similar(evil, 1.0, 1.0),))
    text = report(replace(found, text="\x1b[31m\n" * 9))
    assert text.replace("\n", "").isprintable()


def test_programs_read_the_same() -> None:
    told = json.loads(as_json(FULL, judge(FULL), "1 in 40"))
    assert told["verdict"]["level"] == "verbatim"
    assert told["calibration"] == "1 in 40"
    assert told["matches"][0]["score"] == 500
    assert told["matches"][0]["sources"][0]["licenses"] == ["MIT"]
    assert told["matches"][1]["sources"][0]["opted_out"] is True
    assert told["aside"][0]["aside"] == "imports"
    assert told["chains"] == [{"start": 11, "end": 70, "lines": [4, 6], "windows": 1}]
    assert told["verdict"]["share"] == judge(FULL).share > 0.5
    assert "text" not in told
