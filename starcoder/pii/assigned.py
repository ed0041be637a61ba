"""Random values that are assigned to the name of a key: `api_key = …`, `"clientSecret": …`, `X-Auth-Token: …`.

The value may be quoted or, as in `.env`, YAML and INI files, bare. What counts is the name right before it and that the
value is gibberish; names such as `public_key`, `cache_key` and `next_token` are no names of keys.
"""

import re
from collections.abc import Iterator

_VALUE = r"[A-Za-z0-9_+/.~-]{16,200}+={0,2}+(?![A-Za-z0-9_+/.~({\[=-])"
_PLACES = tuple(re.compile(f"{before}({_VALUE})", re.ASCII) for before in (r"""(?:["'`]|[=:>][ \t]{0,8}+)""", "earer "))
_LOOKED_AT = 100  # characters before a value, for its name
_NAME = re.compile(  # what stands before a value, read backwards: quote, sign, brackets, type, name
    r"""["'`]?[bru]?[ \t]{0,8}(?:>=|=:|[=:(,>])?[ \t"'`)\][]{0,8}(?:(?:gnirts|rts)[ \t]?:[ \t]?)?([\w.-]{1,60})""",
    re.ASCII,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[.-]")
_KEY = re.compile(
    r"(?:secret|token|credentials?|bearer|auth|authorization|[a-z0-9]_?key|_pat)"
    r"(?:_(?:id|value|val|str|string|text|hex|b64|base64|plain|live|prod|production|dev|test|sandbox|default))?_?\d{0,2}$"
)
_OTHER_KEY = re.compile(
    r"(?:public|pub|primary|foreign|cache|sort|partition|hash|row|group|object|dict|index|lookup|idempotency|site|unique|"
    r"host|s3|bucket|path|file|map|route|query|data|next|page|continuation|pagination|sync|upload|last|start(?:ing)?|"
    r"exclusive|resume|marker|client_request)_?(?:key|token)(?:_token)?$"
)


def assigned(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each value of 16 to 200 characters that stands behind the name of a key."""
    for place in _PLACES:
        for match in place.finditer(text):
            if is_key_name(name_before(text, match.start(1))):
                yield match.span(1)


def name_before(text: str, place: int) -> str:
    """The name that a value at `place` is assigned to, in snake case; empty without one."""
    before = text[max(0, place - _LOOKED_AT) : place].rpartition("\n")[2]
    match = _NAME.match(before[::-1])
    return _HUMP.sub("_", match[1][::-1]).lower() if match else ""


def is_key_name(name: str) -> bool:
    """Whether a name in snake case is one of a secret key or token."""
    return bool(_KEY.search(name)) and not is_other_key(name)


def is_other_key(name: str) -> bool:
    """Whether a name is one of a key that is no secret: `public_key`, `cache_key`, `next_token`."""
    return bool(_OTHER_KEY.search(name))
