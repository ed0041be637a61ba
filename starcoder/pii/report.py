"""How a scan tells what it found: lines to read, JSON for programs, a page with the findings marked in their lines."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from starcoder.text import visible

if TYPE_CHECKING:
    from starcoder.pii.scan import Scan

_NAMED = 5  # skipped files, of each reason
MOST_ON_A_PAGE = 5_000
"""Findings of the page at most; a browser gets slow with more."""


def as_text(scan: "Scan") -> str:
    """A line for each finding, as compilers have them, and a summary."""
    return "".join(f"{line}\n" for line in _lines(scan))


def as_json(scan: "Scan") -> str:
    """Everything, for programs."""
    content = {
        "findings": [asdict(finding) for finding in scan.findings],
        "counts": scan.counts,
        "accepted": scan.accepted,
        "files": scan.files,
        "bytes": scan.bytes,
        "skipped": scan.skipped,
    }
    return json.dumps(content, indent=1) + "\n"


def as_html(scan: "Scan") -> str:
    """One page that needs nothing else; what strangers wrote is escaped, and no script but the page's own can run."""
    from starcoder.pages import page_environment

    shown = scan.findings[:MOST_ON_A_PAGE]
    files = {path: list(group) for path, group in groupby(shown, lambda finding: finding.path)}
    return (
        page_environment("starcoder.pii")
        .get_template("scan.html")
        .render(
            scan=scan,
            files=files,
            left_out=len(scan.findings) - len(shown),
            reasons=_reasons(scan),
            summary=_summary(scan),
        )
    )


def _lines(scan: "Scan") -> Iterator[str]:
    for finding in scan.findings:
        line = f"{finding.before}[{finding.value}]{finding.after}".strip()
        yield f"{visible(finding.path)}:{finding.line}:{finding.column}: {finding.label} {line}"
    yield _summary(scan)
    for reason, count in _reasons(scan).items():
        names = [visible(path) for path, why in scan.skipped.items() if why.partition(" (")[0] == reason][:_NAMED]
        yield f"skipped: {count:,} {reason}: {', '.join(names)}{', …' if count > len(names) else ''}"


def _summary(scan: "Scan") -> str:
    found = ", ".join(f"{count:,} {label}" for label, count in scan.counts.items()) or "nothing found"
    accepted = f"; {scan.accepted:,} more in the baseline" if scan.accepted else ""
    return f"{found} in {scan.files:,} files, {scan.bytes / 1e6:,.1f} MB, {scan.seconds:,.1f} s{accepted}"


def _reasons(scan: "Scan") -> dict[str, int]:
    """How many files were skipped for each reason; details are for the JSON report."""
    return dict(Counter(reason.partition(" (")[0] for reason in scan.skipped.values()).most_common())
