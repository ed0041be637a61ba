import pytest
from faker import Faker
from hypothesis import given
from hypothesis import strategies as st

from starcoder.pii.emails import EmailDetector
from starcoder.pii.entity import Entity
from tests.pii.fuzz import assert_linear, assert_sound, texts

FOUND = (
    "ann@example.org",
    "Ann.Lee+code@mail.some-company.co.uk",
    "a_b-c@x.io",
    "x@" + "b." * 10 + "com",
    "a" * 64 + "@example.org",
    "ann@xn--fo-fka.xn--p1ai",
    "jörg@müller.de",
    "用户@例子.广告",
    "राम@उदाहरण.भारत",
    "31018228+ann@users.noreply.github.com",
    "git@ann-lee.org",
)
AROUND = (
    ("", ""),
    ("<", ">"),
    ("'", "'"),
    ("(", "),"),
    ("mailto:", "?subject=x"),
    ("to=", "&cc=b"),
    ("&lt;", "&gt;"),
    ('"\\n', '\\n"'),
    ("\\u003c", "\\u003e"),
    ("%3C", "%3E"),
    ("**", "**"),
    ("联系", "。"),
    ("¿", "?"),
    ("", "।"),
    ("//", "\n"),
    ("- ", ". Then"),
    ("bob@x.org,", ";"),
    ("..", ":"),
    ("[", "](https://x.org)"),
)
NOT_FOUND = (
    "@app.route('/')",
    "a@b.T",
    "y = (x@w.sum())",
    "x@w.weight[0]",
    "git@github.com:ann/repo.git",
    "git@example.org:repo.git",
    "['git@github.com']",
    "deploy@example.org:srv/repo",
    "ssh://ann@example.org/repo",
    "https://user:secret@example.org",
    "http://ann@example.org:8080/",
    "lodash@4.17.21",
    "@types/node@18.x",
    "kde@localhost",
    "icon@2x.png",
    "core@next.js",
    "%s@example.org",
    "%(name)s@example.org",
    "$user@example.org",
    "{user}@example.org",
    "/home/ann@example.org",
    "ann@example.org/path",
    "ann@example.org:25",
    "a@b@example.org.x1",
    "a" * 65 + "@example.org",
    "a.@example.org",
    "a=@example.org",
    "ann@-example.org",
    "ann@example-.org",
    "ann@exa..org",
    "ann@" + "b" * 64 + ".org",
    "ann@example.o",
    "ann@example.org1",
    "ann@example.org.1",
    "memcpy@GLIBC_2.2.5",
    "Message-ID: <ann-1@example.org>",
    "b'Message-Id: <ann-1@example.org>\\r\\n'",
    "msg['In-Reply-To'] = '<ann-1@example.org>'",
    "add_header('Content-ID', '<ann-1@example.org>')",
    "References: <a@example.org>\n\t<b@example.org> <c@example.org>",
    "<142480216486.20800.165@example.org>",
)


def values(text: str) -> list[str]:
    return [text[entity.start : entity.end] for entity in EmailDetector().detect(text)]


@pytest.mark.parametrize("address", FOUND)
@pytest.mark.parametrize(("before", "after"), AROUND)
def test_addresses_are_found_between_what_code_puts_around_them(address: str, before: str, after: str) -> None:
    if before == "联系" and not address.isascii():
        pytest.skip("a Han character delimits only where the address has none")
    assert address in values(before + address + after)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_is_no_address(text: str) -> None:
    assert values(text) == []


def test_entities_say_what_they_are() -> None:
    text = "Ann <ann@example.org>, Bob <bob@example.org>"
    first, second = EmailDetector().detect(text)
    assert first == Entity(5, 20, "EMAIL", 1.0, "email")
    assert text[second.start : second.end] == "bob@example.org"


def test_a_dot_ends_a_sentence_and_a_doubled_one_begins_an_address() -> None:
    assert values("Write to ann@example.org. Or a..bob@example.org") == ["ann@example.org", "bob@example.org"]


@pytest.mark.parametrize(
    "before", ["Message-ID: <1@x.org>\nFrom: <", "Message-ID: ", "see the references <", "References: Ann <"]
)
def test_only_what_follows_the_header_names_a_message(before: str) -> None:
    assert values(f"{before}ann@example.org>")[-1:] == ["ann@example.org"]


@pytest.mark.parametrize("locale", ["en_US", "de_DE", "ja_JP", "ru_RU", "hi_IN", "pt_BR"])
def test_all_addresses_that_faker_makes_are_found(locale: str) -> None:
    fake = Faker(locale)
    fake.seed_instance(7)
    planted = [fake.email(safe=False) for _ in range(200)]
    assert values("\n".join(f"# {fake.name()} <{address}>" for address in planted)) == planted


@given(st.text(st.characters()), st.sampled_from(FOUND), st.text(st.characters()))
def test_an_address_on_a_line_of_its_own_is_found_whatever_is_around(before: str, address: str, after: str) -> None:
    assert Entity(len(before) + 1, len(before) + 1 + len(address), "EMAIL", 1.0, "email") in EmailDetector().detect(
        f"{before}\n{address}\n{after}"
    )


@given(st.text(st.characters() | st.sampled_from("@.:a1-")))
def test_entities_are_sound_in_any_text(text: str) -> None:
    assert_sound(EmailDetector(), text)


def test_entities_are_sound_in_ten_thousand_broken_texts() -> None:
    detector = EmailDetector()
    for text in texts(10_000, seed=7):
        assert_sound(detector, text)


def test_work_grows_with_the_text_and_not_faster() -> None:
    assert_linear(EmailDetector())
