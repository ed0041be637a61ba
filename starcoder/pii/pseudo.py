"""Labels that models gave, as a first course of training (paper §4.2): which of them are sure enough.

| label | kept where | its file is dropped where |
|---|---|---|
| NAME | score ≥ 0.7 | score < 0.6 |
| USERNAME | score ≥ 0.7 | score < 0.61 |
| EMAIL | score ≥ 0.9 | |
| KEY, PASSWORD, IP_ADDRESS | a trigger word ends within 5 characters before it, on its line | |

The trigger words are ours: the paper does not list them.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from starcoder.pii.entity import Entity
from starcoder.pii.examples import Example

KEPT_FROM = {"NAME": 0.7, "USERNAME": 0.7, "EMAIL": 0.9}
"""Lowest score of a label that is kept."""

FILE_DROPPED_BELOW = {"NAME": 0.6, "USERNAME": 0.61}
"""A score so low that the whole file is left out: it would teach that what may be a name is none."""

TRIGGERS = {
    "KEY": ("key", "token", "secret", "auth", "credential", "signature", "bearer"),
    "PASSWORD": ("password", "passwd", "passphrase", "pass", "pwd", "pw", "secret"),
    "IP_ADDRESS": ("ip", "ipv4", "ipv6", "address", "addr", "host", "server", "dns", "gateway", "listen", "bind"),
}
"""Words before an entity that make its label credible, in lower case."""

_LINE = 100
_NEAR = 5
_TRIGGER = {label: re.compile(f"(?:{'|'.join(words)}).{{0,{_NEAR}}}$") for label, words in TRIGGERS.items()}


def filtered(examples: Iterable[Example]) -> list[Example]:
    """What is sure enough of examples whose fragments carry scores; fragments of other labels are left out."""
    return [
        replace(example, fragments=tuple(f for f in example.fragments if is_sure(example.text, f)))
        for example in examples
        if not any(f.score < FILE_DROPPED_BELOW.get(f.label, 0.0) for f in example.fragments)
    ]


def is_sure(text: str, entity: Entity) -> bool:
    """Whether a model's finding is good enough to train on."""
    if entity.label in KEPT_FROM:
        return entity.score >= KEPT_FROM[entity.label]
    before = text[max(0, entity.start - _LINE) : entity.start].rpartition("\n")[2].lower()
    return entity.label in TRIGGERS and _TRIGGER[entity.label].search(before) is not None
