"""The smoke run under twenty `kill -9` at random moments: the artefacts are those of an undisturbed run.

No measurement, a demonstration that takes five minutes; `make test` has a short one. Run by `make bench`, or
`python -m tests.benchmarks.bench_kills [--kills N]`.
"""

import argparse
import tempfile
from pathlib import Path

from tests.smoke.test_kill import check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), kills)
    print(f"after {kills} kills: the artefacts of an undisturbed run")


if __name__ == "__main__":
    main()
