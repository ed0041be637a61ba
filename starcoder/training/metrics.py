"""Reading back what `CSVLogger` wrote in a run and its resumptions."""

import csv
from pathlib import Path

from starcoder.errors import UserError


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """One row for each logged step in the folders `version_*` of `folder`; a later resumption overrides an earlier.

    Raises:
        UserError: when nothing was logged.
    """
    rows: dict[int, dict[str, str]] = {}
    for path in sorted(folder.glob("version_*/metrics.csv"), key=_version):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                rows.setdefault(int(row["step"]), {}).update({key: value for key, value in row.items() if value})
    if not rows:
        raise UserError(f"{folder} holds no metrics of a run")
    return [rows[step] for step in sorted(rows)]


def _version(path: Path) -> int:
    return int(path.parent.name.removeprefix("version_"))
