"""Secrets of many formats drawn at random, in lines of code and configuration, for tests and benchmarks."""

import base64
import json
import string
from collections.abc import Callable
from random import Random

HEX, LETTERS, UPPER = "0123456789abcdef", string.ascii_letters + string.digits, string.ascii_uppercase + string.digits
BASE64 = LETTERS + "+/"


def draw(random: Random, alphabet: str, length: int) -> str:
    return "".join(random.choices(alphabet, k=length))


def _shape(*parts: str | tuple[str, int]) -> Callable[[Random], str]:
    return lambda random: "".join(part if isinstance(part, str) else draw(random, *part) for part in parts)


def _part(random: Random, claims: object) -> str:
    raw = json.dumps(claims).encode() if claims is not None else random.randbytes(32)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwt(random: Random) -> str:
    claims = {"sub": str(random.randrange(10**9)), "name": draw(random, LETTERS, 6), "iat": random.randrange(10**9)}
    return ".".join(_part(random, part) for part in ({"alg": "HS256", "typ": "JWT"}, claims, None))


def pem_body(random: Random) -> str:
    body = base64.b64encode(b"\x30\x82" + random.randbytes(600)).decode()
    return "\n".join(body[place : place + 64] for place in range(0, len(body), 64))


TOKENS: dict[str, Callable[[Random], str]] = {
    "GitHub": lambda random: f"gh{random.choice('pousr')}_{draw(random, LETTERS, 36)}",
    "GitHub, fine-grained": _shape("github_pat_", (LETTERS, 22), "_", (LETTERS, 59)),
    "GitLab": _shape("glpat-", (LETTERS + "-_", 20)),
    "JWT": jwt,
    "AWS id": _shape("AKIA", (string.ascii_uppercase + "234567", 16)),
    "Google": _shape("AIza", (LETTERS + "-_", 35)),
    "Slack": _shape("xoxb-", (string.digits, 12), "-", (string.digits, 12), "-", (LETTERS, 24)),
    "Stripe": _shape("sk_live_", (LETTERS, 24)),
    "npm": _shape("npm_", (LETTERS, 36)),
    "PyPI": _shape("pypi-AgEIcHlwaS5vcmc", (LETTERS + "-_", 150)),
    "Hugging Face": _shape("hf_", (string.ascii_letters, 34)),
    "OpenAI": _shape("sk-", (LETTERS, 20), "T3BlbkFJ", (LETTERS, 20)),
    "SendGrid": _shape("SG.", (LETTERS, 22), ".", (LETTERS, 43)),
    "Twilio": _shape("SK", (HEX, 32)),
    "Telegram": _shape((string.digits, 9), ":AA", (LETTERS + "-_", 33)),
    "DigitalOcean": _shape("dop_v1_", (HEX, 64)),
}
ASSIGNED: dict[str, Callable[[Random], str]] = {
    "AWS secret": _shape((BASE64, 40)),
    "hex 32": _shape((HEX, 32)),
    "hex 64": _shape((HEX, 64)),
    "base64 44": _shape((BASE64, 43), "="),
    "base62 24": _shape((LETTERS, 24)),
}
ANYWHERE = (
    'client = Client("{}")',
    "# curl -H 'Authorization: Bearer {}' https://api.acme.io/v1",
    "TOKEN={}",
    'url = "https://api.acme.io/v1/items?key={}&page=2"',
    '    "value": "{}",',
)
NAMED = (
    'API_KEY = "{}"',
    "export SECRET_KEY={}",
    '    "clientSecret": "{}",',
    "auth_token: {}",
    "  aws_secret_access_key = {}",
    "config['apiKey'] = '{}';",
    'private static final String ACCESS_KEY = "{}";',
)


def secret_line(random: Random) -> tuple[str, str, str]:
    """A format, a secret of it, and a line that holds it."""
    kind = random.choice([*TOKENS, *ASSIGNED])
    secret = (TOKENS | ASSIGNED)[kind](random)
    line = random.choice(ANYWHERE if kind in TOKENS else NAMED)
    return kind, secret, line.replace("{}", secret)
