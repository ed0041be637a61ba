"""Traces for the page: those of `starcoder trace query`."""

import json
from pathlib import Path

from starcoder.attribution.calibration import frequency
from starcoder.attribution.index import Index
from starcoder.attribution.report import as_json
from starcoder.attribution.trace import Trace
from starcoder.attribution.tracer import Tracer
from starcoder.attribution.verdict import Verdict, judge
from starcoder.corpus.optout import OptOut
from starcoder.playground.page import Found


def as_found(trace: Trace, verdict: Verdict, frequency: str) -> Found:
    """A trace as the page reads it: the report for programs, and the text."""
    report: Found = json.loads(as_json(trace, verdict, frequency))
    return report | {"text": trace.text}


class IndexTraces:
    """Traces texts in an index.

    Args:
        folder: The index, as `starcoder trace index` writes it.
        opt_out: A list of owners and repositories; sources that are on it are marked.

    Raises:
        UserError: There is none, or it cannot answer.
    """

    def __init__(self, folder: Path, opt_out: Path | None = None) -> None:
        self._index = Index.open(folder)
        self._tracer = Tracer(self._index, opt_out=OptOut.read(opt_out) if opt_out else None)

    def check(self) -> None:
        """Refuse, as a `UserError`, when the corpus or the index has changed."""
        self._index.check()

    def trace(self, text: str) -> Found:
        """Where a text comes from."""
        trace = self._tracer.trace(text)
        verdict = judge(trace)
        return as_found(trace, verdict, frequency(self._index, verdict.level, None, len(text)))
