"""Fair and repeatable choices: random orders, a byte budget shared between repositories, the held-out repositories.

Randomness is a keyed hash of the name of what is ordered, so a choice depends on the seed alone: not on the order in
which things are found, and hardly on what else there is.
"""

import hashlib
from collections.abc import Iterable, Mapping


def random_key(seed: int, name: str) -> bytes:
    """Return the place of `name` in the random order of `seed`, as a sorting key."""
    return hashlib.blake2b(name.encode(), key=str(seed).encode(), digest_size=16).digest()


def fair_share(sizes: Iterable[int], budget: int) -> int:
    """Return the largest cap for which sizes cut at it add up to at most `budget` (max-min fairness).

    Small repositories stay whole and the large ones share what is left equally; if all fit, the cap is `budget`.
    """
    ascending = sorted(sizes)
    rest = budget
    for place, size in enumerate(ascending):
        cap = rest // (len(ascending) - place)
        if size > cap:
            return cap
        rest -= size
    return budget


def fit(sizes: Mapping[str, int], budget: int, seed: int) -> set[str]:
    """Return names that fit into `budget` together, taken in random order; one that would exceed it is passed over."""
    chosen = set()
    for name in sorted(sizes, key=lambda name: random_key(seed, name)):
        if sizes[name] <= budget:
            budget -= sizes[name]
            chosen.add(name)
    return chosen


def held_out(sizes: Mapping[str, int], share: float, seed: int) -> set[str]:
    """Return the repositories to hold out: random ones that have `share` of all bytes together, but at least one.

    None has more than a quarter of those bytes, so that they are several and a loss on them is not that of one project.
    """
    budget = int(share * sum(sizes.values()))
    chosen = fit({name: size for name, size in sizes.items() if size <= budget // 4}, budget, seed)
    return chosen or {min(sizes, key=lambda name: (sizes[name], name))}
