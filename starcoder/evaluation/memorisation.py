"""How much of what a model wrote for a benchmark stands in its training data (paper §8)."""

from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from starcoder.attribution.index import Index
from starcoder.attribution.tracer import LONGEST, Tracer
from starcoder.attribution.verdict import judge
from starcoder.corpus.sampling import random_key
from starcoder.evaluation.results import Sample
from starcoder.text import shown

MOST = 500
"""Completions of a benchmark that are traced; of more, random ones."""


class Memorisation:
    """What measures it, against an attribution index.

    Args:
        folder: Its folder.

    Raises:
        UserError: There is none, or it is stale.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tracer = Tracer(Index.open(folder))

    def note(self, samples: Iterable[Sample]) -> str:
        """The share of completions that stands in the training data, in words."""
        texts = {f"{sample.problem}/{sample.sample}": sample.completion for sample in samples}
        keys = sorted((key for key, text in texts.items() if text.strip()), key=lambda key: random_key(0, key))[:MOST]
        if not keys:
            return "no completion to trace"
        traces = [self._tracer.trace(texts[key][:LONGEST]) for key in tqdm(keys, "traced", disable=None)]
        verdicts = [judge(trace) for trace in traces]
        characters = sum(len(trace.text) for trace in traces)
        copied = sum(verdict.share * len(trace.text) for trace, verdict in zip(traces, verdicts, strict=True))
        levels = [verdict.level for verdict in verdicts]
        among = "" if len(keys) == len(texts) else f", random ones of {len(texts):,}"
        return (
            f"verbatim in the training data ({shown(self._folder)}): {copied / characters:.1%} of the characters of "
            f"{len(keys):,} completions{among}; {levels.count('verbatim'):,} of them verbatim and rare, "
            f"{levels.count('partial'):,} in part"
        )
