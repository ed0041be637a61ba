"""Keys: detect-secrets as reference, planted secrets of many formats, hard negatives, and hostile texts."""

import base64
import string
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starcoder.pii.assigned import is_key_name, name_before
from starcoder.pii.guards import is_about_hashes, is_secret
from starcoder.pii.keys import KeyDetector, paper_findings
from starcoder.pii.prefilter import LONGEST, all_plugins, plugin_findings
from tests.pii.secrets import ANYWHERE, ASSIGNED, HEX, LETTERS, NAMED, TOKENS, draw, pem_body

DETECTOR = KeyDetector()
HEX_KEY, BASE62 = draw(Random(8), HEX, 40), draw(Random(4), LETTERS, 40)
HIDDEN = base64.b64encode(b"user:correct horse battery").decode()


def found(text: str) -> list[str]:
    return [text[entity.start : entity.end] for entity in DETECTOR.detect(text)]


def by_the_library(text: str) -> set[tuple[int, str, str]]:
    """Line, plugin and value of what detect-secrets' plugins return for every line of ordinary length."""
    return {
        (number, name, secret.secret_value or "")
        for number, line in enumerate(text.split("\n"))
        if len(line) <= LONGEST
        for name, plugin in all_plugins().items()
        for secret in plugin.analyze_line("", line.rstrip())
    }


def by_the_prefilter(text: str) -> set[tuple[int, str, str]]:
    lengths = [len(line) for line in text.split("\n")]
    findings = ((text.count("\n", 0, f.start), f) for f in plugin_findings(text))
    return {(number, type(f.plugin).__name__, f.value) for number, f in findings if lengths[number] <= LONGEST}


def real_files(count: int) -> Iterator[str]:
    paths = sorted(Path(sysconfig.get_path("purelib")).rglob("*.py"))
    for path in Random(1).sample(paths, count):
        yield path.read_text(encoding="utf-8", errors="replace")[:100_000]


def test_the_plugins_are_the_papers() -> None:
    assert len(all_plugins()) == 18
    assert not {"BasicAuthDetector", "KeywordDetector", "PrivateKeyDetector"} & set(all_plugins())


def test_the_prefilter_loses_nothing_on_real_files() -> None:
    for text in real_files(200):
        assert by_the_prefilter(text) == by_the_library(text)


def test_the_prefilter_loses_nothing_that_a_plugin_finds() -> None:
    random = Random(2)
    word = {name: draw(random, alphabet, 64) for name, alphabet in (("hex", HEX), ("any", LETTERS))}
    lower = draw(random, string.ascii_lowercase, 24)
    lines = [
        f"AKC{word['any'][:12]}",
        f'password: "APA{word["any"][:9]}"',
        f"AccountKey={word['any']}{word['any'][:24]}",
        f"cloudant_password = '{word['hex']}'",
        f"CLOUDANT_KEY: {lower}",
        f"https://acme:{word['hex']}@acme.cloudant.com",
        f"M{word['any'][:23]}.{word['any'][:6]}.{word['any'][:27]}",
        f"ghp_{word['any'][:36]}",
        f"ibm_cloud_iam_key = {word['any'][:44]}",
        f"cos_secret_access_key={word['hex'][:48]}",
        f"x={TOKENS['JWT'](random)}",
        f"{word['hex'][:32]}-us12",
        "//registry.npmjs.org/:_authToken=npm_abc",
        f"SG.{word['any'][:22]}.{word['any'][:43]}",
        "XOXB-1-abc",
        "HTTPS://HOOKS.SLACK.COM/services/T1/B2/x3",
        f"sl_api_key: {word['any'].lower()}",
        f"https://api.softlayer.com/soap/v3/{word['hex']}",
        f"rk_live_{word['any'][:24]}",
        f"AC{word['hex'][:32]} SK{word['hex'][:32]}",
        f"AKIA{'Q2' * 8} aws_key='{word['any'][:40]}'",
        f"'{word['hex'][:12]}' \"{word['any'][:30]}\" 'a\"{word['any'][:30]}\"'",
    ]
    for line in lines:
        assert by_the_library(line), line
        assert by_the_prefilter(line) == by_the_library(line)
        padded = f"{' ' * LONGEST}{line}"  # found in a stretch of the line, too
        values = {f.value.strip() for f in plugin_findings(padded)}
        assert {value.strip() for _, _, value in by_the_library(line)} <= values
    assert {name for _, name, _ in by_the_prefilter("\n".join(lines))} == set(all_plugins())


@given(st.text(alphabet="AKCIghpeyJ_-=:/.'\" \n\r\\sSxXoOkKuU0123456789abcdefzßſKİı", max_size=300))
@settings(max_examples=300, deadline=None)
def test_the_prefilter_loses_nothing_in_odd_texts(text: str) -> None:
    assert by_the_prefilter(text) == by_the_library(text)


@pytest.mark.parametrize("kind", TOKENS)
def test_tokens_are_found_wherever_they_stand(kind: str) -> None:
    random = Random(3)
    secrets = [TOKENS[kind](random) for _ in range(40)]
    hits = sum(found(line.replace("{}", secret)) == [secret] for secret in secrets for line in ANYWHERE)
    assert hits >= 0.9 * len(secrets) * len(ANYWHERE)  # some random values read like words


@pytest.mark.parametrize("kind", ASSIGNED)
@pytest.mark.parametrize("line", NAMED)
def test_random_values_behind_the_name_of_a_key_are_found(kind: str, line: str) -> None:
    secret = ASSIGNED[kind](Random(4))
    assert found(line.replace("{}", secret)) == [secret]


@pytest.mark.parametrize(
    "template",
    [
        "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-CBC,00\n\n{}\n-----END PRIVATE KEY-----",
        "# -----BEGIN OPENSSH PRIVATE KEY-----\r\n# {}\r\n# -----END OPENSSH PRIVATE KEY-----",
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n{}\n=aB3d\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
)
def test_the_body_of_a_private_key_is_one_entity(template: str) -> None:
    body = pem_body(Random(5))
    (entity,) = DETECTOR.detect(text := template.replace("{}", body))
    assert text[entity.start : entity.end].removesuffix("\n=aB3d") == body


@pytest.mark.parametrize(("end", "between"), [("\\n", "\\n"), ('\\n"', '\\n"\n    "'), ('\\n" +', '\\n" +\n  "')])
def test_a_private_key_may_stand_in_string_literals(end: str, between: str) -> None:
    body = pem_body(Random(6)).replace("\n", between)
    text = f'KEY = "-----BEGIN EC PRIVATE KEY-----{between}{body}{between}-----END EC PRIVATE KEY-----{end}'
    assert found(text) == [body]


HARD_NEGATIVES = {
    "commit": f'revision = "{HEX_KEY}"',
    "commit in a comment": f"# see {HEX_KEY} for the reason",
    "sha256": f'    "sha256": "{draw(Random(7), HEX, 64)}",',
    "lock": f"requests==2.0 --hash=sha256:{draw(Random(8), HEX, 64)}",
    "integrity": f'<script integrity="sha384-{draw(Random(9), LETTERS, 64)}">',
    "quoted digest": f'"{draw(Random(10), HEX, 32)}",',
    "UUID": 'api_key = "7c9e6679-7425-40de-944b-e07fc1f90ae7"',
    "image": f'src="data:image/png;base64,iVBORw0KGgo{draw(Random(11), LETTERS, 300)}"',
    "long data": f'FONT = "{draw(Random(12), LETTERS, 3000)}"',
    "certificate": f"-----BEGIN CERTIFICATE-----\n{pem_body(Random(13))}\n-----END CERTIFICATE-----",
    "public key": f'public_key = "MIIBIjANBg{draw(Random(14), LETTERS, 80)}"',
    "camel case": 'name = "AbstractSingletonProxyFactoryBean"',
    "URL": 'token = "https://example.com/path/to/some/resource"',
    "path": "secret_key = /etc/ssl/private/service/settings",
    "call": "api_key = generate_random_api_key2(length)",
    "minified": "function(e,t,n){var r=n(1),o=n.n(r);e.exports={key:o.default.createElement,token:a.b.c}}" * 30,
    "placeholder": 'api_key = "your-api-key-here"',
    "x": "GITHUB_TOKEN=ghp_" + "x" * 36,
    "documented": 'aws_access_key_id = "AKIAIOSFODNN7EXAMPLE"',
    "template": 'secret_key = "${PRODUCTION_SECRET_KEY}"',
    "braces": "password: {{ vault_production_secret_key }}",
    "lorem ipsum": 'token = "Lorem ipsum dolor sit amet, consectetur adipiscing elit"',
    "alphabet": 'secret_alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"',
    "next page": f'"nextToken": "{BASE62}"',
    "cache": f'cache_key = "{HEX_KEY}"',
    "encoded text": f'"Authorization": "Basic {HIDDEN}"',
}


@pytest.mark.parametrize("kind", HARD_NEGATIVES)
def test_what_looks_like_a_key_is_none(kind: str) -> None:
    assert found(HARD_NEGATIVES[kind]) == []


def test_hashes_are_dropped_by_their_line_and_by_their_file() -> None:
    line = f'check("{draw(Random(16), LETTERS, 32)}")'
    assert len(paper_findings(line)) == 1
    assert paper_findings(f"md5 = {line}") == []
    assert paper_findings(f"sha = 1\n{line}") == []
    assert len(paper_findings("x\n" * 100 + f"sha = 1\n{line}")) == 1
    assert not is_about_hashes("sha\n" * 2 + "x\n" * 98)
    assert is_about_hashes("sha\n" * 2 + "x\n" * 90)


def test_names_are_read_backwards_from_the_value() -> None:
    for line in ('apiKey: string = "v', "api-key: v", "('api_key', 'v", 'e["API_KEY"] = "v', "<apiKey>v", "api.key=v"):
        name = name_before(line, len(line) - 1)
        assert (name, is_key_name(name)) == ("api_key", True), line
    assert not any(map(is_key_name, ("", "key", "public_key", "next_token", "tokenizer", "secret_hash", "monkeys")))


def test_only_findings_of_the_entropy_plugins_are_guarded() -> None:
    (finding,) = plugin_findings("AKIAQ2Q2Q2Q2Q2Q2Q2Q2")
    assert is_secret(finding)


@given(st.text(max_size=400), st.sampled_from([*TOKENS, *ASSIGNED]), st.integers(0, 400))
@settings(max_examples=200, deadline=None)
def test_offsets_lie_inside_of_any_text(text: str, kind: str, place: int) -> None:
    text = text[:place] + (TOKENS | ASSIGNED)[kind](Random(place)) + text[place:]
    ends = [0]
    for entity in DETECTOR.detect(text):
        assert ends[-1] <= entity.start < entity.end <= len(text)
        assert entity.label == "KEY"
        ends.append(entity.end)


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        '"',
        "\"'",
        "eyJ",
        "//a/",
        "key=",
        "xoxb-1-",
        "AKC",
        "-----BEGIN PRIVATE KEY-----\n",
        "\\n",
        "a-",
        "=",
        "é漢",
    ],
)
def test_hostile_texts_come_to_an_end(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    assert all(entity.end <= len(text) for entity in DETECTOR.detect(text))


def test_a_key_is_found_anywhere_in_a_huge_line() -> None:
    secret = TOKENS["GitHub"](Random(17))
    filler = '{"name":["value",1]},' * 10_000
    text = f'{filler}"{BASE62}",{filler}token="{secret}"{filler}'
    assert found(text) == [BASE62, secret]
