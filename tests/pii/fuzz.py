"""Texts made to break detectors: any Unicode, hostile lines, mutilated entities, some of a megabyte.

`texts(count, seed)` gives the same texts for the same seed. Three in a thousand have 64 KB to 1 MB of characters.
`assert_sound` and `assert_linear` say what must hold of any detector.
"""

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from starcoder.pii.entity import Detector, Entity

ROOT = Path(__file__).parents[2]
BACKSTOP = 600
"""Seconds for all hostile lines of a megabyte, which take a few: were the time quadratic, they would take days."""
LONGEST = 1_000_000

ATOMS = (
    *"@.:-_/\\'\"`<>[](){}=%$#&*|~^,;!?+ \t\n\r\0\x7f\x85\u00a0\u00ad\u0300\u200b\u200e\u2028\ufeff\ufffd\ud800\udfff",
    *("a", "Z", "é", "ß", "İ", "ﬁ", "字", "가", "भा", "ไ", "😀", "\U0003ffff", "\U0010ffff"),
    *("0", "1", "255", "256", "f", "v1.2.3.4", "12:30:45", "2021-03-04", "x[::1]", "std::abs", "aa:bb:cc:dd:ee:ff"),
    *("::", "://", "@@", "..", "--", '\\"', "\\n", "%s", "xn--", "<EMAIL>", "sha256", "password = ", "api_key: ", "#!"),
    *("ann@example.org", "o'neil+x@mail.co.uk", "git@github.com:a/b", "用户@例子.广告", "a@b.T", "logo@2x.png"),
    *("192.168.1.10", "8.8.8.8", "255.255.255.256", "1.2.3.4.5", "2001:db8::1", "fe80::1%eth0", "::ffff:10.0.0.1"),
    *("d41d8cd98f00b204e9800998ecf8427e", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "eyJhbGciOiJIUzI1NiJ9.e30.abc"),
    *("-----BEGIN RSA PRIVATE KEY-----", "Ann Lee", "John O'Neil", "def f(x):\n    return x\n", "/* ", " */", "\r\n"),
    *('password="hunter2"', "PASSWD=hunter2\n", "://ann:hunter2@", "auth=('ann', 'hunter2')", "<pw>", "--password "),
    *("clave: ", "# Copyright (c) 2020 Ann Lee <ann@example.org>\n"),
)
"""What texts are put together from."""

HOSTILE = (
    *("@", "a@", "a.", ".a@", "a@a.", "a@b.co", "@a.", ".", "-", ".-", "字@", "é."),
    *("1", "1.", "1.1.1.1", "1.1.1.1.", "256.", ":", "::", ":1", "f:", "1::", "::1.1.1.1"),
    *("f", "deadbeef", "0x", "'", '"', "\\'", '\\"', "'\"", "([{<", "ab+/", "A1b2C3d4", "=", "=-"),
    *("字", "भा", "\ud800", "\u0300", "😀", " ", "\t", "\r", "sha", "_", "Aa "),
    *("://", "//", "%", "\\", "\\n", "\\u003c", "://a:b@", "://a:"),
    *("pass", "pw ", "password=", "pw:'", "<pw>", "auth=('a',", "mysql ", "curl -u ", "IDENTIFIED "),
)
"""What hostile lines repeat."""


def hostile(size: int) -> Iterator[str]:
    """Lines of `size` characters that repeat one thing, as such and with an address behind them."""
    for unit in HOSTILE:
        line = (unit * (size // len(unit) + 1))[:size]
        yield line
        yield line[:-16] + "@example.org 1::"


def texts(count: int, seed: int) -> Iterator[str]:
    """`count` texts of 0 characters to a megabyte."""
    chance = random.Random(seed)
    for _ in range(count):
        size = chance.randint(1 << 16, LONGEST) if chance.random() < 0.003 else int(2 ** chance.uniform(0, 11)) - 1
        yield chance.choice((_mixed, _mixed, _any, _repeated))(chance, size)[:size]


def _mixed(chance: random.Random, size: int) -> str:
    """Atoms in a row, a few of which have lost or gained a character."""
    atoms, length = list[str](), 0
    while length < min(size, 10_000):
        atoms.append(_mutated(chance, chance.choice(ATOMS)))
        length += len(atoms[-1])
    return _fill("".join(atoms), size)


def _mutated(chance: random.Random, atom: str) -> str:
    place = chance.randint(0, len(atom))
    match chance.randrange(10):
        case 0:
            return atom[:place] + atom[place + 1 :]
        case 1:
            return atom[:place] + chance.choice(ATOMS) + atom[place:]
        case 2:
            return atom + "\n"
        case _:
            return atom


def _any(chance: random.Random, size: int) -> str:
    """Code points of one plane or of all, lone surrogates among them."""
    highest = chance.choice((0x7F, 0xFF, 0xFFFF, 0x10FFFF))
    return _fill("".join(map(chr, chance.choices(range(highest + 1), k=min(size, 5000)))), size)


def _repeated(chance: random.Random, size: int) -> str:
    """One hostile thing over and over, something else in its midst."""
    unit = chance.choice(HOSTILE) + (chance.choice(HOSTILE) if chance.random() < 0.5 else "")
    half = _fill(unit, size // 2)
    return half + chance.choice(ATOMS) + half


def _fill(unit: str, size: int) -> str:
    return (unit * (size // max(1, len(unit)) + 1))[:size]


def assert_sound(detector: Detector, text: str) -> list[Entity]:
    """The entities are inside the text, in order, apart, say who found them, and are the same each time."""
    entities = detector.detect(text)
    ends = [0, *(entity.end for entity in entities)]
    assert all(end <= entity.start < entity.end <= len(text) for end, entity in zip(ends, entities, strict=False))
    assert all(entity.detector for entity in entities)
    if len(text) < 10_000:
        assert detector.detect(text) == entities
    return entities


def work(detect: Callable[[str], object], text: str) -> int:
    """Python's and C's functions that `detect` calls."""
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        detect(text)
    finally:
        sys.setprofile(before)
    return calls


def assert_linear(detector: Detector, size: int = 20_000) -> None:
    """Eight times the text is eight times the calls; and lines of a megabyte come to an end, in a process of their own.

    The first is exact but does not see what a call does; the second sees it, since quadratic work would never end.
    """
    for short, long in zip(hostile(size), hostile(8 * size), strict=True):
        assert work(detector.detect, long) <= 8 * work(detector.detect, short) + 2_000, ascii(short[:20])
    name = type(detector).__name__
    program = (
        f"from {type(detector).__module__} import {name}; from tests.pii.fuzz import hostile\n"
        f"for line in hostile({LONGEST}): {name}().detect(line)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=BACKSTOP, check=True)
