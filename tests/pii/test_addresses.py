from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.pii.addresses import AddressDetector
from starcoder.pii.entity import Entity
from tests.pii.fuzz import assert_linear, assert_sound, texts

FOUND = (
    "192.168.1.10",
    "255.255.255.255",
    "127.0.0.1",
    "87.65.43.210",
    "2001:db8::1",
    "2001:db8::",
    "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
    "2001:DB8:0:0:8:800:200C:417A",
    "fe80::1%eth0",
    "fe80::5054:ff:fe9%1",
    "::ffff:10.20.30.40",
    "64:ff9b::192.0.2.33",
    "fd00:c2b6:b24b:be67:2827:688d:e6a1:6a3b",
    "2001:db8::85a3:0:0:192.0.2.1",
)
AROUND = (
    ("", ""),
    ("'", "'"),
    ("(", ")"),
    ("host=", ";"),
    ("addr: ", ","),
    ("<ip>", "</ip>"),
    ("地址", "。"),
    ('"\\n', '\\n"'),
    ("at ", "."),
    ("from ", ": no route"),
    ("[", "]:8080"),
    ("", "/24"),
    ("allow ", " deny"),
)
NOT_FOUND = (
    "1.2.3.4",
    "['7.1.4.34', 1806]",
    "(IronPython 2.7.4 (2.7.0.140) on Mono)",
    "1.2.3.4.5",
    "1.3.6.1.4.1.311",
    "256.1.1.10",
    "010.000.000.001",
    "10.0.0",
    "v10.20.30.40",
    "10.20.30.40rc1",
    "10.20.30.40-beta",
    "10.20.30.40.dev0",
    "10.20.30.40.*",
    "lib-10.20.30.40.tar.gz",
    "libfoo-10.20.30.40",
    "torch>=2.10.0.1",
    "nvidia-cublas==13.1.1.3",
    "version = '10.20.30.40'",
    "Release: 10.20.30.40",
    "host version 10.20.30.40",
    "Mozilla/5.0 Opera/9.80.12.1",
    "see section 8.2.4.44",
    "<!-- 4.4.12.1 integers",
    "// 20.8.11.2 Class template",
    '"8.2.4.45 Markup declaration',
    'ObjectIdentifier("2.5.29.15")',
    "2.5.4.10",
    "0.48.3.1",
    "M6 4.06 1.27 7 5.06-7 9.54.95.3 1.95.46 3",
    "2021-03-04",
    "04/03/2021",
    "2020-2021",
    "12:30:45",
    "aa:bb:cc:dd:ee:ff",
    "cb:2d:80:99:5a:69:52:5f",
    "d4:1d:8c:d9:8f:00:b2:04:e9:80:09:98:ec:f8:42:7e",
    "x[::1]",
    "x[::2] + x[1::2]",
    "x[0, ::2]",
    "servers[::1]",
    "x[2001::2]",
    "f(x)[10::]",
    "std::abs",
    "a::b",
    "::",
    "f32::add(a)",
    "EC2::",
    "AWS::EC2::Instance",
    "dead::beef",
    "IPv6Network('4000::/3'), IPv6Network('f800::/6')",
    "ann:x:500:500::/home/ann",
    'slice("::2")',
    "(?::0|1)",
    "2001:db8::1::2",
    "1:2:3:4:5:6:7:8:9",
)
CONTEXT = (
    ("dns 8.8.8.8", "8.8.8.8"),
    ("8.8.8.8" + " " * 90 + "server", "8.8.8.8"),
    ("a server at 1.2.3.4", "1.2.3.4"),
    ("http://1.2.3.4/", "1.2.3.4"),
    ("server: 7.1.4.34", "7.1.4.34"),
    ("'71.1.4.34'", "71.1.4.34"),
    ("the version of the server 10.20.30.40", "10.20.30.40"),
    ("ip.addr==10.20.30.40", "10.20.30.40"),
    ("if ip == '10.20.30.40'", "10.20.30.40"),
    ("ip-10.20.30.40", "10.20.30.40"),
    ("localhost/127.0.0.1", "127.0.0.1"),
    ("ann@10.20.30.40:src", "10.20.30.40"),
    ("'::1'", "::1"),
    ("http://[::1]:80/", "::1"),
    ("listen ::1", "::1"),
    ("'dead:beef::1'", "dead:beef::1"),
    ("ipv6:2001:db8::1", "2001:db8::1"),
)


def values(text: str) -> list[str]:
    return [text[entity.start : entity.end] for entity in AddressDetector().detect(text)]


@pytest.mark.parametrize("address", FOUND)
@pytest.mark.parametrize(("before", "after"), AROUND)
def test_addresses_are_found_between_what_code_puts_around_them(address: str, before: str, after: str) -> None:
    assert values(before + address + after) == [address]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_is_no_address(text: str) -> None:
    assert values(text) == []


@pytest.mark.parametrize(("text", "address"), CONTEXT)
def test_words_and_marks_around_it_decide(text: str, address: str) -> None:
    assert values(text) == [address]


def test_words_count_at_the_start_of_the_text_and_only_within_100_characters() -> None:
    assert values("dns=8.8.8.8") == ["8.8.8.8"]
    assert values("dns\n" + " " * 90 + "8.8.8.8") == ["8.8.8.8"]
    assert values("dns\n" + " " * 100 + "8.8.8.8") == []
    assert values("8.8.8.8" + " " * 100 + "server") == []


def test_ranges_and_lists_are_several_addresses() -> None:
    assert values("10.0.0.10-10.0.0.99, 10.1.1.10/255.255.255.0") == [
        "10.0.0.10",
        "10.0.0.99",
        "10.1.1.10",
        "255.255.255.0",
    ]


def test_entities_say_what_they_are() -> None:
    assert AddressDetector().detect("at 10.20.30.40") == [Entity(3, 14, "IP_ADDRESS", 1.0, "address")]


big_octets = st.lists(st.integers(40, 255), min_size=4, max_size=4).map(lambda octets: ".".join(map(str, octets)))
assigned = st.integers(0x2000 << 112, (0x4000 << 112) - 1).map(IPv6Address)
sixes = assigned.map(str) | assigned.map(lambda address: address.exploded)
zeros = st.integers(0, 3).map(lambda groups: str(IPv6Address((0x2001 << 112) | (0xDB8 << 16 * groups))))


@given(st.text(st.characters()), big_octets | sixes | zeros, st.text(st.characters()))
def test_an_address_on_a_line_of_its_own_is_found_whatever_is_around(before: str, address: str, after: str) -> None:
    expected = Entity(len(before) + 1, len(before) + 1 + len(address), "IP_ADDRESS", 1.0, "address")
    assert expected in AddressDetector().detect(f"{before}\n{address}\n{after}")


@given(st.text(st.sampled_from("0123456789abcf:.%/ [") | st.characters()))
def test_what_is_found_is_an_address(text: str) -> None:
    for value in values(text):
        assert IPv6Address(value) if ":" in value else IPv4Address(value)


@given(st.text(st.characters() | st.sampled_from("0123456789abcf:.%")))
def test_entities_are_sound_in_any_text(text: str) -> None:
    assert_sound(AddressDetector(), text)


def test_entities_are_sound_in_ten_thousand_broken_texts() -> None:
    detector = AddressDetector()
    for text in texts(10_000, seed=7):
        assert_sound(detector, text)


def test_work_grows_with_the_text_and_not_faster() -> None:
    assert_linear(AddressDetector())
