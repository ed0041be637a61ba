"""Random values are told from written ones, with the library's own model as reference."""

from importlib.resources import files
from random import Random

import pytest
from gibberish_detector.detector import Detector
from gibberish_detector.serializer import deserialize

from starcoder.pii import gibberish
from starcoder.pii.gibberish import is_gibberish, surprise
from tests.pii.secrets import HEX, LETTERS, draw

WRITTEN = [
    "CodeGenConfiguration",
    "test_serialize_and_deserialize_model",
    "application/x-www-form-urlencoded",
    "/usr/local/share/doc/readme",
    "HTTPSConnectionPool",
    "your-secret-key-here",
    "loremipsumdolorsitamet",
    "0123456789abcdef",
    "00000200050008000a00110014002000",
    "20240131235959",
    "deadbeefdeadbeef",
    "1",
    "",
    "\\\\\\n",
    "こんにちは世界",
]


def test_the_surprise_is_the_librarys() -> None:
    text = files("detect_secrets.filters.gibberish").joinpath("rfc.model").read_text(encoding="utf-8")
    reference = Detector(deserialize(text), 3.7)
    random = Random(1)
    for value in [*WRITTEN, *(draw(random, LETTERS, 30) for _ in range(50))]:
        assert surprise(value) == pytest.approx(reference.calculate_probability_of_being_gibberish(value.lower()))


@pytest.mark.parametrize("value", WRITTEN)
def test_written_values_are_no_gibberish(value: str) -> None:
    assert not is_gibberish(value)


@pytest.mark.parametrize(("alphabet", "length"), [(HEX, 32), (HEX, 64), (LETTERS, 24), (LETTERS, 40)])
def test_random_values_are_gibberish(alphabet: str, length: int) -> None:
    random = Random(2)
    assert sum(is_gibberish(draw(random, alphabet, length)) for _ in range(1000)) >= 985


def test_lines_and_quotes_of_a_key_do_not_matter() -> None:
    key = draw(Random(3), LETTERS, 64)
    assert is_gibberish(f'{key[:32]}\\n"\n  "{key[32:]}')


def test_the_model_is_read_once() -> None:
    gibberish._model.cache_clear()
    for value in WRITTEN:
        is_gibberish(value)
    assert gibberish._model.cache_info().misses == 1
