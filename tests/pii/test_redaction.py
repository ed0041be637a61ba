import ast
import hashlib
import hmac
import pickle
import re
import subprocess
import sys
from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.errors import UserError
from starcoder.pii import redaction
from starcoder.pii.detectors import open_detector
from starcoder.pii.entity import LABELS, Detector, Entity
from starcoder.pii.redaction import IPV4, IPV6, PASSES, REDACTED, Redacted, Redactor, parses, redact, redactable
from tests.conftest import ROOT

KEY = "q7Zx9Kp2Lm4Vt8Rw3Yb6Nc1D"
TEXTS = st.text(st.characters(exclude_categories=()))
PIECES = ["ada@lovelace.org", "Ada Lovelace", "Ada", KEY, "93.184.216.34", "8.8.8.8", "10.0.0.1", "2606:2800:220::1946"]
PIECES += ["<EMAIL>", "<NAME>", "<", ">", " ", "\n", '"', "#", "é", "😀", "\u202e", "x = ", "(", ")"]
WRITTEN = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


class Rules(Detector):
    """Rules that a replacement trips: what follows the end of one looks like a name, and placeholders like e-mails."""

    name = "rules"
    pattern = re.compile(
        rf"(?P<EMAIL>\w+@\w+\.org|<EMAIL>)|(?P<NAME>(?<=>)[^\W\d]+ [^\W\d]+|NAME> <NA)|(?P<KEY>{KEY})"
        r"|(?P<IP_ADDRESS>(?:\d{1,3}\.){3}\d+|(?:[0-9a-f]+:)+:[0-9a-f]+)|(?P<USERNAME>@\w+)"
    )

    def detect(self, text: str) -> list[Entity]:
        return [Entity(m.start(), m.end(), m.lastgroup or "", 1.0, self.name) for m in self.pattern.finditer(text)]


class Slow(Detector):
    """Finds one password at a time, as long as there are four small letters in a row."""

    name = "slow"

    def detect(self, text: str) -> list[Entity]:
        found = re.search("[a-z]{4}", text)
        return [Entity(found.start(), found.end(), "PASSWORD")] if found else []


def entity(text: str, value: str, label: str) -> Entity:
    start = text.index(value)
    return Entity(start, start + len(value), label)


def is_redacted(label: str, value: str) -> str | None:
    """What a value is replaced by."""
    text = f"é {value} 😀"
    found = redactable(text, [entity(text, value, label)])
    return found[0][1] if found else None


@pytest.mark.parametrize(
    ("label", "value", "replacement"),
    [
        ("EMAIL", "a@b.c", "<EMAIL>"),
        ("EMAIL", "a@b", None),  # 3 characters
        ("EMAIL", "a@bc", "<EMAIL>"),
        ("PASSWORD", "1234", "<PASSWORD>"),
        ("PASSWORD", "123", None),
        ("NAME", "Ada Lovelace", "<NAME>"),
        ("NAME", "Ada\n Lovelace", "<NAME>"),
        ("NAME", "Lovelace", None),
        ("NAME", " Lovelace ", None),
        ("NAME", "A B", None),
        ("KEY", KEY, "<KEY>"),
        ("KEY", "this_is_a_constant_name", None),  # not gibberish
        ("KEY", "7Zx9Kp2L", None),  # 8 characters
        ("USERNAME", "lovelace", None),
        ("AMBIGUOUS", "lovelace@home", None),
        ("IP_ADDRESS", "10.1.2.3", None),  # private
        ("IP_ADDRESS", "127.0.0.1", None),
        ("IP_ADDRESS", "fe80::1", None),
        ("IP_ADDRESS", "fd12:3456:789a::1", None),
        ("IP_ADDRESS", "93.184.216.340", None),  # none
        ("IP_ADDRESS", "093.184.216.34", None),
        *(("IP_ADDRESS", server, None) for server in sorted(redaction.NAME_SERVERS)),
    ],
)
def test_rules_of_the_paper(label: str, value: str, replacement: str | None) -> None:
    assert is_redacted(label, value) == replacement


def test_name_servers_are_fourteen_public_addresses() -> None:
    assert len(redaction.NAME_SERVERS) == 14
    assert all(ip_address(server).is_global for server in redaction.NAME_SERVERS)


@given(st.ip_addresses().filter(lambda address: not address.is_private and str(address) not in redaction.NAME_SERVERS))
def test_addresses_become_private_ones_of_their_kind_that_depend_on_the_value_alone(address: object) -> None:
    value = str(address)
    fake = is_redacted("IP_ADDRESS", value)
    assert fake in (IPV4 if "." in value and ":" not in value else IPV6)
    assert fake is not None
    assert is_redacted("IP_ADDRESS", fake) is None
    text = f"{value}{value} and {value}"
    places = [0, len(value), 2 * len(value) + 5]
    found = [Entity(at, at + len(value), "IP_ADDRESS") for at in places]
    assert redact(text, found).text == f"{fake}{fake} and {fake}"


def test_addresses_are_chosen_by_a_hash_that_every_process_computes_alike() -> None:
    values = [f"93.184.216.{n}" for n in range(200)]
    fakes = [is_redacted("IP_ADDRESS", value) for value in values]
    assert set(fakes) == set(IPV4)
    program = (
        "from starcoder.pii.redaction import redactable; from starcoder.pii.entity import Entity; "
        f"print([redactable(v, [Entity(0, len(v), 'IP_ADDRESS')])[0][1] for v in {values}])"
    )
    again = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ast.literal_eval(again.stdout) == fakes
    digests = [hmac.new(b"starcoder", value.encode(), hashlib.sha256).hexdigest() for value in values]
    assert fakes == [IPV4[int(digest, 16) % 5] for digest in digests]
    text = values[0]
    salted = {redactable(text, [Entity(0, len(text), "IP_ADDRESS")], salt=str(n))[0][1] for n in range(50)}
    assert salted == set(IPV4)
    assert redactable(text, [Entity(0, len(text), "IP_ADDRESS")], salt="\ud800" * 99)


def test_one_address_however_it_is_spelled_has_one_fake() -> None:
    spellings = ["2606:2800:220:1::1946", "2606:2800:0220:0001:0:0:0:1946", "2606:2800:220:1:0::1946"]
    assert len({is_redacted("IP_ADDRESS", value) for value in spellings}) == 1
    assert is_redacted("IP_ADDRESS", "2606:2800:ABCD::1") == is_redacted("IP_ADDRESS", "2606:2800:abcd::1")


@st.composite
def found_in_texts(draw: st.DrawFn) -> tuple[str, list[Entity]]:
    """A text, and entities without overlaps anywhere in it."""
    text = draw(TEXTS | WRITTEN)
    borders = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    spans = [(start, end) for start, end in zip(borders[::2], borders[1::2], strict=False) if start < end]
    return text, [Entity(start, end, draw(st.sampled_from(LABELS))) for start, end in spans]


@given(found_in_texts())
def test_nothing_outside_the_entities_changes(found: tuple[str, list[Entity]]) -> None:
    text, entities = found
    result, chosen = redact(text, entities), redactable(text, entities)
    assert {entity for entity, _ in chosen} <= set(entities)
    expected = text
    for each, replacement in reversed(chosen):  # from the end, so that places stay right
        expected = expected[: each.start] + replacement + expected[each.end :]
    assert result.text == expected
    assert result.counts == Counter(each.label for each, _ in chosen)
    if not chosen:
        assert result.text is text
    same = {(text[each.start : each.end], each.label, replacement) for each, replacement in chosen}
    assert len({(value, label) for value, label, _ in same}) == len(same)


def test_touching_entities_and_one_at_the_start_get_no_blank() -> None:
    text = "ada@lovelace.orgAda Lovelace"
    found = [Entity(0, 16, "EMAIL"), Entity(16, 28, "NAME")]
    assert redact(text, found).text == "<EMAIL><NAME>"
    assert redact(text, reversed(found)).text == "<EMAIL><NAME>"


def test_of_entities_that_overlap_the_first_counts_and_what_stays_hides_nothing() -> None:
    text = "Ada ada@lovelace.org"
    found = [Entity(0, 14, "USERNAME"), Entity(4, 20, "EMAIL"), Entity(5, 16, "PASSWORD")]
    assert redact(text, found).text == "Ada <EMAIL>"


def test_only_the_labels_that_are_asked_for() -> None:
    text = f"ada@lovelace.org {KEY}"
    found = [Entity(0, 16, "EMAIL"), Entity(17, len(text), "KEY")]
    assert redact(text, found, labels=["KEY"]) == Redacted("ada@lovelace.org <KEY>", {"KEY": 1}, {})
    for labels, message in (([], "no label is"), (["USERNAME"], "USERNAME is never"), (["EMIAL"], "no label EMIAL")):
        with pytest.raises(UserError, match=message):
            Redactor(Rules, labels)
    assert set(REDACTED) == {"EMAIL", "IP_ADDRESS", "KEY", "NAME", "PASSWORD"}


@pytest.mark.parametrize("value", ["<EMAIL>", "EMAIL", "<EMAIL", "NAME> <NA", "<NAME> <EMAIL>"])
def test_placeholders_are_not_redacted_again(value: str) -> None:
    text = "by <EMAIL>, <NAME> <EMAIL> <NAME> <NAME>"
    assert redact(text, [entity(text, value, "NAME" if " " in value else "EMAIL")]).text is text
    assert is_redacted("NAME", "<NAME> Lovelace") == "<NAME>"
    assert is_redacted("PASSWORD", "!!!!") == "<PASSWORD>"


@given(st.lists(TEXTS | WRITTEN, max_size=4), st.sampled_from(["", "python"]))
def test_afterwards_the_detector_finds_nothing_that_is_not_counted_as_left(texts: list[str], language: str) -> None:
    redactor = Redactor(Rules)
    languages = [language] * len(texts)
    for text, result in zip(texts, redactor.redact_all(texts, languages), strict=True):
        again = redactable(result.text, Rules().detect(result.text))
        assert Counter(each.label for each, _ in again) == result.left
        assert redactor.redact_all([text], [language]) == [result]
        if not result.counts:
            assert result.text is text
        if language == "":
            assert not result.left
        elif parses(text):
            assert parses(result.text)
    assert redactor.redact_all(texts, languages) == [redactor.redact_all([text], [language])[0] for text in texts]


def test_what_a_replacement_brings_to_light_is_redacted_too() -> None:
    text = f"{KEY}Ada Lovelace <"
    assert [each.label for each in Rules().detect(text)] == ["KEY"]
    (result,) = Redactor(Rules).redact_all([text], [""])
    assert result == Redacted("<KEY><NAME> <", {"KEY": 1, "NAME": 1}, {})


def test_a_detector_without_end_is_stopped_and_what_is_left_is_counted() -> None:
    text = "abcd" * PASSES
    (result, *_) = Redactor(Slow).redact_all([text, "x"], ["", ""])
    assert result == Redacted("<PASSWORD>" * PASSES, {"PASSWORD": PASSES}, {})
    (result,) = Redactor(Slow).redact_all([text + "efghi"], [""])
    assert result == Redacted("<PASSWORD>" * PASSES + "efghi", {"PASSWORD": PASSES}, {"PASSWORD": 1})


def test_a_redactor_is_pickled_without_its_detector() -> None:
    redactor = Redactor(Rules, ["EMAIL"], "pepper")
    before = len(pickle.dumps(redactor))
    assert redactor.name == "rules"
    copy = pickle.loads(pickle.dumps(redactor))
    assert len(pickle.dumps(redactor)) == before
    assert "detector" not in vars(copy)
    assert copy.redact_all(["ada@lovelace.org 93.184.216.34"], [""])[0].text == "<EMAIL> 93.184.216.34"


@pytest.mark.parametrize(
    ("code", "redacted"),
    [
        ("x = 'ada@lovelace.org'  # ada@lovelace.org\n", "x = '<EMAIL>'  # <EMAIL>\n"),
        ("x = ada@lovelace.org\ny = 'ada@lovelace.org'\n", "x = ada@lovelace.org\ny = '<EMAIL>'\n"),
        (f"{KEY} = '{KEY}'\n", f"{KEY} = '<KEY>'\n"),
        (f"f'{{{KEY}}} {KEY}'\n", f"f'{{{KEY}}} <KEY>'\n"),
        (f"\ufeffx = '\\x41{KEY}'\r\n", "\ufeffx = '\\x41<KEY>'\r\n"),
        (f"x = 1 +\n{KEY} = '{KEY}'\n", "x = 1 +\n<KEY> = '<KEY>'\n"),  # no Python
        (f"x = '\0'\n{KEY} = 1\n", "x = '\0'\n<KEY> = 1\n"),
    ],
)
def test_python_that_parsed_still_parses(code: str, redacted: str) -> None:
    (result,) = Redactor(Rules).redact_all([code], ["python"])
    assert result.text == redacted
    everything = sum(Counter(code.replace(KEY, "§").replace("ada@lovelace.org", "§"))[c] for c in "§")
    assert sum(result.counts.values()) + sum(result.left.values()) == everything


def test_an_entity_that_ends_an_escape_stays() -> None:
    code = "x = '\\x4Aada@lovelace.org'\n"
    found = [Entity(7, 24, "EMAIL")]
    assert code[7:24] == "4Aada@lovelace.or"
    assert redact(code, found, "python") == Redacted(code, {}, {"EMAIL": 1})
    assert redact(code, found).text == "x = '\\x<EMAIL>g'\n"


LINES = st.sampled_from(
    ["x = '{}'", "x = {}", "# {}", "'''\n{}\n'''", "def f(a=[{}]):\n    return 1", "f'{{{}}}'", "b'\\\\{}'", "del {}"]
)
VALUES = st.sampled_from(["ada@lovelace.org", KEY, "93.184.216.34", "a[1::2]", "2606:2800::1"])


@given(st.lists(st.tuples(LINES, VALUES), max_size=8), st.booleans())
def test_any_python_that_parsed_still_parses(lines: list[tuple[str, str]], python: bool) -> None:
    code = "\n".join(line.format(value) for line, value in lines)
    (result,) = Redactor(Rules).redact_all([code], ["python" if python else "c"])
    if python and parses(code):
        assert parses(result.text)
        assert code.count("# ") == 0 or not re.search(r"# \w+@", result.text)
    else:
        assert not result.left


def test_thousands_that_must_stay_are_not_tried_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "".join(f"x{n} = ada@lovelace.org\ny{n} = 'ada@lovelace.org'\n" for n in range(2000))
    monkeypatch.setattr(redaction, "_PARSED", 30 * len(code))
    (result,) = Redactor(Rules).redact_all([code], ["python"])
    assert parses(result.text)
    assert sum(result.counts.values()) + sum(result.left.values()) == 4000


@pytest.mark.parametrize("code", ["(" * 100_000, "-" * 100_000 + "1", "[" * 300 + "]" * 300, "\ud800", "x = '\0'"])
def test_what_python_cannot_take_is_no_python(code: str) -> None:
    assert not parses(code)


def test_strange_escapes_do_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    assert parses("x = '\\d'")
    assert not recwarn.list


def test_the_rules_together_leave_nothing_to_redact() -> None:
    text = f"# Ada Lovelace <ada@lovelace.org>, 93.184.216.34\nkey = '{KEY}{KEY[::-1]}'\n"
    redactor = Redactor(open_detector)
    (result,) = redactor.redact_all([text], ["python"])
    assert redactor.name == "regex"
    assert result.text == f"# Ada Lovelace <<EMAIL>>, {is_redacted('IP_ADDRESS', '93.184.216.34')}\nkey = '<KEY>'\n"
    assert not result.left
    assert not redactable(result.text, open_detector().detect(result.text))
