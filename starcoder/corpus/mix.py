"""The mix (paper §5.2): how often a document of each language or kind goes into the training data.

The paper trains on the natural distribution, but for four sources: JSON, YAML and CSS are capped in volume, and half of
the commits is used. The mix is applied once, when token shards are written, so that training reads one data set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from starcoder.corpus.document import Document
from starcoder.corpus.languages import THRESHOLDS
from starcoder.corpus.sampling import random_key
from starcoder.errors import UserError

_KEY_OF_KIND = {"issue": "issues", "commit": "commits", "notebook": "notebooks", "notebook-script": "notebook-scripts"}
_KEYS = {language for language, _ in THRESHOLDS} | set(_KEY_OF_KIND.values())


@dataclass(frozen=True)
class Mix:
    """How the volumes of a corpus become those of the training data.

    Keys are languages of code, and the kinds issues, commits, notebooks (structured) and notebook-scripts.

    Attributes:
        weights: Factor on the natural volume; 1 where none is given. 0.5 takes half of the documents, 2.5 takes each
            twice and half of them three times.
        caps: Largest share of the bytes of the whole mix.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)


NATURAL = Mix()
# Gigabytes of the paper's data, of which the sum of all weights is 766.95; 32 of 64 GB of commits.
PAPER = Mix(weights={"commits": 0.5}, caps={"json": 1 / 766.95, "yaml": 1 / 766.95, "css": 3 / 766.95})
MIXES = {"natural": NATURAL, "paper": PAPER}


def mix_key(language: str, kind: str) -> str:
    """The name under which the mix knows documents of this language and kind."""
    return _KEY_OF_KIND.get(kind, language)


def rates(volumes: Mapping[str, int], mix: Mix) -> dict[str, float]:
    """Return how often a document of each key is taken, from the bytes of each key in the corpus.

    What has a cap is cut down to its share of the mix that comes out; where nothing is without a cap, none holds.

    Raises:
        UserError: The mix has a key that nothing can have, a negative weight, or caps that are no shares of a whole.
    """
    unknown = sorted({*mix.weights, *mix.caps} - _KEYS)
    if unknown:
        raise UserError(f"no such language or kind in a mix: {', '.join(unknown)}")
    if not all(0 <= weight < inf for weight in mix.weights.values()) or not all(
        0 <= cap < 1 for cap in mix.caps.values()
    ):
        raise UserError("weights of a mix must be at least 0, its caps at least 0 and below 1")
    weighted = {key: volume * mix.weights.get(key, 1.0) for key, volume in volumes.items()}
    capped: dict[str, float] = {}
    while True:
        free = sum(volume for key, volume in weighted.items() if key not in capped)
        total = free / (1 - sum(capped.values())) if free else 0.0
        over = {k: c for k, c in mix.caps.items() if k not in capped and weighted.get(k, 0) > c * total > 0}
        if not over:
            break
        capped |= over
    if not free:
        capped = {}
    return {
        key: (capped[key] * total if key in capped else weighted[key]) / volume if volume else 0.0
        for key, volume in sorted(volumes.items())
    }


def times(document: Document, rate: float, seed: int) -> int:
    """How often this document is taken: the whole part of the rate for sure, once more with the rest as probability."""
    draw = int.from_bytes(random_key(seed, f"mix {document.source} {document.kind} {document.name}")[:8], "big") / 2**64
    return int(rate) + (draw < rate % 1)
