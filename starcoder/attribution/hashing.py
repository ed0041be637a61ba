"""What the hashes of tokens and of windows have in common: polynomials of code points modulo 2^64, and their mixing."""

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

BASE = 0x9E3779B97F4A7C15
"""Of the polynomials; odd, so that it has an inverse modulo 2^64: a piece's hash follows from sums over the text."""
INVERSE = pow(BASE, -1, 2**64)


def mixed(values: Hashes) -> Hashes:
    """Every bit of each value spread over all 64, one to one (the end of SplitMix64): sums mix the low bits little."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
