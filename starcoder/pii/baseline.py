"""A baseline: findings that somebody has looked at and accepted, by fingerprint, so that a scan tells only new ones."""

import json
from collections.abc import Iterable
from pathlib import Path

from starcoder.errors import UserError
from starcoder.pii.findings import Finding
from starcoder.rows import read_object
from starcoder.storage import atomic_file

_FORMAT = 1


def read_baseline(file: Path) -> frozenset[str]:
    """The fingerprints of the accepted findings.

    Raises:
        UserError: The file cannot be read, or is no baseline of this version.
    """
    content = read_object(file)
    accepted = content.get("accepted")
    if content.get("format") != _FORMAT or not isinstance(accepted, list):
        raise UserError(f"{file} is no baseline: make one with `starcoder pii scan … --update_baseline {file}`")
    try:
        return frozenset(str(each["fingerprint"]) for each in accepted)
    except (KeyError, TypeError):
        raise UserError(f"{file}: each accepted finding has a fingerprint; make the baseline anew") from None


def write_baseline(file: Path, findings: Iterable[Finding]) -> int:
    """Accept `findings`, each once however often it stands in its file, and return their number."""
    rows = {f.fingerprint: {"path": f.path, "label": f.label, "fingerprint": f.fingerprint} for f in findings}
    accepted = sorted(rows.values(), key=lambda row: (row["path"], row["label"], row["fingerprint"]))
    with atomic_file(file) as partial:
        partial.write_text(json.dumps({"format": _FORMAT, "accepted": accepted}, indent=1) + "\n", encoding="utf-8")
    return len(accepted)
