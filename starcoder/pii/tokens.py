"""Keys that say what they are: the formats of tokens, and private keys in PEM.

detect-secrets lacks most of them and cuts others short. Every pattern starts with a literal or a rare character and
never goes back over a run, so the time is linear in the text. The formats are public; where a scheme has grown longer
keys with the years, its pattern takes all lengths.
"""

import re
from collections.abc import Iterator
from functools import cache

_END = r"(?![A-Za-z0-9_-])"
FORMATS = {
    "GitHub": rf"gh[pousr]_[A-Za-z0-9]{{36,255}}+{_END}",
    "GitHub, fine-grained": rf"github_pat_[A-Za-z0-9]{{22}}_[A-Za-z0-9]{{59}}{_END}",
    "GitLab": r"gl(?:pat|dt|rt|ft|soat|cbt|ptt)-[\w.-]{20,300}+",
    "AWS access key id": rf"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{{16}}{_END}",
    "Google API": rf"AIza[\w-]{{35}}{_END}",
    "Google OAuth secret": rf"GOCSPX-[\w-]{{28}}{_END}",
    "Google OAuth token": r"ya29\.[\w-]{30,2000}+",
    "Slack": r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,300}+",
    "Slack, app": r"xapp-\d-[A-Z0-9]{9,15}-\d{9,15}-[a-f0-9]{64}",
    "Slack, hook": r"hooks\.slack\.com/(?:services|workflows)/([A-Z][A-Z0-9]{7,12}/[A-Z][A-Z0-9]{7,12}/\w{20,30}+)",
    "Stripe": rf"sk_(?:live|test)_[A-Za-z0-9]{{16,250}}+{_END}",
    "Stripe, restricted": rf"rk_(?:live|test)_[A-Za-z0-9]{{16,250}}+{_END}",
    "Stripe, hook": rf"whsec_[A-Za-z0-9+/]{{32,80}}+{_END}",
    "npm": rf"npm_[A-Za-z0-9]{{36}}{_END}",
    "PyPI": r"pypi-[\w-]{50,1000}+",
    "Hugging Face": rf"hf_[A-Za-z0-9]{{30,40}}{_END}",
    "OpenAI": rf"sk-[A-Za-z0-9]{{32,64}}+{_END}",
    "OpenAI and Anthropic": r"sk-(?:proj|svcacct|admin|None|ant-[a-z]+\d\d|or-v1)-[\w-]{32,300}+",
    "SendGrid": rf"SG\.[\w-]{{22}}\.[\w-]{{43}}{_END}",
    "Twilio": rf"SK[0-9a-f]{{32}}{_END}",
    "Azure storage": r"AccountKey=([A-Za-z0-9+/]{86}==)",
    "Azure shared access": r"SharedAccessKey=([A-Za-z0-9+/]{43}=)",
    "Telegram": rf"[0-9]{{8,10}}:AA[\w-]{{33}}{_END}",
    "Mailgun": rf"key-[0-9a-f]{{32}}{_END}",
    "DigitalOcean": rf"do[opr]_v1_[0-9a-f]{{64}}{_END}",
    "Shopify": rf"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{{32}}{_END}",
    "Square": rf"sq0[a-z]{{3}}-[\w-]{{22,43}}+{_END}",
    "Databricks": rf"dapi[0-9a-f]{{32}}{_END}",
    "Docker Hub": rf"dckr_[po]at_[\w-]{{27,32}}+{_END}",
    "Grafana": rf"glsa_[A-Za-z0-9]{{32}}_[0-9a-f]{{8}}{_END}",
    "New Relic": rf"NRAK-[A-Z0-9]{{27}}{_END}",
    "age": r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    "JSON Web Token": r"eyJ(?:(?<![\w-]eyJ)|(?<=\\[nrt]eyJ))[\w-]{10,}+\.eyJ[\w-]{10,}+\.[\w-]{20,}+",
}
"""Pattern of each format; its first group, or all of it, is the key."""
_NEEDS = {"Telegram": ":AA"}  # a literal inside of a pattern that starts with a common character


_BREAK = r"""(?:\\[nrt]|[\s"'\\,+;#*>])"""  # between the lines of a key, as a file or as a string has them
_LINE = "[A-Za-z0-9/+=]"
_PRIVATE_KEY = (
    rf"-----BEGIN (?:[A-Z0-9]+ ){{0,3}}PRIVATE KEY(?: BLOCK)?-----{_BREAK}*+"
    rf"(?:[A-Z][A-Za-z-]{{3,20}}: [\w ,.()/@-]{{1,80}}+{_BREAK}++)*+"  # Proc-Type, DEK-Info, Version
    rf"({_LINE}{{16,}}+(?:{_BREAK}++{_LINE}{{16,}}+)*+(?:{_BREAK}++{_LINE}{{1,15}}+)?)"
)
_SHORTEST_BODY = 48  # characters; an Ed25519 key has 64


def tokens(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each token of a known format; placeholders among them."""
    for literal, pattern in _patterns():
        for match in pattern.finditer(text) if literal in text else ():
            if _starts(text, match.start()):
                yield match.span(match.re.groups)


def private_keys(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of the body of each private key in PEM, which may have many lines or stand in a string."""
    for match in re.finditer(_PRIVATE_KEY, text, re.ASCII):
        if len(match[1]) >= _SHORTEST_BODY:
            yield match.span(1)


def _starts(text: str, place: int) -> bool:
    """Whether a word starts there; the escape of a line end in a string literal is no part of it."""
    before = text[max(0, place - 2) : place]
    return not re.search(r"[A-Za-z0-9_-]$", before) or bool(re.fullmatch(r"\\[nrt]", before))


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    return [(_NEEDS.get(name, ""), re.compile(pattern, re.ASCII)) for name, pattern in FORMATS.items()]
