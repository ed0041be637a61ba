"""People who do not exist, with names of many languages, and the addresses and handles they would have chosen."""

import importlib
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random

from starcoder.pii.plant.sides import Split, fold, listed, share

# Which names, and how often, among a hundred people.
_LATIN = """
en_US 24 en_GB 5 en_IE 2 en_IN 6 en_KE 1 en_PK 2 de_DE 7 fr_FR 5 es_ES 4 es_MX 2 it_IT 3 pt_BR 3 nl_NL 3 cs_CZ 2 sk_SK 1
sv_SE 3 no_NO 1 fi_FI 2 da_DK 2 tr_TR 2 hu_HU 1 ro_RO 1 hr_HR 1 sl_SI 1 et_EE 1 lv_LV 1 id_ID 2 yo_NG 1 zu_ZA 1 tw_GH 1
"""
_OTHER = (
    "ru_RU 4 uk_UA 2 bg_BG 1 el_GR 1 zh_CN 4 zh_TW 1 ja_JP 3 ko_KR 2 ar_AA 1 he_IL 1 hi_IN 1 th_TH 1 ta_IN 1 ka_GE 1"
)
_CHINESE = {"zh_CN", "zh_TW", "ja_JP", "ko_KR"}
_WORDS = ("de_DE", "fr_FR", "es_ES", "it_IT", "nl_NL", "pl_PL", "cs_CZ", "fil_PH", "la")
_FOREIGN = 100
_SLANG = """
dragon ninja shadow pixel cosmic zombie rocket turbo laser ghost viper phoenix falcon tiger panda koala wizard hacker
coder nerd geek byte cyber quantum nova lunar solar storm thunder blaze frost ember raven wolf bear fox hawk otter lynx
samurai pirate viking titan atlas orion comet nebula mango pickle waffle noodle taco cookie banana pepper ginger mocha
espresso guitar drummer skater surfer gamer rusty crazy lazy happy silent secret magic mighty tiny super mega ultra
"""
_FREE_MAIL = listed("""
    gmail.com|outlook.com|hotmail.com|yahoo.com|gmx.de|web.de|free.fr|163.com|qq.com|mail.ru|yandex.ru|protonmail.com
    |icloud.com|googlemail.com|me.com|fastmail.fm
""")
_ENDINGS = listed("""
    com|com|com|org|net|io|de|fr|co.uk|nl|dev|co|ch|se|com.br|in|jp|cz|it|eu|us|com.au|tech|ai|info|ru|cn|pl|fi|me|ca
""")
_LETTER = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Pool:
    """What people of one split are made of; the other split shares nothing of it.

    Attributes:
        latin: (first names, last names) of each locale in Latin script.
        latin_weights: How often a locale is drawn.
        other: The same in other scripts, with the locale's name.
        other_weights: How often.
        words: Lower-case ASCII words of several languages, 4 to 9 letters.
        names: Lower-case ASCII first and last names.
    """

    latin: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    latin_weights: tuple[int, ...]
    other: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
    other_weights: tuple[int, ...]
    words: tuple[str, ...]
    names: tuple[str, ...]


@dataclass
class Person:
    """Somebody.

    Attributes:
        first: First name in Latin script.
        last: Last name in Latin script.
        shown: The name in full, as this person writes it, in any script.
        handle: What they are called on the internet.
        email: Their address.
    """

    first: str
    last: str
    shown: str
    handle: str = field(default="")
    email: str = field(default="")


def _table(text: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    fields = text.split()
    return tuple(fields[::2]), tuple(map(int, fields[1::2]))


def names_of(locale: str) -> tuple[set[str], set[str]]:
    """First and last names of one of Faker's locales."""
    provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
    found: tuple[set[str], set[str]] = (set(), set())
    for names, prefix in zip(found, ("first_name", "last_name"), strict=True):
        for attribute in dir(provider):
            values = getattr(provider, attribute)
            if attribute.startswith(prefix) and isinstance(values, tuple | list | dict | set):
                names.update(name for name in values if isinstance(name, str) and name.isprintable())
    return found


def _words_of(locale: str) -> tuple[str, ...]:
    return tuple(importlib.import_module(f"faker.providers.lorem.{locale}").Provider.word_list)


@cache
def pool(split: Split) -> Pool:
    """The pool of `split`."""
    latin, latin_weights = _table(_LATIN)
    other, other_weights = _table(_OTHER)
    shares = {name: tuple(share(names, split) for names in names_of(name)) for name in latin + other}
    words = {fold(word) for locale in _WORDS for word in _words_of(locale)[:_FOREIGN]} | set(_words_of("en_US"))
    words = {word for word in words if word.isascii() and word.isalpha() and 4 <= len(word) <= 9}
    names = {fold(name) for locale in latin for names in shares[locale] for name in names}
    return Pool(
        tuple((shares[name][0], shares[name][1]) for name in latin),
        latin_weights,
        tuple((name, shares[name][0], shares[name][1]) for name in other),
        other_weights,
        share(words | set(_SLANG.split()), split),
        tuple(sorted(name for name in names if name.isascii() and name.isalpha() and len(name) > 2)),
    )


def person(split: Split, random: Random) -> Person:
    """Somebody of `split`."""
    everybody = pool(split)
    firsts, lasts = random.choices(everybody.latin, everybody.latin_weights)[0]
    first, last = random.choice(firsts), random.choice(lasts)
    shown = _written(first, last, random.choice(firsts), random)
    if random.random() < 0.12:
        locale, firsts, lasts = random.choices(everybody.other, everybody.other_weights)[0]
        local = random.choice(firsts), random.choice(lasts)
        shown = local[1] + local[0] if locale in _CHINESE else " ".join(local)
    found = Person(first, last, shown)
    found.handle = handle(found, everybody.words, random)
    found.email = email(found, everybody.words, random)
    return found


def _written(first: str, last: str, middle: str, random: Random) -> str:
    forms = (
        (60, f"{first} {last}"),
        (8, f"{first} {middle[0]}. {last}"),
        (5, f"{first[0]}. {last}"),
        (3, f"{first[0]}. {middle[0]}. {last}"),
        (3, f"{last}, {first}"),
        (2, f"{last.upper()}, {first}"),
        (2, f"{last.upper()} {first}"),
        (3, f"{first} {middle} {last}"),
        (4, f"{first.lower()} {last.lower()}"),
        (2, f"{first}-{middle} {last}"),
        (5, first),
        (2, f"{first} {last[0]}."),
    )
    weights, texts = zip(*forms, strict=True)
    return str(random.choices(texts, weights)[0])


def _plain(name: str) -> str:
    return "".join(_LETTER.findall(fold(name))) or "anon"


def handle(someone: Person, words: Sequence[str], random: Random) -> str:
    """What `someone` would call themselves: of their name or of words, at least three characters."""
    first, last = _plain(someone.first), _plain(someone.last)
    one, two = random.choice(words), random.choice(words)
    number = str(random.choice([random.randrange(1, 10), random.randrange(10, 100), random.randrange(1970, 2012)]))
    forms = (
        (12, first[0] + last),
        (8, first + last),
        (6, first + last[0]),
        (5, first + "-" + last),
        (4, first + "_" + last),
        (4, first + "." + last),
        (5, last),
        (5, first),
        (5, first + number),
        (4, first[0] + last + number),
        (3, last + first[0]),
        (3, first.capitalize() + last.capitalize()),
        (6, one + two),
        (4, one.capitalize() + two.capitalize()),
        (5, one + number),
        (3, one + "-" + two),
        (3, one + "_" + first),
        (2, "x" + one.capitalize() + "x"),
        (2, "the" + one),
        (2, "".join(letter for letter in last if letter not in "aeiou") + number),
        (2, "mr" + random.choice("_-") + one),
        (2, first[:2] + last[:2] + random.choice(string.digits)),
        (2, one[:4] + "zilla"),
    )
    weights, texts = zip(*forms, strict=True)
    found = str(random.choices(texts, weights)[0])
    return found if len(found) > 2 else first + last


def domain(words: Sequence[str], random: Random) -> str:
    """The domain of a company, a university or a person."""
    one, two = random.sample(words, 2)
    stem = random.choice([one + two, one, one + "-" + two, one + "labs", one + "soft", "cs." + one, "mail." + two])
    ending = "edu" if stem.startswith("cs.") else random.choice(_ENDINGS)
    return f"{stem}.{ending}"


def email(someone: Person, words: Sequence[str], random: Random) -> str:
    """An address of `someone`."""
    first, last = _plain(someone.first), _plain(someone.last)
    forms = (
        *(f"{first}.{last}", f"{first}.{last}", first[0] + last, first, last, f"{first}_{last}", first + last[0]),
        *(f"{last}.{first}", first + last, f"{first}-{last}", f"{first[0]}.{last}", f"{first}+{random.choice(words)}"),
        *(someone.handle.lower(), someone.handle.lower(), f"{last}{random.randrange(100)}", random.choice(words)),
    )
    local = random.choice(forms)
    if random.random() < 0.04:
        return f"{random.randrange(10**5, 10**8)}+{someone.handle}@users.noreply.github.com"
    if random.random() < 0.06:
        local = local.title()
    host = random.choice(_FREE_MAIL) if random.random() < 0.4 else domain(words, random)
    return f"{local}@{host}"


@cache
def first_names() -> frozenset[str]:
    """The first names of both splits, folded: what a look for people in real code goes by."""
    locales, _ = _table(_LATIN)
    return frozenset(fold(name) for locale in locales for name in names_of(locale)[0] if len(name) > 2)
