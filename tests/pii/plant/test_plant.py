import ast
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import chain, product
from pathlib import Path
from random import Random
from typing import get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.corpus.document import Document, write_documents
from starcoder.errors import UserError
from starcoder.pii.examples import CATEGORIES, Example, read_examples, write_examples
from starcoder.pii.plant import addresses, layout, people, secrets
from starcoder.pii.plant.fill import SLOT, Filler, labels_of
from starcoder.pii.plant.generate import generate, templates
from starcoder.pii.plant.hosts import Hosts, is_clean
from starcoder.pii.plant.nobody import COMPANIES, TERMS
from starcoder.pii.plant.sides import Split, fold, share, side
from starcoder.pii.plant.stretch import stretch
from starcoder.pii.plant.table import chosen, table

SPLITS = get_args(Split)

PYTHON = '''"""Rows of a table."""

import csv
import sys


class Rows:
    """Some rows.

    They are lists.
    """

    limit = 3

    def __init__(self, path):
        self.path = path
        # what is read so far
        self.rows = []

    def read(self):
        if self.path == "-":
            stream = sys.stdin
        elif self.limit:
            stream = open(self.path)
        else:
            return None
        for row in csv.reader(
            stream,
            delimiter=";",
        ):
            self.rows.append(row); self.limit -= 1
        return self.rows

    def __len__(self): return len(self.rows)


@staticmethod
def first(rows,
          default=None) -> object: return rows[0] if rows else default


LONG = """
import this
  x = 1
"""
if __name__ == "__main__":
    print(first(Rows("-").read()))
'''
C = """#include <stdio.h>

/* Sums
   things; that
   is all. */
static int sum(const int *x, int n)
{
    int total = 0;
    for (int i = 0; i < n; i++) {
        total += x[i];
    }
    return total;
}

int main(int argc, char **argv)
{
    int x[] = {1, 2, 3};
    printf("%d\\n", sum(x, 3));
    // all went well
    return 0;
}

enum kind {
    ONE,
    TWO,
};
"""
JSON = "{\n" + "".join(f'  "key{n}": "value",\n' for n in range(20)) + '  "last": 1\n}\n'


def document(repository: str, path: str, language: str, content: str) -> Document:
    return Document(repository, path, language, path.rpartition(".")[2], ("MIT",), len(content), content)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty repositories of three files each."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = [("a.py", "python", PYTHON), ("b.c", "c", C), ("c.json", "json", JSON)]
    write_documents(
        folder, "train", [document(f"r{n}", f"{n}{path}", *rest) for n in range(20) for path, *rest in rows]
    )
    return folder


@pytest.fixture(scope="session")
def examples(corpus: Path) -> dict[Split, list[Example]]:
    return {split: list(generate(corpus, split, 1500, seed=7)) for split in SPLITS}


def test_what_is_planted_is_where_it_is_said_to_be(examples: dict[Split, list[Example]]) -> None:
    for example in examples["train"] + examples["test"]:
        at = 0
        for fragment in example.fragments:
            assert at <= fragment.start < fragment.end <= len(example.text), example
            at = fragment.end
            value = example.text[fragment.start : fragment.end]
            assert value == value.strip()
            assert fragment.label in CATEGORIES
            around = example.text[fragment.start - 1 : fragment.start], example.text[fragment.end : fragment.end + 1]
            # MySQL's -p takes its password without a blank.
            if not example.text[: fragment.start].endswith(" -p"):
                assert not (re.fullmatch(r"\w", around[0]) and re.match(r"\w", value)), example.text
            assert not (re.fullmatch(r"\w", around[1]) and re.match(r"\w", value[-1])), example.text
        assert not SLOT.search(example.text)
        assert "«" not in example.text


SHAPE = {
    "EMAIL": r"[\w.+-]+@[\w.-]+\.\w{2,}",
    "EMAIL_LICENSE": r"[\w.+-]+@[\w.-]+\.\w{2,}",
    "USERNAME": r"[\w.-]{3,}",
    "IP_ADDRESS": r"[\da-f:.]{3,}",
    "KEY": r"[\w+:/=.!#$%*?^~\n-]{16,}",
    "PASSWORD": r"[^\s'\"\\`]{4,}",
}


def test_values_look_like_their_label(examples: dict[Split, list[Example]]) -> None:
    for example in examples["train"] + examples["test"]:
        for fragment in example.fragments:
            value = example.text[fragment.start : fragment.end]
            assert re.fullmatch(SHAPE.get(fragment.label, r"(?s).+"), value), (fragment.label, value)


@given(seed=st.integers(0, 2**32), split=st.sampled_from(SPLITS))
@settings(max_examples=60, deadline=None)
def test_a_filled_template_is_the_template_around_its_values(seed: int, split: Split) -> None:
    random = Random(seed)
    text = chosen(random.choice(random.choice([*table(split).values()])), random)
    filled, found = Filler(split, random).fill(text)
    assert tuple(entity.label for entity in found) == labels_of(text)
    pattern = "(?s)" + "(.+?)".join(map(re.escape, re.sub(SLOT, "«", text).split("«")))
    assert re.fullmatch(pattern, filled)
    # Each value stands after what stands before its slot, slot by slot; IPv6 in a URL behind a bracket of its own.
    at = 0
    for slot, entity in zip((s for s in SLOT.finditer(text) if labels_of(s[0])), found, strict=True):
        before = re.split(SLOT, text[: slot.start()])[-1] if SLOT.search(text[: slot.start()]) else text[: slot.start()]
        bracket = "[" if entity.label == "IP_ADDRESS" and ":" in filled[entity.start : entity.end] else ""
        assert filled[at : entity.start].endswith((before, before + bracket))
        at = entity.end


@pytest.mark.parametrize(
    ("template", "brackets"),
    [("http://«ip»/", True), ("connect «ip»:«port»", True), ("«ip»:80", True), ("{«ip»: 1}", False), ("u@«ip»", False)],
)
def test_an_ipv6_address_in_a_url_has_brackets(template: str, brackets: bool) -> None:
    seen = {4: 0, 6: 0}
    for seed in range(60):
        text, (found,) = Filler("train", Random(seed)).fill(template)
        value = text[found.start : found.end]
        version = ip_address(value).version
        seen[version] += 1
        assert (f"[{value}]" in text) == (brackets and version == 6)
    assert all(seen.values())


def test_another_process_plants_the_same(corpus: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from starcoder.pii.plant.generate import generate\n"
        "print([(e.text, e.kind) for e in generate(Path(sys.argv[1]), 'test', 80, 3)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, corpus],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_arguments_give_the_same_examples(corpus: Path, split: Split) -> None:
    once = list(generate(corpus, split, 40, seed=3))
    assert once == list(generate(corpus, split, 40, seed=3))
    assert once[:10] == list(generate(corpus, split, 10, seed=3))
    assert once != list(generate(corpus, split, 40, seed=4))


def test_examples_survive_their_file(tmp_path: Path, examples: dict[Split, list[Example]]) -> None:
    write_examples(tmp_path / "a.parquet", examples["train"][:50])
    read = read_examples(tmp_path / "a.parquet")
    assert [(e.text, e.kind, e.id) for e in read] == [(e.text, e.kind, e.id) for e in examples["train"][:50]]
    assert [[f.label for f in e.fragments] for e in read] == [
        [f.label for f in e.fragments] for e in examples["train"][:50]
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_shares_are_as_wanted(examples: dict[Split, list[Example]], split: Split) -> None:
    """The table of shares; every label is there, none but the rare ones is rare, a third of the examples has none."""
    labels = Counter(fragment.label for example in examples[split] for fragment in example.fragments)
    print(f"\n{split}: {sum(not e.fragments for e in examples[split]) / len(examples[split]):.1%} without any")
    for label, count in labels.most_common():
        print(f"  {label:18}{count:6}  {count / labels.total():6.1%}")
    assert set(labels) == set(CATEGORIES)
    for label in ("NAME", "EMAIL", "USERNAME", "KEY", "IP_ADDRESS", "PASSWORD"):
        assert labels[label] > 0.07 * labels.total(), label
    nothing = sum(not example.fragments for example in examples[split])
    assert 0.28 < nothing / len(examples[split]) < 0.45
    assert max(len(example.fragments) for example in examples[split]) <= 6


def wordings(template: str) -> set[str]:
    """What a template says, whatever stands in its slots, with each of its choices."""
    if choice := re.search("‹([^‹›]*)›", template):
        return {
            words
            for one in choice[1].split("|")
            for words in wordings(template[: choice.start()] + one + template[choice.end() :])
        }
    return {re.sub(SLOT, "«»", template).lower().strip()}


def test_no_template_is_in_both_splits_and_both_have_all_places_and_labels() -> None:
    train, test = map(table, SPLITS)
    assert train.keys() == test.keys()
    assert {*layout.SHEETS, *layout.STATEMENTS.values(), "header", "comment", "docstring", "tail", "note"} == set(train)
    for place in train:
        for plants in (True, False):
            wording = [
                {words for text in rows[place] if bool(labels_of(text)) is plants for words in wordings(text)}
                for rows in (train, test)
            ]
            # What is only slots and punctuation has no wording to remember.
            assert not {text for text in wording[0] & wording[1] if re.search("[a-z]", text)}
    for split, rows in zip(SPLITS, (train, test), strict=True):
        texts = [text for place in rows.values() for text in place]
        assert {label for text in texts for label in labels_of(text)} == set(CATEGORIES)
        assert all("" in labels and len(labels) > 1 for labels in templates(split).values())


ALIKE = {
    **{
        "md5": ("32",),
        "sha1": ("40",),
        "sha256": ("64",),
        "key": ("32", "40", "64"),
        "ip": ("quad",),
        "four": ("quad",),
    },
    **dict.fromkeys(("word", "user", "password", "urlpassword"), ("word",)),
}
"""Slot → what its values can look like; those of a look cannot be told apart but by what is around."""


def ways_to_choose(row: str) -> Iterator[str]:
    """A row with its choices made in every way."""
    pieces = re.split("‹([^‹›]*)›", row)
    return map("".join, product(*(piece.split("|") if n % 2 else (piece,) for n, piece in enumerate(pieces))))


def test_nothing_to_learn_from_is_both_labelled_and_left_alone() -> None:
    for place, rows in table("train").items():
        looks: dict[bool, set[tuple[str, ...]]] = {True: set(), False: set()}
        for text in chain.from_iterable(map(ways_to_choose, rows)):
            slots = [ALIKE.get(slot[1], (slot[1],)) for slot in SLOT.finditer(text)]
            looks[bool(labels_of(text))] |= {(SLOT.sub("«»", text), *look) for look in product(*slots)}
        assert not looks[True] & looks[False], place


STRING_OR_COMMENT = re.compile(r"""\\.|(["'`])(?:\\.|(?!\1).)*\1|--.*|/\*.*?\*/""")


@pytest.mark.parametrize("place", ["python", "json", "xml", "toml", "c", "js", "java", "shell", "sql"])
def test_rows_of_code_are_code(place: str) -> None:
    random = Random(1)
    for row in table("train")[place] * 8:
        text = Filler("train", random).fill(chosen(row, random))[0]
        match place:
            case "python":
                ast.parse(text)
            case "json":
                entries = text.rstrip(",")
                json.loads(f"[{entries}]" if entries.startswith("{") else f"{{{entries}}}")
            case "xml":
                ElementTree.fromstring(f'<a xmlns:dc="x">{text.replace("&", "&amp;")}</a>')
            case "toml":
                tomllib.loads(text)
            case "shell":
                shlex.split(text, comments=True)
            case _:
                brackets = re.sub("[^][(){}]", "", STRING_OR_COMMENT.sub("", text))
                while (fewer := re.sub(r"\(\)|\[\]|\{\}", "", brackets)) != brackets:
                    brackets = fewer
                assert not brackets, text
                assert text.count('"') % 2 == 0, text


def test_pools_are_disjoint() -> None:
    train, test = (people.pool(split) for split in SPLITS)

    def names(pool: people.Pool) -> set[str]:
        locales = [*pool.latin, *(row[1:] for row in pool.other)]
        return {fold(name) for firsts, lasts in locales for name in (*firsts, *lasts)}

    assert not names(train) & names(test)
    assert not {*train.words} & {*test.words}
    assert not {*train.names} & {*test.names}
    for pool in (train, test):
        assert min(len(part) for locale in pool.latin for part in locale) > 3
        assert min(len(part) for locale in pool.other for part in locale[1:]) > 3
    for choices in (COMPANIES, TERMS):
        assert not {*share(choices, "train")} & {*share(choices, "test")}
    assert len(secrets.SHAPES["test"].keys() - secrets.SHAPES["train"].keys()) >= 3
    assert len(secrets.STYLES["test"].keys() - secrets.STYLES["train"].keys()) >= 3
    assert all(len(secrets.SHAPES[split]) >= 15 for split in SPLITS)


def test_hosts_are_of_one_side(corpus: Path, examples: dict[Split, list[Example]]) -> None:
    sides = {split: {Hosts(corpus, split).stretch(Random(n)).name for n in range(60)} for split in SPLITS}
    for split in SPLITS:
        assert {side(name.partition("/")[0]) for name in sides[split]} == {split}
    assert {side(f"r{n}") for n in range(20)} == {*SPLITS}
    # What both sides of the generated names share is nothing that tells people apart.
    full = {
        split: {
            example.text[f.start : f.end]
            for example in examples[split]
            for f in example.fragments
            if f.label in ("NAME", "EMAIL") and len(example.text[f.start : f.end]) > 8
        }
        for split in SPLITS
    }
    assert len(full["train"]) > 300
    assert not full["train"] & full["test"]


def test_python_still_parses(examples: dict[Split, list[Example]]) -> None:
    code = [e for split in SPLITS for e in examples[split] if e.language == "python"]
    assert len(code) > 500
    for example in code:
        ast.parse(f"if True:\n{example.text}" if example.text.startswith(" ") else example.text)


def test_real_python_still_parses() -> None:
    """The standard library's own files, each cut and planted in at many places."""
    files = [Path(module).with_suffix(".py") for module in (ast.__file__, textwrap.__file__, re.__file__)]
    for file in files:
        lines = tuple(file.read_text().split("\n"))
        for start in range(0, len(lines) - 40, 17):
            piece = stretch(lines[start : start + 40], document("r", "a.py", "python", ""), first=start == 0)
            if piece is None:
                continue
            for point in piece.points:
                planted = [*piece.lines]
                planted.insert(point.line, f"{point.indent}password = '1'")
                ast.parse(textwrap.dedent("\n".join(planted)))
            for number in piece.tails:
                planted = [*piece.lines]
                planted[number] += "  # x"
                tree = ast.parse(textwrap.dedent("\n".join(planted)))
                assert ast.dump(tree) == ast.dump(ast.parse(textwrap.dedent("\n".join(piece.lines))))
            for number in piece.notes:
                assert piece.lines[number].lstrip().startswith("#")


def test_the_places_of_a_file() -> None:
    lines = tuple(PYTHON.split("\n"))
    piece = stretch(lines, document("r", "a.py", "python", PYTHON), first=True)
    assert piece is not None
    assert piece.top
    found = {lines[point.line].strip(): (point.scope, point.statement, len(point.indent)) for point in piece.points}
    assert found["import csv"] == ("module", False, 0)
    assert found["limit = 3"] == ("class", True, 4)
    assert found["# what is read so far"] == ("function", True, 8)
    assert found["@staticmethod"] == ("module", False, 0)
    assert not {"import this", "x = 1", "elif self.limit:", "stream,", "import sys", "else:"} & set(found)
    assert [lines[n] for n in piece.notes] == ["        # what is read so far"]
    assert [lines[n].strip() for n in piece.docstrings] == ['"""']
    c = stretch(tuple(C.split("\n")), document("r", "a.c", "c", C), first=True)
    assert c is not None
    found_c = [c.lines[point.line].strip() for point in c.points]
    assert "things; that" not in found_c
    assert "ONE," not in found_c
    assert "int total = 0;" in found_c
    assert [c.lines[n].strip() for n in c.notes] == ["// all went well"]
    json = stretch(tuple(JSON.split("\n")), document("r", "a.json", "json", JSON), first=True)
    assert json is not None
    assert len(json.points) == 21


@pytest.mark.parametrize(
    "risk",
    [
        "# Author: x",
        "# by Ada Lovelace",
        "# see Knuth, D.",
        "mail = 'a@b.org'",
        "# TODO(jd): x",
        "host = '10.1.2.3'",
        "peer = 'fe80::1'",
        "password = 'x'",
        "'token': 'x'",
        "# https://github.com/someone/x",
        "path = '/home/someone/x'",
        "sha = 'd41d8cd98f00b204e9800998ecf8427e'",
        "# Emma Watson",
        "key = 'AKIAIOSFODNN7EXAMPLEabcdefgh1234'",
        "y = a @ b",
    ],
)
def test_hosts_with_people_or_secrets_are_left_out(risk: str) -> None:
    assert not is_clean(f"x = 1\n{risk}\ny = 2\n")


def test_hosts_without_are_kept() -> None:
    assert is_clean(PYTHON)
    assert is_clean(C)
    assert is_clean(" * @param x what is summed\n@property\nversion = '1.2.3'\npassword = getpass()")


def test_addresses_are_addresses() -> None:
    from ipaddress import ip_address

    found = [addresses.address(Random(n)) for n in range(500)]
    assert {ip_address(address).version for address in found} == {4, 6}
    assert {"8.8.8.8", "127.0.0.1"} <= {*found}
    assert sum(ip_address(address).is_global for address in found) > 200


def test_a_web_token_is_one() -> None:
    import base64
    import json

    header, claims, signature = secrets.web_token(Random(1)).split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["typ"] == "JWT"
    assert "sub" in json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    assert len(signature) == 43


def test_too_small_a_corpus(tmp_path: Path) -> None:
    write_documents(tmp_path, "train", [document("r1", "a.py", "python", PYTHON)])
    with pytest.raises(UserError, match="too little code to plant"):
        next(generate(tmp_path, side("r1"), 1))
    dirty = [document("r1", f"{n}.py", "python", "# Author: x\n" * 30) for n in range(9)]
    write_documents(tmp_path, "train", dirty)
    with pytest.raises(UserError, match="build a corpus of more repositories"):
        next(generate(tmp_path, side("r1"), 1))
    with pytest.raises(UserError, match="cannot make -1"):
        next(generate(tmp_path, "train", -1))
    with pytest.raises(UserError, match="no train documents"):
        next(generate(tmp_path / "nothing", "train", 1))
