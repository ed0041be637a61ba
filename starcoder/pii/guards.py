"""What keeps findings of keys honest: the paper's filters and guards (§4.2), and ours for what has no format."""

import base64
import binascii
import re
from functools import lru_cache
from itertools import pairwise

from starcoder.pii.assigned import is_key_name, is_other_key, name_before
from starcoder.pii.gibberish import is_gibberish
from starcoder.pii.prefilter import Finding

_HASHES = re.compile(r"sha|md5|hash|byte", re.IGNORECASE)
_HASH_LENGTHS = (32, 40, 64)
_HASH_SHARE = 0.02  # mentions of "sha" and "hash" a line, above which a file is about hashes
_PLACEHOLDER = re.compile(
    r"example|sample|dummy|placeholder|change_?me|your|redacted|insert|lorem|xxxx|0000000|1234567|abcdefg|(.)\1{5}|\.{3}"
)
_DIGEST = re.compile(r".{0,8}?(?:sha\d{1,3}|md5)[-:$]", re.IGNORECASE | re.DOTALL)
_LONGEST = 128  # characters of a key without a format; longer ones are data
_DATA = (
    "MII",
    "LS0tLS1CRUdJTiBDRVJU",
    "iVBORw0KGgo",
    "/9j/",
    "R0lGOD",
    "UklGR",
    "d09GR",
    "AAEAAAA",
    "PHN2Zy",
    "T1RUTw",
)
_ABOUT_KEYS = re.compile(r"key|secret|token|credential|auth|bearer", re.IGNORECASE)
_NO_KEY = re.compile(
    r"sha_?\d{0,3}$|(?:^|_)(?:.?ids?|uuid|guid|oid|etag|digest|checksum|commit|revision|rev|version|integrity|fingerprint|thumbprint|"
    r"cursor|nonce|cert|certificate|signature|image|data|src|href|url|alphabet|chars)$"
)


def passes_filters(finding: Finding) -> bool:
    """The paper's rules for one finding: detect-secrets' filters, gibberish, and no hash by its length and line."""
    from detect_secrets.filters import heuristic

    value = finding.value
    return not (
        heuristic.is_potential_uuid(value)
        or heuristic.is_likely_id_string(value, finding.line, finding.plugin)
        or heuristic.is_templated_secret(value)
        or heuristic.is_sequential_string(value)
        or not is_gibberish(value)
        or (len(value) in _HASH_LENGTHS and _first_hash(finding.line) <= finding.offset)
    )


@lru_cache(maxsize=16)
def _first_hash(line: str) -> int:
    """Where the first mention of a hash ends; behind the line without one."""
    match = _HASHES.search(line)
    return match.end() if match else len(line) + 1


def is_about_hashes(text: str) -> bool:
    """Whether a file mentions "sha" or "hash" on more than 2 % of its lines, as the paper's rule counts."""
    folded = text.lower()
    return folded.count("sha") + folded.count("hash") > _HASH_SHARE * (text.count("\n") + 1)


def may_be_key(value: str) -> bool:
    """Whether a token or an assigned value is random and no placeholder, UUID or text in base64."""
    from detect_secrets.filters import heuristic

    known = is_placeholder(value) or heuristic.is_potential_uuid(value) or _is_encoded_text(value)
    return is_gibberish(value) and not known


def is_placeholder(value: str) -> bool:
    """Whether a value was written to show what a key looks like: `AKIA…EXAMPLE`, `xxxx`, `1234567`, an alphabet."""
    return bool(_PLACEHOLDER.search(value.lower())) or _is_alphabet(value)


def _is_alphabet(value: str) -> bool:
    """Whether neighbours often follow each other, or no character occurs twice in 23: random keys do neither."""
    steps = sum(ord(second) - ord(first) == 1 for first, second in pairwise(value))
    return steps > len(value) / 5 or (len(value) > 22 and len(set(value)) == len(value))


def is_no_key(text: str, start: int, end: int) -> bool:
    """Whether a value is something else, by its look or its name: a hash, a UUID, a picture, a placeholder, an id."""
    from detect_secrets.filters import heuristic

    value, name = text[start:end], name_before(text, start)
    return bool(
        _DIGEST.match(text, max(0, start - 8), end)
        or value.startswith(_DATA)
        or is_placeholder(value)
        or heuristic.is_potential_uuid(value)
        or _NO_KEY.search(name)
        or is_other_key(name)
    )


def is_secret(finding: Finding) -> bool:
    """Whether a finding of an entropy plugin is more than a quoted value: others always are."""
    if not hasattr(finding.plugin, "entropy_limit"):
        return True
    value, name = finding.value, name_before(finding.line, finding.offset)
    if "\\" in value or len(value) > _LONGEST or value.startswith(_DATA):
        return False
    if _NO_KEY.search(name) or is_other_key(name):
        return False
    if is_key_name(name):
        return True
    if re.fullmatch(r"[0-9A-Fa-f]+", value):
        return bool(_ABOUT_KEYS.search(finding.line, max(0, finding.offset - 100), finding.offset))
    return not _is_encoded_text(value)


def _is_encoded_text(value: str) -> bool:
    """Whether a value is ASCII text in base64."""
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True).isascii()
    except binascii.Error:
        return False
