"""How alike two texts are, as CodeXGLUE's code completion measures it."""


def edit_similarity(first: str, second: str) -> float:
    """Twice the longest common subsequence, divided by both lengths: between 0 and 1; 1 for two empty texts.

    CodeXGLUE calls `fuzz.ratio`, which is this number in whole percent (Levenshtein's distance with a substitution
    counted as a deletion and an insertion); it is not rounded here.
    """
    length = len(first) + len(second)
    return 2 * longest_common_subsequence(first, second) / length if length else 1.0


def exact_match(first: str, second: str) -> float:
    """1 when both have the same words between white space, as CodeXGLUE compares lines, else 0."""
    return float(first.split() == second.split())


def longest_common_subsequence(first: str, second: str) -> int:
    """Characters of the longest common subsequence (Hyyrö's bit-parallel recurrence: one addition a character).

    Bit i of `row` is 0 where the row of the dynamic programme's table rises between `first[:i]` and `first[:i + 1]`.
    """
    places: dict[str, int] = {}
    for index, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << index
    everything = (1 << len(first)) - 1
    row = everything
    for character in second:
        matches = row & places.get(character, 0)
        row = (row + matches | row - matches) & everything
    return len(first) - row.bit_count()
