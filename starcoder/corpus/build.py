"""`starcoder corpus build`: from sources to parquet shards of permissively licensed documents (paper §3, §5.1).

    sources ─► opt-out, licence, language ─► read ─► malware ─► duplicates ─► filters ─► benchmarks ─► PII
                                                                                             │
                          train-*.parquet, validation-*.parquet ◄── by repository ───────────┘
                          rejected-*.parquet: everything else, with the stage and the reason

Every stage is a datatrove pipeline over the same tasks, so that a laptop and a cluster make the same bytes.
"""

import hashlib
import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from starcoder.corpus import dedup
from starcoder.corpus.benchmarks import load_benchmarks
from starcoder.corpus.document import Rejection
from starcoder.corpus.filters import DEFAULTS, FilterOptions
from starcoder.corpus.ingest import Rules
from starcoder.corpus.licenses import accepted_licenses, judge_license
from starcoder.corpus.malware import ClamScanner, Quarantine
from starcoder.corpus.optout import OptOut
from starcoder.corpus.plan import Plan, cut_into_tasks, share_out
from starcoder.corpus.redaction import REGEX, describe, open_redactor
from starcoder.corpus.sources import Source, SourceSpec, fingerprint, open_sources
from starcoder.corpus.stages import pipeline
from starcoder.corpus.summary import FILE, read_summary
from starcoder.errors import UserError
from starcoder.executors import HERE, Execution, Work, code_digest, run_stages
from starcoder.storage import check_replaceable
from starcoder.text import shown, visible

OWN = "LicenseRef-Own"
"""Licence of a repository of one's own, when none is named."""


def build(
    output: Path = Path("build/corpus"),
    sources: list[SourceSpec] | None = None,
    source: Path | None = None,
    repository: Path | None = None,
    license: str | None = None,
    accept: list[str] | None = None,
    opt_out: Path | None = None,
    quarantine: Path | None = None,
    clamd: str | None = None,
    benchmarks: Path | None = None,
    pii: str = REGEX,
    max_bytes: int | None = None,
    max_file_bytes: int = 10_000_000,
    validation_share: float = 0.05,
    similarity: float = dedup.THRESHOLD,
    filters: FilterOptions = DEFAULTS,
    seed: int = 0,
    task_bytes: int = 16_000_000,
    execution: Execution = HERE,
) -> None:
    """Build a corpus of permissively licensed code.

    Without any source it is the code of the distributions installed in the running interpreter and of CPython's
    standard library: no download. The same input and options give byte-identical folders, in whichever executor and
    however often the run was killed: started again with the same options, it goes on where it was.

    Args:
        output: Folder to write: parquet shards of the splits train, validation and rejected, and corpus.json.
        sources: What to read; see the documentation of the sources.
        source: A folder whose sub-folders are repositories; short for one of the `sources`.
        repository: A folder that is one repository, of your own unless `license` says otherwise; then files are held
            out for validation, instead of repositories.
        license: SPDX expression of the code in `source` or `repository`, instead of what their metadata declare;
            licence files that say something else still count. By default metadata and licence files decide for a
            `source`, and a `repository` is your own.
        accept: SPDX licence ids to accept besides the permissive ones; `LicenseRef-…` for a licence of your own.
        opt_out: File of owners and repositories that asked to be left out, one `owner` or `owner/repo` a line.
        quarantine: File of malicious files, one `sha256:HEX` or `path:owner/repo/path` a line.
        clamd: Address of a ClamAV daemon that scans every file, `unix:/run/clamav/clamd.ctl` or `tcp:host:3310`.
        benchmarks: Folder of benchmark sets whose problems must not be in the corpus, as their authors publish them: in
            its sub-folders humaneval, mbpp, apps, gsm8k, ds1000, multipl-e, odex, human-eval-infilling and
            santacoder-fim. HumanEval is looked for without it too.
        pii: What finds the personal data and secrets that are redacted: `regex` for rules alone; the folder, or the
            repository on the Hub, of a model that finds them besides, such as bigcode/starpii; or `none`.
        max_bytes: Most bytes of files to read; large repositories share what small ones leave. What has no listing,
            such as The Stack's parquet, is read twice for it. Null: no limit.
        max_file_bytes: Largest file to read.
        validation_share: Share of the bytes to hold out for validation, as whole repositories.
        similarity: Jaccard similarity of word 5-grams that makes a file a near-duplicate of another.
        filters: Thresholds of the quality filters.
        seed: Seed of the sample, of the split and of the order of the documents.
        task_bytes: About how many bytes one task reads, and has in memory; a large archive or data file is one task's.
        execution: Where the tasks run, and how many at a time.

    Raises:
        UserError: An option is out of range, a licence id is unknown, `output` is a folder that is not a corpus, or no
            two repositories have files to keep.
    """
    _check_options(max_bytes, max_file_bytes, validation_share, similarity, task_bytes)
    execution.check()
    check_replaceable(output, FILE)
    specs = _specs(sources, source, repository, license)
    accepted = accepted_licenses([*(accept or ()), *([OWN] if repository else ())])
    _check_licenses(specs, accepted)
    opened, messages = open_sources(specs)
    _check_place(output, specs)
    strings = load_benchmarks(benchmarks)
    rules = Rules(
        accepted,
        OptOut.read(opt_out) if opt_out else OptOut.none(),
        Quarantine.read(quarantine) if quarantine else Quarantine.none(),
        ClamScanner(clamd) if clamd else None,
        filters,
        max_file_bytes,
        strings,
    )
    _check_opted_out(output, rules.opt_out)
    tasks = cut_into_tasks(opened, task_bytes, max_bytes)
    redactor, version = open_redactor(pii)
    options: dict[str, Any] = {"accept": sorted(accept or ()), "max_bytes": max_bytes, "seed": seed}
    options |= {"validation_share": validation_share, "similarity": similarity, "filters": asdict(filters)}
    options |= {"opt_out": rules.opt_out.digest, "quarantine": rules.quarantine.digest, "malware_scan": bool(clamd)}
    options |= {"pii": pii, "pii_version": version}
    options |= {"benchmarks": strings.digest, "max_file_bytes": max_file_bytes, "task_bytes": task_bytes}
    facts: dict[str, Any] = {
        "options": options,
        "sources": [_facts(source, spec) for source, spec in zip(opened, specs, strict=True)],
        "redactor": redactor.name,
        "benchmarks": strings.counts,
        "benchmarks_missing": strings.missing if benchmarks else (),
        "messages": messages,
    }
    digest = hashlib.sha256(json.dumps([facts, fingerprint(opened), code_digest()], sort_keys=True).encode())
    work = Work(output.resolve(), digest.hexdigest())
    plan = Plan(
        work.path, work.output, tuple(opened), tasks, rules, similarity, validation_share, seed, redactor, facts
    )
    _run(plan, work, max_bytes, execution)


def _run(plan: Plan, work: Work, max_bytes: int | None, execution: Execution) -> None:
    for source in plan.facts["sources"]:
        size = f"{source['bytes'] / 1e6:,.1f} MB in {source['units']:,} parts"
        print(f"corpus: reading {source['name']}, {size}", flush=True)
    with work.claim():
        work.prepare(plan, lambda: share_out(plan, max_bytes) if max_bytes is not None else None)
        run_stages(pipeline(work, len(plan.tasks)), work.logs, execution)
    if execution.executor == "slurm":
        place, logs = shown(work.output), shown(work.logs)
        print(f"corpus: submitted; {place} appears when the last job has ended, logs are in {logs}")
    else:
        _report(work.output)


def _check_options(
    max_bytes: int | None, max_file_bytes: int, validation_share: float, similarity: float, task_bytes: int
) -> None:
    problems = [
        f"{name} must be {wanted}"
        for name, wanted, fine in (
            ("max_bytes", "at least 1, or null for no limit", max_bytes is None or max_bytes >= 1),
            ("max_file_bytes", "at least 1", max_file_bytes >= 1),
            ("validation_share", "between 0 and 1", 0 < validation_share < 1),
            ("similarity", "above 0 and at most 1", 0 < similarity <= 1),
            ("task_bytes", "at least 1", task_bytes >= 1),
        )
        if not fine
    ]
    if problems:
        raise UserError("; ".join(problems))


def _specs(
    sources: list[SourceSpec] | None, source: Path | None, repository: Path | None, license: str | None
) -> list[SourceSpec]:
    if sum(given is not None for given in (sources, source, repository)) > 1:
        raise UserError("name sources, a source or a repository, not two of them")
    if license and sources is not None:
        raise UserError("--license goes with --source or --repository; each of --sources has its own")
    if source:
        return [SourceSpec("folder", str(source), license)]
    if repository:
        return [SourceSpec("repository", str(repository), license or OWN)]
    if license:
        raise UserError("--license goes with --source or --repository")
    return [SourceSpec("installed")] if sources is None else sources


def _check_opted_out(output: Path, opt_out: OptOut) -> None:
    """What was taken out of a corpus does not come back because its list was forgotten."""
    try:
        earlier = read_summary(output)["options"]
    except UserError:  # there is none, or one of another version
        return
    nobody = OptOut.none().digest
    if not opt_out and any(earlier.get(key, nobody) != nobody for key in ("opt_out", "opted_out_later")):
        raise UserError(f"repositories opted out of the corpus in {output}: name their list by --opt_out")


def _check_place(output: Path, specs: list[SourceSpec]) -> None:
    """What is written into a folder of repositories would be read as one of them."""
    for spec in specs:
        folder = Path(spec.path or "").expanduser().resolve()
        inside = spec.kind in ("folder", "repository") and output.resolve().is_relative_to(folder)
        if inside and not (folder / ".git").exists():
            raise UserError(f"{output} lies in {spec.path}, which is read: name another output")


def _facts(source: Source, spec: SourceSpec) -> dict[str, Any]:
    units = source.units()
    total = sum(unit.size for unit in units)
    return {"name": source.name, "kind": spec.kind, "license": spec.license, "units": len(units), "bytes": total}


def _check_licenses(specs: list[SourceSpec], accepted: frozenset[str]) -> None:
    for license in filter(None, (spec.license for spec in specs)):
        verdict = judge_license(license, accepted)
        if isinstance(verdict, Rejection):
            raise UserError(f"--license {license}: {verdict.reason}; use an SPDX expression, and --accept for its id")


def _report(output: Path) -> None:
    summary = read_summary(output)
    print(f"corpus: {'stage':<17}{'files in':>11}{'MB in':>12}{'left out':>12}")
    for row, following in pairwise(summary["stages"]):
        left = row["files"] - following["files"]
        print(f"corpus: {row['stage']:<17}{row['files']:>11,}{row['bytes'] / 1e6:>12,.1f}{left:>12,}")
    for message in summary["messages"]:
        print(f"corpus: {visible(message)}")
    strings = ", ".join(f"{name} ({count:,} strings)" for name, count in summary["benchmarks"].items())
    missing = f"; not found: {', '.join(summary['benchmarks_missing'])}" if summary["benchmarks_missing"] else ""
    print(f"corpus: benchmarks: {strings or 'not looked for; name a folder of them by --benchmarks'}{missing}")
    print(f"corpus: {describe(summary)}")
    sizes = ", ".join(f"{split} {summary[split]['bytes'] / 1e6:,.1f} MB" for split in ("train", "validation"))
    print(f"corpus: {shown(output)}: {sizes}")
