"""`starcoder pii scan`: what is personal or secret in files, for people, for pre-commit hooks and for CI (paper §4)."""

import os
import re
import sys
import time
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from starcoder.corpus.document import Rejection
from starcoder.errors import UserError
from starcoder.pii.baseline import read_baseline, write_baseline
from starcoder.pii.detectors import open_detector
from starcoder.pii.entity import LABELS, Detector, Entity, check_labels, split_labels
from starcoder.pii.files import Found, find_files, read_text
from starcoder.pii.findings import Finding, findings_of, line_starts
from starcoder.pii.redaction import redactable
from starcoder.pii.report import as_html, as_json, as_text
from starcoder.processes import share_out
from starcoder.storage import atomic_file

_BATCH_FILES = 64
_BATCH_BYTES = 1_000_000
_BY_MODEL = frozenset({"NAME", "USERNAME"})
_ALLOWED = re.compile(r"pragma: ?allowlist secret")  # the mark that detect-secrets' users know


class Leaks(UserError):  # noqa: N818  # nobody has erred
    """There are findings: the exit code tells hooks and CI so."""

    code = 1


@dataclass(frozen=True)
class Options:
    """What every worker needs to know; picklable.

    Attributes:
        model: Folder or Hub repository of a NER model; None for the rules alone.
        device: Where it runs.
        labels: What to report.
        everything: Report what redaction would leave as well.
        show: Leave values unmasked.
    """

    model: str | None
    device: str
    labels: frozenset[str]
    everything: bool
    show: bool


@dataclass
class Scan:
    """The result of a scan.

    Attributes:
        findings: Those that no baseline accepts, by path and place.
        files: Number of files that were read.
        bytes: Their size.
        skipped: Files that were not, with the reason.
        accepted: Number of findings that the baseline accepts.
        seconds: How long it took.
    """

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    accepted: int = 0
    seconds: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """Findings of each label, in the order of `LABELS`."""
        counted = Counter(finding.label for finding in self.findings)
        return {label: counted[label] for label in LABELS if counted[label]}


def scan(
    paths: list[Path],
    format: Literal["text", "json", "html"] = "text",
    output: Path | None = None,
    model: str | None = None,
    device: str = "auto",
    labels: str = ",".join(LABELS),
    baseline: Path | None = None,
    update_baseline: Path | None = None,
    everything: bool = False,
    show: bool = False,
    max_file_bytes: int = 10_000_000,
    workers: int | None = None,
) -> None:
    """Find personal data and secrets in files; exits with 1 when there are any.

    Of a checkout what git does not ignore is read, of other folders all but `.git`. A finding is what `starcoder pii
    redact` would replace. A line with `pragma: allowlist secret` is passed over. Values are masked in every format.

    Args:
        paths: Files and folders, as many as you like.
        format: How to report: for reading, for programs, or as a page with the findings in their lines.
        output: File to write the report to, instead of the terminal; a page needs one.
        model: Folder or Hub repository of a NER model, such as `starcoder pii train` writes or bigcode/starpii, which
            adds names, user names and more passwords to what the rules find.
        device: Where the model runs: cpu, cuda, or auto.
        labels: What to report, separated by commas.
        baseline: File of accepted findings, which are not reported.
        update_baseline: File to write all findings to as accepted; the exit code is then 0.
        everything: Report what redaction leaves alone too: user names, private addresses, short or readable keys.
        show: Write values as they are.
        max_file_bytes: Larger files are skipped, and counted.
        workers: Processes; one for each core when not given, one with a model.

    Raises:
        UserError: A path, label, model or baseline does not exist or cannot be what it should be.
        Leaks: There are findings.
    """
    if not paths:
        raise UserError("name files or folders: starcoder pii scan PATH …")
    if max_file_bytes < 1 or (workers is not None and workers < 1):
        raise UserError("--max_file_bytes and --workers are at least 1")
    _check_outputs(format, output, update_baseline)
    if not (wanted := check_labels(split_labels(labels))):
        raise UserError(f"--labels names none; labels are {', '.join(LABELS)}")
    accepted = read_baseline(baseline) if baseline else frozenset()
    if model is None and wanted <= _BY_MODEL:
        raise UserError(f"rules find no {' or '.join(sorted(wanted))}: name a --model")
    options = Options(model, device, wanted, everything, show)
    result = scan_files(find_files(paths, max_file_bytes), options, workers or (1 if model else os.cpu_count() or 1))
    if update_baseline:
        count = write_baseline(update_baseline, result.findings)
        print(f"{update_baseline}: {count:,} findings accepted")
        return
    known = [finding for finding in result.findings if finding.fingerprint in accepted]
    result.findings = [finding for finding in result.findings if finding.fingerprint not in accepted]
    result.accepted = len(known)
    _write({"text": as_text, "json": as_json, "html": as_html}[format](result), output)
    if result.findings:
        counts = ", ".join(f"{count:,} {label}" for label, count in result.counts.items())
        raise Leaks(f"{counts} in {len({finding.path for finding in result.findings}):,} files")


def _check_outputs(format: str, output: Path | None, baseline: Path | None) -> None:
    if format == "html" and output is None:
        raise UserError("--format html needs --output FILE")
    for file in (output, baseline):
        if file and file.is_dir():
            raise UserError(f"{file} is a folder: name a file to write")


def scan_files(files: Iterable[Found], options: Options, workers: int = 1) -> Scan:
    """Scan files with so many processes; findings come in the order of the files."""
    begin = time.perf_counter()
    _detector(options.model, options.device)  # what is wrong with a model is told once, and here
    result = Scan()
    batches = list(_batches(files))
    outcomes = share_out(_scan_batch, batches, options, max(1, min(workers, len(batches))))
    for outcome in tqdm(outcomes, "scanned", total=len(batches), disable=None):
        result.findings += outcome.findings
        result.files += outcome.files
        result.bytes += outcome.bytes
        result.skipped |= outcome.skipped
    result.seconds = time.perf_counter() - begin
    return result


def _batches(files: Iterable[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    size = 0
    for found in files:
        batch.append(found)
        size += 0 if found.problem else found.size
        if len(batch) == _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _scan_batch(options: Options, batch: list[Found]) -> Scan:
    result = Scan()
    texts: dict[str, str] = {}
    for found in batch:
        text = read_text(found)
        if isinstance(text, Rejection):
            if text.reason != "empty":  # an empty file has been read, and nothing is in it
                result.skipped[found.name] = f"{text.reason} ({text.detail})" if text.detail else text.reason
        else:
            texts[found.name] = text
            result.bytes += found.size
    result.files = len(batch) - len(result.skipped)
    found_in = _detector(options.model, options.device).detect_all(list(texts.values()))
    for (name, text), entities in zip(texts.items(), found_in, strict=True):
        result.findings += findings_of(name, text, entities, _reported(text, entities, options), options.show)
    return result


def _reported(text: str, entities: Sequence[Entity], options: Options) -> list[Entity]:
    chosen = entities if options.everything else [entity for entity, _ in redactable(text, entities)]
    return _not_allowed(text, [entity for entity in chosen if entity.label in options.labels])


def _not_allowed(text: str, entities: list[Entity]) -> list[Entity]:
    """Those on whose lines no mark stands."""
    marks = list(_ALLOWED.finditer(text)) if entities else []
    if not marks:
        return entities
    starts = line_starts(text)
    allowed = {bisect(starts, mark.start()) for mark in marks}
    lines = (range(bisect(starts, entity.start), bisect(starts, entity.end) + 1) for entity in entities)
    return [entity for entity, around in zip(entities, lines, strict=True) if allowed.isdisjoint(around)]


@cache
def _detector(model: str | None, device: str) -> Detector:
    return open_detector(model, device)


def _write(report: str, output: Path | None) -> None:
    if output is None:
        encoding = sys.stdout.encoding or "utf-8"  # of a pipe it may not have all letters
        sys.stdout.write(report.encode(encoding, "backslashreplace").decode(encoding))
        return
    with atomic_file(output) as partial:
        partial.write_text(report, encoding="utf-8")
    print(f"wrote {output}")
