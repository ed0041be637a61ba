"""Docstrings of Python functions: CodeXGLUE's code-to-text, scored with its smoothed BLEU (§6.2.3).

`docstrings` shows the whole function with a gap where the docstring is, `docstrings-left` only what is before it. The
prompts are those of InCoder's authors: the docstring's own quotes, of whatever kind, are replaced by three double ones,
and the text after the gap begins after the closing quotes, which the model has to write and which end its completion.
Its first line counts, made greedily. With the gap StarCoder has 21.99, StarCoderBase 21.38.

Data: the Hub's `google/code_x_glue_ct_code_to_text` as `code-to-text/python/test*.parquet`, or the authors'
`code-to-text/python/test.jsonl`; the fields `original_string`, `docstring` and `docstring_tokens` are read.
"""

import math
import re
import sys
from collections import Counter
from pathlib import Path

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import load_rows
from starcoder.evaluation.task import Defaults, Matched, Problem
from starcoder.evaluation.tasks.return_types import HUB, PATTERN
from starcoder.rows import Row

QUOTES = '"""'
_FIELDS = ("original_string", "docstring", "docstring_tokens")
_SINGLE_QUOTE = re.compile(r"""(?<!['"])(?P<quote>['"])\s*$""")
_CLOSING_QUOTES = re.compile(r"""^\s*('{3}|"{3}|['"](?=\s*\n))""")
_WORD = re.compile(r"[^\W_]+|_|[^\w\s]")
_ORDERS = 4


class Docstrings(Matched):
    """BLEU of docstrings that are filled in."""

    name = "docstrings"
    title = "Docstrings (infilling)"
    section = "§6.2.3"
    data = "code-to-text"
    source = f"huggingface.co/datasets/{HUB.repo}"
    defaults = Defaults(n_samples=1, temperature=0.0, max_new_tokens=128, stop=(QUOTES, "'''"))
    infilling = True

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        rows = load_rows(folder, self.data, PATTERN, HUB, fields=_FIELDS)
        return [self._problem(number, row) for number, row in enumerate(rows)]

    def _problem(self, number: int, row: Row) -> Problem:
        before, found, after = row["original_string"].partition(row["docstring"])
        if not found:
            raise UserError(f"{self.data}: the docstring of row {number + 1} is not in its original_string")
        prompt, suffix = split_at_docstring(before, after)
        return Problem(str(number), prompt, suffix if self.infilling else None, reference(row["docstring_tokens"]))

    @override
    def scores(self, problem: Problem, completion: str) -> dict[str, float]:
        line = (completion.strip().splitlines() or [""])[0]
        return {"bleu": smoothed_bleu(problem.reference, line)}


class DocstringsLeft(Docstrings):
    """The same from the signature alone."""

    name = "docstrings-left"
    title = "Docstrings (signature only)"
    infilling = False


def split_at_docstring(before: str, after: str) -> tuple[str, str]:
    """What the model reads on both sides of the gap, from a function's text before and after its docstring's text."""
    triple = next((quotes for quotes in (QUOTES, "'''") if quotes in before), None)
    single = _SINGLE_QUOTE.search(before)
    if triple:
        before, after = before[: before.index(triple)], _after(triple, after)
    elif single:
        before, after = before[: single.start()], _after(single["quote"], after)
    else:
        after = _CLOSING_QUOTES.sub("", after)
    return before + QUOTES, "\n" + after


def _after(quotes: str, text: str) -> str:
    return text.partition(quotes)[2] if quotes in text else text


def reference(tokens: list[str]) -> str:
    """The docstring's first paragraph.

    Its words are only joined by spaces: what a detokenizer moves is taken apart again before it is compared. The r of a
    raw string is no word of it.
    """
    return " ".join(" ".join(tokens[tokens[:1] == ["r"] :]).replace("\n", "").split())


def smoothed_bleu(reference: str, text: str) -> float:
    """Sentence BLEU of one text, between 0 and 1, as CodeXGLUE's evaluator defines it.

    Words are compared in lower case, punctuation and underscores being words. Of the n-grams of 1 to 4 words the
    matches and the counts are each one more for n > 1; the penalty of a short text is exp(1 − (r + 1) / (c + 1)) for
    lengths r and c. A text without words has that penalty alone. What follows a tab does not count.
    """
    right, given = _words(reference), _words(text)
    log_precision = 0.0
    for order in range(1, _ORDERS + 1):
        grams, known = _grams(given, order), _grams(right, order)
        smoothing = sys.float_info.min + (order > 1)
        matches = (grams & known).total() + smoothing
        log_precision += math.log(matches / (grams.total() + smoothing)) / _ORDERS
    penalty = min(0.0, 1 - (len(right) + 1) / (len(given) + 1))
    return math.exp(log_precision + penalty)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.strip().split("\t")[0].lower())


def _grams(words: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))
