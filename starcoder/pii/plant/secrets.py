"""Keys and passwords that open nothing, in the shapes that services and people give them.

A shape is text with fields `<alphabet:length>`; what it shows of a service's format is public in that service's
documentation, the rest is random.
"""

import base64
import json
import re
import string
from collections.abc import Callable, Sequence
from random import Random

from starcoder.pii.plant.sides import Split, listed

_ALPHABETS = {
    "d": string.digits,
    "hex": "0123456789abcdef",
    "HEX": "0123456789ABCDEF",
    "low": string.ascii_lowercase + string.digits,
    "UP": string.ascii_uppercase + string.digits,
    "b32": string.ascii_uppercase + "234567",
    "an": string.ascii_letters + string.digits,
    "b64": string.ascii_letters + string.digits + "+/",
    "url": string.ascii_letters + string.digits + "-_",
    "sym": string.ascii_letters + string.digits + "!#$%*+-=?^_~.",
}
_FIELD = re.compile(r"<(\w+):(\d+)>")

# More for training than for testing alone; "both" are the shapes that a detector is expected to know.
_SHAPES = """
both aws-id AKIA<b32:16>
both aws-secret <b64:40>
both github ghp_<an:36>
both slack-bot xoxb-<d:12>-<d:12>-<an:24>
both stripe sk_live_<an:24>
both google AIza<url:35>
both sendgrid SG.<url:22>.<url:43>
both twilio SK<hex:32>
both azure <b64:86>==
both hex32 <hex:32>
both hex40 <hex:40>
both hex64 <hex:64>
both base64 <b64:43>=
both token <an:32>
train github-app ghs_<an:36>
train npm npm_<an:36>
train slack-user xoxp-<d:11>-<d:12>-<d:12>-<hex:32>
train gitlab glpat-<url:20>
train mailchimp <hex:32>-us1
train facebook EAACEdEose0cBA<an:60>
train telegram <d:9>:AA<url:33>
train hub hf_<an:34>
train linear lin_api_<an:40>
train mixed <an:40>
train short <an:20>
train upper <UP:32>
train base64-24 <b64:22>==
train dashes <low:8>-<low:8>-<low:8>-<low:8>
train heroku-oauth <url:43>
train django <sym:50>
train twitter <d:18>-<an:40>
train shopify shpat_<hex:32>
train postman PMAK-<hex:24>-<hex:34>
train databricks dapi<hex:32>
train docker dckr_pat_<url:27>
train newrelic NRAK-<UP:27>
train vault hvs.<an:24>
train grafana glsa_<an:32>_<hex:8>
train notion secret_<an:43>
train rubygems rubygems_<hex:48>
train atlassian ATATT3xFfGF0<url:60>
train stripe-test sk_test_<an:24>
train firebase AAAA<url:7>:APA91b<url:100>
train instagram <d:10>.<hex:7>.<hex:32>
train hex24 <hex:24>
train hex48 <hex:48>
train hex128 <hex:128>
train base32 <b32:32>
train base64-32 <b64:32>
train base64-64 <b64:64>
train url43 <url:22>-<url:20>
train license <UP:5>-<UP:5>-<UP:5>-<UP:5>-<UP:5>
train service <low:3>_<an:28>
train two-parts <an:12>:<an:24>
train symbols <sym:32>
train mixed-24 <an:24>
train mixed-64 <an:64>
test github-fine github_pat_<an:22>_<an:59>
test pypi pypi-AgEIcHlwaS5vcmc<url:90>
test discord M<an:23>.<url:6>.<url:27>
test digitalocean dop_v1_<hex:64>
test openai sk-<an:20>T3BlbkFJ<an:20>
test google-oauth GOCSPX-<url:28>
test square sq0atp-<url:22>
test lower <low:24>
test HEX <HEX:40>
test base64-url <url:64>
test letters <an:16>
test mailgun key-<hex:32>
"""
SHAPES: dict[Split, dict[str, str]] = {"train": {}, "test": {}}
"""Split → name → shape of a key; some names are in the test alone."""
for _row in _SHAPES.strip().splitlines():
    _side, _name, _shape = _row.split(" ", 2)
    for _split, _shapes in SHAPES.items():
        if _side in ("both", _split):
            _shapes[_name] = _shape


def shaped(shape: str, random: Random) -> str:
    """`shape` with its fields filled."""
    return _FIELD.sub(lambda field: "".join(random.choices(_ALPHABETS[field[1]], k=int(field[2]))), shape)


def key(split: Split, random: Random) -> str:
    """A key in any shape of the split; one in twelve is a JSON web token."""
    if random.random() < 1 / 12:
        return web_token(random)
    return shaped(random.choice(list(SHAPES[split].values())), random)


def web_token(random: Random) -> str:
    """A JSON web token with a true header and claims."""
    header = {"alg": random.choice(["HS256", "RS256", "HS512"]), "typ": "JWT"}
    claims = {"sub": str(random.randrange(10**9)), "iat": random.randrange(1_400_000_000, 1_700_000_000)}
    parts = [
        base64.urlsafe_b64encode(json.dumps(part, separators=(",", ":")).encode()).decode() for part in (header, claims)
    ]
    return ".".join([*(part.rstrip("=") for part in parts), shaped("<url:43>", random)])


def pem_body(random: Random, newline: str = "\n") -> str:
    """The base64 lines between the BEGIN and END lines of a private key."""
    lines = [shaped("<b64:64>", random) for _ in range(random.randint(2, 6))]
    first = random.choice(["MII", "MHc", "b3BlbnNzaC1rZXktdjEAAAAA"])
    return newline.join([(first + lines[0])[:64], *lines[1:], shaped("<b64:31>=", random)])


_COMMON = """
    123456|12345678|1234567890|111111|00000000|iloveyou|welcome|welcome1|monkey|sunshine|football|trustno1|superman|qazwsx
    |toor|raspberry|starwars|princess|password1|P@ssword|Pa$$w0rd|mypassword|1qaz2wsx|qwertyuiop|opensesame|azerty
"""
_LEET = str.maketrans("aeiost", "431057")


def _digits(random: Random) -> str:
    return str(random.choice([random.randrange(10), random.randrange(100), 123, random.randrange(1960, 2025)]))


def _joined(words: Sequence[str], random: Random) -> str:
    return random.choice("-_. +").strip().join(random.sample(words, random.randint(3, 4)))


# A style takes words of the split and names of its people, as they would be typed.
Style = Callable[[Sequence[str], Sequence[str], Random], str]
_STYLES: dict[str, tuple[str, Style]] = {
    "word-digits": ("both", lambda w, n, r: r.choice(w) + _digits(r)),
    "capital-digits-symbol": ("both", lambda w, n, r: r.choice(w).capitalize() + _digits(r) + r.choice("!#$*?.")),
    "random-symbols": ("both", lambda w, n, r: shaped(f"<sym:{r.randint(8, 20)}>", r)),
    "random-letters": ("both", lambda w, n, r: shaped(f"<an:{r.randint(6, 16)}>", r)),
    "weak": (
        "both",
        lambda w, n, r: r.choice(["s3cret", "secret", "letmein", "hunter2", "foobar", "test123", "abc123"]),
    ),
    "name-year": ("train", lambda w, n, r: r.choice(n).lower() + str(r.randrange(1950, 2020))),
    "two-words": ("train", lambda w, n, r: r.choice(w).capitalize() + r.choice(w).capitalize() + _digits(r)),
    "word-at": ("train", lambda w, n, r: f"{r.choice(w).capitalize()}_{r.choice(w)}{r.choice('!?#')}"),
    "keyboard": ("train", lambda w, n, r: r.choice(["qwerty", "1q2w3e4r", "asdf1234", "zaq12wsx"]) + _digits(r)),
    "admin": (
        "train",
        lambda w, n, r: r.choice(["admin", "root", "test", "pass", "P@ssw0rd", "Passw0rd"]) + _digits(r),
    ),
    "short": ("train", lambda w, n, r: shaped(f"<low:{r.randint(4, 6)}>", r)),
    "word": ("train", lambda w, n, r: r.choice(w)),
    "digits": ("train", lambda w, n, r: shaped(f"<d:{r.randint(4, 8)}>", r)),
    "word-year": ("train", lambda w, n, r: r.choice([r.choice(w), r.choice(w).upper()]) + str(r.randrange(1970, 2025))),
    "name-at": ("train", lambda w, n, r: r.choice(n).capitalize() + "@" + _digits(r)),
    "digits-word": ("train", lambda w, n, r: f"{r.randrange(10, 1000)}{r.choice(w)}"),
    "word-word": ("train", lambda w, n, r: r.choice(w) + r.choice(w)),
    "my-word": (
        "train",
        lambda w, n, r: r.choice(["my", "the", "super", "new"]) + r.choice(w) + r.choice(["pw", "!", ""]),
    ),
    "word-pass": (
        "train",
        lambda w, n, r: r.choice(r.choice([w, n])) + r.choice(["pass", "pwd", "_pw", "Pass", "-secret"]),
    ),
    "camel": ("train", lambda w, n, r: r.choice(w) + r.choice(w).capitalize() + r.choice("$!%&") + _digits(r)),
    "generated": ("train", lambda w, n, r: shaped(r.choice(["<an:20>", "<an:24>", "<hex:12>", "<sym:24>"]), r)),
    "two-tokens": ("train", lambda w, n, r: shaped("<an:4><d:2><an:3>", r) + r.choice("!@#$%&")),
    "common": (
        "train",
        lambda w, n, r: r.choice(listed(_COMMON)),
    ),
    "leet": ("test", lambda w, n, r: r.choice(w).translate(_LEET) + r.choice(["", "!", _digits(r)])),
    "phrase": ("test", lambda w, n, r: _joined(w, r)),
    "season": ("test", lambda w, n, r: r.choice(["Summer", "Winter", "Spring"]) + str(r.randrange(2008, 2025)) + "!"),
    "symbol-in-word": (
        "test",
        lambda w, n, r: r.choice("!$#") + r.choice(n).capitalize() + r.choice("_-.") + _digits(r),
    ),
    "grouped": ("test", lambda w, n, r: shaped("<low:4>-<low:4>-<low:4>", r)),
}
STYLES: dict[Split, dict[str, Style]] = {
    split: {name: style for name, (where, style) in _STYLES.items() if where in ("both", split)} for split in SHAPES
}
"""Split → name → style of a password; some names are in the test alone."""


def password(split: Split, words: Sequence[str], names: Sequence[str], random: Random) -> str:
    """A password of a style of the split, at least 4 characters, without blanks, quotes or backslashes."""
    while True:
        found = random.choice(list(STYLES[split].values()))(words, names, random)
        if len(found) >= 4 and not re.search(r"[\s'\"\\`]", found):
            return found
