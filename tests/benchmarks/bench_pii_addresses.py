"""E-mail and IP addresses: ours against presidio, detect-secrets and datatrove, on the same files.

Files of the standard library and the installed packages get lines planted between their own: addresses as code has
them, of Faker's people and of random hosts, and as many lines without any (versions, sections, slices, packages,
templates), all from templates below, which those who wrote our detector know. Recall is over the planted addresses,
precision over all planted lines. What is found in the files as they were is counted apart: nobody knows its truth. A
finding is right when 80 % of it and of the truth are common (paper §4.3). MB/s are per second of CPU, of each
contender's whole way from text to places.

presidio is installed from PyPI into an environment under build/ (some 400 MB with spaCy, which pattern recognisers do
not ask). detect-secrets knows public IPv4 alone, and reads line by line. datatrove's is its formatter's pattern.

Run by `make bench`, or `python -m tests.benchmarks.bench_pii_addresses [--characters N] [--rounds N]`.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from ipaddress import IPv6Address
from pathlib import Path

from starcoder.pii.addresses import AddressDetector
from starcoder.pii.emails import EmailDetector
from tests.benchmarks.bench_tokenizer import code

PRESIDIO = "presidio-analyzer==2.2.366"
HOME = Path(__file__).parents[2] / "build/bench/presidio"
LOCALES = ["en_US", "de_DE", "fr_FR", "ru_RU", "ja_JP", "pt_BR"]
Span = tuple[int, int]
Find = Callable[[str], Iterable[Span]]

EMAILS = (
    "# Author: {name} <{value}>",
    '__author_email__ = "{value}"',
    '  "contact": "mailto:{value}",',
    "    git config user.email {value}",
    "// Please write to {value}.",
    "&lt;{value}&gt;",
    "curl -d 'to={value}&cc=none'",
    'message = "\\nFrom: {value}\\nTo: "',
    "**{value}**",
    " * @author {name} ({value})",
)
NO_EMAILS = (
    "@app.route('/users')",
    "y = (x@w.transpose(1))",
    "git clone git@github.com:psf/requests.git",
    "remote = 'ssh://deploy@build.internal.net/srv/git'",
    "url = 'https://user:secret@db.internal.net'",
    '"react": "react@18.2.0", "next": "next@13.4.x"',
    "background: url(logo@2x.png);",
    'sender = "%s@example.org" % name',
    'sender = f"{user}@example.org"',
    "U memcpy@GLIBC_2.14.0",
)
ADDRESSES = (
    'HOST = "{value}"',
    "# the server is {value}",
    "ping -c 1 {value}",
    "allow {value};",
    'sock.connect(("{value}", 443))',
    "Received: from mail ([{value}])",
    "{value}\tdb1.internal",
    "  - {value}",
    'peers = ["{value}", "localhost"]',
    "[INFO] {value} - - GET /index.html",
)
NO_ADDRESSES = (
    "__version__ = '12.4.127.3'",
    "nvidia-cublas==13.1.1.3",
    "# see section 8.2.4.44 of the standard",
    "even, odd = x[::2], x[1::2]",
    "value = std::abs(f32::add(a, b))",
    "OID = ObjectIdentifier('2.5.29.15')",
    "released 1.2.3.4",
    "serial: cb:2d:80:99:5a:69:52:5f",
    "at 12:30:45 on 2021-03-04",
    "lib-10.2.0.89.tar.gz and 1.3.6.1.4.1",
)


@dataclass
class Planted:
    """Texts with, for each label, the places of the lines planted and of the addresses in them."""

    texts: list[str]
    lines: dict[str, list[list[Span]]]
    truth: dict[str, list[list[Span]]]


def hosts(chance: random.Random) -> str:
    """Half IPv4, half IPv6 in the space of addresses that are given out."""
    if chance.random() < 0.5:
        return ".".join(str(chance.randint(1, 254)) for _ in range(4))
    groups = chance.randint(1, 6)
    value = chance.randint(0x2000, 0x3FFF) << 112 | chance.getrandbits(16 * groups)
    return str(IPv6Address(value))


def plant(files: list[str], seed: int) -> Planted:
    """About two lines of each kind in each file, at random places of it."""
    from faker import Faker

    fake, chance = Faker(LOCALES), random.Random(seed)
    Faker.seed(seed)
    planted = Planted([], {"EMAIL": [], "IP_ADDRESS": []}, {"EMAIL": [], "IP_ADDRESS": []})
    for text in files:
        extra = [("EMAIL", *_filled(chance.choice(EMAILS), fake.email(safe=False), fake.name())) for _ in range(2)]
        extra += [("IP_ADDRESS", *_filled(chance.choice(ADDRESSES), hosts(chance), "")) for _ in range(2)]
        extra += [("EMAIL", chance.choice(NO_EMAILS), None) for _ in range(2)]
        extra += [("IP_ADDRESS", chance.choice(NO_ADDRESSES), None) for _ in range(2)]
        _insert(planted, text, extra, chance)
    return planted


def _filled(template: str, value: str, name: str) -> tuple[str, Span]:
    before = template.partition("{value}")[0].replace("{name}", name)
    return template.format(value=value, name=name), (len(before), len(before) + len(value))


def _insert(planted: Planted, text: str, extra: list[tuple[str, str, Span | None]], chance: random.Random) -> None:
    lines: list[tuple[str, str, Span | None]] = [("", line, None) for line in text.split("\n")]
    for one in extra:
        lines.insert(chance.randint(0, len(lines)), one)
    for of_label in (*planted.lines.values(), *planted.truth.values()):
        of_label.append([])
    place = 0
    for label, line, span in lines:
        if label:
            planted.lines[label][-1].append((place, place + len(line)))
        if span:
            planted.truth[label][-1].append((place + span[0], place + span[1]))
        place += len(line) + 1
    planted.texts.append("\n".join(line for _, line, _ in lines))


def contenders() -> dict[str, dict[str, Find]]:
    """Who finds what in this process."""
    from datatrove.pipeline.formatters.pii import PIIFormatter
    from detect_secrets.plugins.ip_public import IPPublicDetector

    public, formatter = IPPublicDetector(), PIIFormatter(only_remove_public_ips=False)

    def ours(detector: EmailDetector | AddressDetector) -> Find:
        return lambda text: [(entity.start, entity.end) for entity in detector.detect(text)]

    def by_line(text: str) -> Iterable[Span]:
        place = 0
        for line in text.split("\n"):
            for value in public.analyze_string(line):
                start = place + line.index(value)
                yield start, start + len(value.partition(":")[0])
            place += len(line) + 1

    def emails(text: str) -> Iterable[Span]:
        return [match.span() for match in formatter.emails_replacer.regex.finditer(text)]

    def addresses(text: str) -> Iterable[Span]:
        replacer = formatter.ip_replacer
        return [match.span() for match in replacer.regex.finditer(text) if replacer.validator(match[0])]

    return {
        "EMAIL": {"ours": ours(EmailDetector()), "datatrove": emails},
        "IP_ADDRESS": {"ours": ours(AddressDetector()), "detect-secrets": by_line, "datatrove": addresses},
    }


@dataclass
class Result:
    """What a contender found in each text, and the CPU seconds of each round."""

    spans: list[list[Span]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def run_here(find: Find, texts: list[str], result: Result) -> None:
    start = time.process_time()
    result.spans = [list(find(text)) for text in texts]
    result.seconds.append(time.process_time() - start)


def presidio_python() -> Path | None:
    """Python of the environment that has presidio, made unless an earlier run finished it; or nothing, and why."""
    python, stamp = HOME / "bin/python", HOME / "installed"
    if stamp.is_file() and stamp.read_text() == PRESIDIO and python.exists():
        return python
    print(f"installing {PRESIDIO} into {HOME}", flush=True)
    shutil.rmtree(HOME, ignore_errors=True)
    try:
        for command in (
            [sys.executable, "-m", "venv", str(HOME)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PRESIDIO],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        reason = ((error.stderr or error.stdout).strip().splitlines() or [str(error)])[-1]
        print(f"presidio skipped, it cannot be installed: {reason}", flush=True)
        return None
    stamp.write_text(PRESIDIO)
    return python


def run_presidio(python: Path, texts: list[str], results: dict[str, dict[str, Result]]) -> None:
    worker = str(Path(__file__).with_name("presidio_worker.py"))
    done = subprocess.run([str(python), "-I", worker], input=json.dumps(texts), stdout=-1, text=True, check=True)
    answer = json.loads(done.stdout)
    for label, named in results.items():
        result = named.setdefault("presidio", Result())
        result.spans = [[tuple(span) for span in spans] for spans in answer[label]["spans"]]
        result.seconds.append(answer[label]["seconds"])


def same(a: Span, b: Span) -> bool:
    """Whether 80 % of each are common to both."""
    common = min(a[1], b[1]) - max(a[0], b[0])
    return common >= 0.8 * max(a[1] - a[0], b[1] - b[0])


def score(planted: Planted, label: str, result: Result) -> str:
    """Recall and precision over the planted lines, and the number of findings elsewhere."""
    right = wrong = elsewhere = total = 0
    for found, lines, truth in zip(result.spans, planted.lines[label], planted.truth[label], strict=True):
        total += len(truth)
        right += sum(any(same(span, true) for span in found) for true in truth)
        inside = [span for span in found if any(first <= span[0] and span[1] <= last for first, last in lines)]
        wrong += sum(not any(same(span, true) for true in truth) for span in inside)
        elsewhere += len(found) - len(inside)
    size = sum(len(text.encode(errors="replace")) for text in planted.texts)
    speeds = [size / 1e6 / seconds for seconds in result.seconds]
    return (
        f"recall {right / total:7.2%} ({right} of {total}), precision {right / max(1, right + wrong):7.2%} "
        f"({wrong} wrong), elsewhere {elsewhere:5d}, {statistics.median(speeds):8.1f} MB/s"
    )


def standard_library(characters: int, seed: int) -> list[str]:
    """Python files of the standard library in random order, about `characters` in all."""
    root = Path(sysconfig.get_path("stdlib"))
    files = sorted(file for file in root.rglob("*.py") if "site-packages" not in file.parts)
    random.Random(seed).shuffle(files)
    texts: list[str] = []
    while files and characters > 0:
        texts.append(files.pop().read_bytes().decode("utf-8", "replace")[:200_000])
        characters -= len(texts[-1])
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    half = arguments.characters // 2
    planted = plant(standard_library(half, seed=1) + code(half, seed=1), seed=1)
    print(f"{len(planted.texts)} files, {sum(map(len, planted.texts)) / 1e6:.1f} M characters, {PRESIDIO}")
    print(f"detect-secrets=={version('detect-secrets')}, datatrove=={version('datatrove')}", flush=True)
    finders = contenders()
    results = {label: {name: Result() for name in names} for label, names in finders.items()}
    python = presidio_python()
    for _ in range(arguments.rounds):
        for label, names in finders.items():
            for name, find in names.items():
                run_here(find, planted.texts, results[label][name])
        if python:
            run_presidio(python, planted.texts, results)
    for label, named in results.items():
        for name, result in named.items():
            print(f"{label:<11}{name:<16}{score(planted, label, result)}")


if __name__ == "__main__":
    main()
