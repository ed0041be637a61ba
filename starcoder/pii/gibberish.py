"""Whether a value looks drawn at random: the guard of the paper's keys (§4.2), over detect-secrets' character model.

The model knows pairs of letters: it cannot judge digits, and a hex value holds too few letters for it. So how often the
value changes between small letters, capitals and digits counts too. Asked alone at detect-secrets' limit of 3.7, the
model misses 5 % of random keys; with the changes it misses 1.4 % and takes as few identifiers for keys.
"""

import math
import re
from collections import Counter
from functools import cache
from itertools import pairwise

_LIMIT = 3.9  # mean surprise in nats, plus the weighted changes
_WEIGHT = 2.0  # one change a character counts as two nats; random base62 has 0.4 a character, identifiers 0.04
_JUDGED = 4096  # characters of a value that are looked at
_LINE_ENDS = re.compile(r"\\[nrt]|[\s\"'\\,#*+;]")  # what stands between the lines of a key in source code
_HEX = re.compile(r"[0-9a-f-]+|[0-9A-F-]+")
_CHANGE = re.compile(r"(?<=[a-z])[A-Z0-9]|(?<=[0-9])[A-Za-z]|(?<=[A-Z])[0-9]")


def is_gibberish(value: str) -> bool:
    """Whether `value` looks random rather than written: identifiers, words, paths and numbers do not."""
    value = _LINE_ENDS.sub("", value[:_JUDGED])
    longest = max(re.split("[_-]", value), key=len)
    if _HEX.fullmatch(value) or (len(longest) >= 32 and _HEX.fullmatch(longest)):
        return _is_mixed(longest)
    return surprise(value) + _WEIGHT * changes(value) > _LIMIT


def _is_mixed(value: str) -> bool:
    """Whether a hex value is as mixed as all but one in a thousand random ones."""
    return changes(value) > 0.1 and entropy(value) > (2.4 if len(value) < 32 else 3.1)


def changes(value: str) -> float:
    """Changes between small letters, capitals and digits per character; a capitalised word is no change."""
    return len(_CHANGE.findall(value)) / max(1, len(value))


def entropy(value: str) -> float:
    """Shannon entropy of the value's characters in bits."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value).values())


def surprise(value: str) -> float:
    """Mean surprise of the value's letter pairs in nats, 0 without pairs; what `gibberish_detector` computes."""
    model = _model()
    letters = [letter for letter in value.lower() if letter in model]
    pairs = pairwise(letters)
    return sum(model[first][second] for first, second in pairs) / max(1, len(letters) - 1)


@cache
def _model() -> dict[str, dict[str, float]]:
    """Surprise of each letter after each: the model that detect-secrets brings, read once in a process."""
    from importlib.resources import files

    from gibberish_detector.serializer import deserialize

    text = files("detect_secrets.filters.gibberish").joinpath("rfc.model").read_text(encoding="utf-8")
    model: dict[str, dict[str, float]] = deserialize(text).normalize()
    return model
