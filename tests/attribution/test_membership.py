import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.attribution.membership import Chain, Membership, expected
from starcoder.attribution.squeezed import squeeze
from starcoder.errors import UserError
from starcoder.storage import sha256

WORDS = "def return self index for in range len value if else import os path 0 1 2 = == ( ) : [ ] é 猫 😀"


def code(seed: int, words: int) -> str:
    """Words with white space of all kinds between them."""
    draw = random.Random(seed)
    return "".join(
        draw.choice(WORDS.split()) + draw.choice([" ", "  ", "\n", "\n    ", "\t", "\r\n"]) for _ in range(words)
    )


def wrapped_again(text: str, seed: int) -> str:
    """The text with other white space where it has any, and around it."""
    draw = random.Random(seed)
    return "\n".join(["", *(word + " " * draw.randrange(9) for word in text.split()), ""])


def filled(*texts: str, rate: float = 1e-9) -> Membership:
    membership = Membership.create(10_000, rate)
    for text in texts:
        membership.add(text)
    return membership


TEXT = code(0, 2000)
VIEW = squeeze(TEXT).text
FILLED = filled(code(1, 900), TEXT, code(2, 900))
GOLDEN = "70b8e6612d77ee77a71139422a13bf1676e9bbc9305232574cf3b6d09ffb5e52"


@given(st.integers(0, len(VIEW) - 99), st.integers(99, 400), st.integers(0, 10**6))
def test_every_copy_of_99_characters_is_found(start: int, length: int, seed: int) -> None:
    part = squeeze(VIEW[start : start + length]).text
    if len(part) < 99:
        return
    before, after = code(seed + 10, 20), code(seed + 11, 20)
    query = before + "|" + wrapped_again(part, seed) + "|" + after
    chains = FILLED.chains(query)
    assert chains
    assert sum(chain.windows for chain in chains) >= len(part) // 50 - 1
    assert all(squeeze(query[chain.start : chain.end]).text in f" {part} " for chain in chains)


def test_98_characters_may_escape() -> None:
    """They do where they begin one behind a stored window: the bound is exact."""
    places = [start for start in range(1, 3000, 50) if not (VIEW[start] + VIEW[start + 97]).count(" ")]
    assert len(places) > 20
    assert not any(FILLED.chains(VIEW[start : start + 98]) for start in places)
    assert all(FILLED.chains(VIEW[start - 1 : start + 98]) for start in places if VIEW[start - 1] != " ")


def test_no_stored_window_is_ever_missed() -> None:
    texts = [code(seed, 300) for seed in range(40)]
    membership = filled(*texts, rate=0.3)
    for text in texts:
        found = membership.found(squeeze(text))
        assert found[::50].all()
        assert len(found) == len(squeeze(text).text) - 49


def test_a_chain_knows_its_place_in_the_original() -> None:
    membership = filled(TEXT)
    part = VIEW[500:1000]
    query = "a different beginning /* " + wrapped_again(part, 3) + "*/ and another end"
    (chain,) = membership.chains(query)
    assert chain.windows == 10
    assert squeeze(query[chain.start : chain.end]).text == part.strip()
    assert chain.badness == pytest.approx(10 / ((len(squeeze(query).text) - 49) / 50))


def test_a_chain_does_not_reach_across_a_change() -> None:
    """Of 600 characters with one that is changed, two stretches are left, not one."""
    changed = VIEW[:325] + "\0" + VIEW[326:600]
    assert filled(TEXT).chains(changed) == [
        Chain(0, 300, 6, 6 / (551 / 50)),
        Chain(350, 600, 5, 5 / (551 / 50)),
    ]


def test_the_longest_chain_comes_first_and_repetition_is_one_stretch() -> None:
    membership = filled("-" * 500, TEXT)
    query = VIEW[:150] + "\0" + "-" * 400 + "\0" + VIEW[200:300]
    assert [(chain.start, chain.end, chain.windows) for chain in membership.chains(query)] == [
        (151, 551, 8),
        (0, 150, 3),
        (552, 652, 2),
    ]


@pytest.mark.parametrize("text", ["", " \n\t" * 99, "x" * 49, "x" + " " * 5000 + "y" * 47])
def test_texts_without_a_window_have_nothing(text: str) -> None:
    membership = Membership.create(10, 0.01)
    assert membership.add(text) == 0
    assert membership.chains(text) == []
    assert expected(len(squeeze(text).text)) == 0
    assert membership.count == 0


def test_what_is_hardly_text_is_text() -> None:
    draw = random.Random(5)
    binary = bytes(draw.randbytes(4000)).decode("latin-1") + "\0" * 300 + "\ud800\udfff" * 60
    membership = filled(binary)
    (chain,) = membership.chains(binary)
    assert chain.windows == membership.count == len(" ".join(binary.split())) // 50


def test_megabytes_take_little_memory() -> None:
    """Ten megabytes of a text are stored and asked for with 400 MB beyond the text."""
    program = """
import resource
from starcoder.attribution.membership import Membership
membership = Membership.create(300_000, 1e-3)
text = "".join(f"{n:07d}, é\\n" for n in range(950_000))
assert len(text) > 9_500_000
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
added = membership.add(text)
assert added == (len(text) - 1) // 50
(chain,) = membership.chains(text)
assert chain.windows == added
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 400_000
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


@pytest.mark.parametrize("rate", [0.02, 0.001])
def test_the_rate_is_what_was_asked_for(rate: float) -> None:
    """Full to the last window, within five standard deviations of a binomial distribution."""
    draw = random.Random(7)
    membership = Membership.create(40_000, rate)
    while membership.count < membership.capacity:
        membership.add("".join(draw.choices("abcdefgh(){}=;", k=min(50_000, 50 * (40_000 - membership.count)))))
    samples = 300_000
    assert abs(membership.measured_rate(samples) - rate) < 5 * (rate * (1 - rate) / samples) ** 0.5
    assert Membership.create(40_000, rate).measured_rate(1000) == 0
    with pytest.raises(UserError, match=r"for 40,000 windows is full: make it again with a higher capacity"):
        membership.add("x" * 50)
    assert membership.count == 40_000


@pytest.mark.parametrize(("capacity", "rate"), [(0, 0.1), (5, 0), (5, 1), (-1, 2), (5, float("nan"))])
def test_impossible_parameters_are_refused(capacity: int, rate: float) -> None:
    with pytest.raises(UserError, match="at least 1, and between 0 and 1"):
        Membership.create(capacity, rate)


def test_a_filter_larger_than_the_machine_is_refused() -> None:
    with pytest.raises(UserError, match=r"does not fit in the .* GB of this machine"):
        Membership.create(10**15, 1e-6)


def test_shards_merge_to_the_filter_of_the_whole() -> None:
    texts = [code(seed, 300) for seed in range(6)]
    merged = filled(*texts[:3])
    merged.merge(filled(*texts[3:]))
    whole = filled(*texts)
    assert merged._bloom == whole._bloom
    assert merged.count == whole.count
    for other in (Membership.create(10_001, 1e-9), Membership.create(10_000, 1e-8)):
        with pytest.raises(UserError, match="do not merge: make both with those of the whole corpus"):
            merged.merge(other)
    small, full = (Membership.create(10, 0.1) for _ in range(2))
    small.add("x" * 50)
    full.add("y" * 500)
    with pytest.raises(UserError, match="is full"):
        small.merge(full)
    assert small.count == 1


def test_saved_and_opened_it_is_the_same(tmp_path: Path) -> None:
    FILLED.save(tmp_path / "filter")
    opened = Membership.open(tmp_path / "filter")
    assert opened._bloom == FILLED._bloom
    assert (opened.capacity, opened.rate, opened.count) == (FILLED.capacity, FILLED.rate, FILLED.count)
    assert opened.chains(TEXT) == FILLED.chains(TEXT)
    opened.merge(filled(code(9, 50)))
    opened.save(tmp_path / "filter")
    assert Membership.open(tmp_path / "filter").count == opened.count > FILLED.count
    assert list(tmp_path.iterdir()) == [tmp_path / "filter"]


def test_other_processes_make_the_same_filter(tmp_path: Path) -> None:
    """Also with another salt of Python's own hashes, and this very one in every version."""
    program = """
import sys
from pathlib import Path
from starcoder.attribution.membership import Membership
membership = Membership.create(1000, 1e-4)
membership.add("".join(f"line {n} é😀 " for n in range(2000)))
membership.save(Path(sys.argv[1]))
"""
    for salt in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": salt}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / salt)], check=True, env=environment)
    assert {sha256(tmp_path / salt / "windows.bloom") for salt in "12"} == {GOLDEN}


def test_nothing_else_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        FILLED.save(tmp_path)


def damaged(folder: Path, name: str, change: bytes | None) -> Path:
    FILLED.save(folder)
    file = folder / name
    content = file.read_bytes()
    file.write_bytes(change if change is not None else content[: len(content) // 2])
    return folder


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("windows.bloom", None, r"windows.bloom has [\d,]+ of its [\d,]+ bytes: make the index again"),
        ("windows.bloom", b"", "windows.bloom has 0 of its"),
        ("membership.json", None, "cannot be read"),
        ("membership.json", b"", "cannot be read"),
        ("membership.json", b"\xff\xfe", "cannot be read"),
        ("membership.json", b"[]", "is no header of a membership filter"),
        ("membership.json", b'{"format": "another"}', "is no header of a membership filter"),
        ("membership.json", b'{"format": "starcoder membership", "version": 2}', "has version 2, this program 1"),
        (
            "membership.json",
            b'{"format": "starcoder membership", "version": 1, "window": 25, "stride": 25}',
            "has window 25, this program 50",
        ),
        (
            "membership.json",
            b'{"format": "starcoder membership", "version": 1, "window": 50, "stride": 50}',
            "membership.json is corrupt",
        ),
    ],
)
def test_what_is_damaged_or_foreign_is_one_line(tmp_path: Path, name: str, change: bytes | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Membership.open(damaged(tmp_path / "filter", name, change))
    assert "\n" not in str(caught.value)


def test_one_bit_is_noticed(tmp_path: Path) -> None:
    FILLED.save(tmp_path / "filter")
    file = tmp_path / "filter" / "windows.bloom"
    content = bytearray(file.read_bytes())
    content[-7] ^= 4
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"windows\.bloom is corrupt"):
        Membership.open(tmp_path / "filter")
    FILLED.save(tmp_path / "filter")
    header = tmp_path / "filter" / "membership.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"count": 1}))
    with pytest.raises(UserError, match=r"membership\.json is corrupt"):
        Membership.open(tmp_path / "filter")


def test_a_header_alone_is_no_filter(tmp_path: Path) -> None:
    FILLED.save(tmp_path / "filter")
    (tmp_path / "filter" / "windows.bloom").unlink()
    with pytest.raises(UserError, match=r"windows\.bloom cannot be read \(No such file"):
        Membership.open(tmp_path / "filter")


def test_where_nothing_is_nothing_opens(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="no membership filter"):
            Membership.open(path)
