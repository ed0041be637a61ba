"""What the paper and the model cards report, to be read beside our own numbers.

The text of the paper's PDF could not be checked. A number that no public page or model card confirms is marked
`recalled`, and every table that shows it says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BLOG = "huggingface.co/blog/starcoder"
_CARD = "the model card of bigcode/starcoder"
_BASE_CARD = "the model card of bigcode/starcoderbase"
_SMALL_CARDS = "the model cards of bigcode/starcoderbase-1b and -7b"
_PAPER = "arXiv 2305.06161, recalled and not re-checked"
_SANTACODER = "the model card of bigcode/santacoder, recalled and not re-checked"

STARCODER, BASE, PROMPTED = "StarCoder", "StarCoderBase", "StarCoder-Prompted"
SANTACODER, CUSHMAN, INCODER = "SantaCoder", "code-cushman-001", "InCoder-6B"
MULTI, MONO = "CodeGen-16B-Multi", "CodeGen-16B-Mono"


@dataclass(frozen=True)
class Published:
    """A number that somebody published.

    Args:
        value: in the units of our own measure: shares are between 0 and 1.
        source: where it is from.
        recalled: whether nobody has re-checked it.
    """

    value: float
    source: str
    recalled: bool = False


Table = dict[str, dict[str, dict[str, Published]]]
"""Group (row of a table) → measure → model → number."""


def published(task: str, group: str, measure: str) -> dict[str, Published]:
    """The numbers of other models for one row and measure of a task; none when there are none."""
    return PUBLISHED.get(task, {}).get(group, {}).get(measure, {})


def _shares(source: str, numbers: Mapping[str, float | None], recalled: bool = False) -> dict[str, Published]:
    """Numbers by model, from per cent."""
    return {
        model: Published(round(number / 100, 6), source, recalled)
        for model, number in numbers.items()
        if number is not None
    }


def _recalled(numbers: Mapping[str, float | None], source: str = _PAPER) -> dict[str, Published]:
    return _shares(source, numbers, recalled=True)


def _as_printed(numbers: Mapping[str, float]) -> dict[str, Published]:
    """Recalled numbers that are no percentages."""
    return {model: Published(number, _PAPER, True) for model, number in numbers.items()}


def _rows(measure: str, models: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> Table:
    """A table of recalled percentages: one row for each group, one column for each model."""
    return {group: {measure: _recalled(dict(zip(models, row, strict=True)))} for group, row in rows.items()}


# HumanEval and MBPP, pass@1 in % (paper §6.1.1). The 13 models of the blog post's table, of which some are left out.
_PYTHON = {
    "LLaMA-7B": (10.5, 17.7),
    "LLaMA-13B": (15.8, 22.0),
    MULTI: (18.3, 20.9),
    "LLaMA-33B": (21.7, 30.2),
    "LLaMA-65B": (23.7, 37.7),
    MONO: (29.3, 35.3),
    BASE: (30.4, 49.0),
    CUSHMAN: (33.5, 45.9),
    STARCODER: (33.6, 52.7),
    PROMPTED: (40.8, 49.5),
}
_PAPERS_WITH_CODE = "paperswithcode.com/paper/starcoder-may-the-source-be-with-you"

_HUMANEVAL: Table = {
    "": {
        "pass@1": _shares(_BLOG, {model: humaneval for model, (humaneval, _) in _PYTHON.items()})
        | _shares(_PAPERS_WITH_CODE, {SANTACODER: 18.0})
        | _shares(_SMALL_CARDS, {"StarCoderBase-1B": 15.17, "StarCoderBase-7B": 28.37})
        | _recalled({"StarCoderBase-3B": 21.46}),
        "pass@10": _recalled({SANTACODER: 29}, _SANTACODER),
        "pass@100": _recalled({SANTACODER: 49}, _SANTACODER),
    }
}
# The paper's column is MultiPL-E's MBPP of 397 problems.
_MBPP_PAPER: Table = {
    "": {
        "pass@1": _shares(_BLOG, {model: mbpp for model, (_, mbpp) in _PYTHON.items()})
        | _shares(_PAPERS_WITH_CODE, {SANTACODER: 35.0}),
        "pass@10": _recalled({SANTACODER: 58}, _SANTACODER),
        "pass@100": _recalled({SANTACODER: 77}, _SANTACODER),
    }
}
_MBPP: Table = {"": {"pass@1": _recalled({STARCODER: 43.6}, "github.com/nlpxucan/WizardLM/issues/122, about")}}

# HumanEval in other languages, pass@1 in % (paper §6.2.1): MULTI, CUSHMAN, STARCODER, BASE.
_MULTIPL_E_ROWS = {
    "C++": (21.00, 30.59, 31.55, 30.56),
    "C#": (8.24, 22.06, 21.01, 20.56),
    "D": (7.68, 6.73, 13.57, 10.01),
    "Go": (13.54, 19.68, 17.61, 21.47),
    "Java": (22.20, 31.90, 30.22, 28.53),
    "Julia": (0.00, 1.54, 23.02, 21.09),
    "JavaScript": (19.15, 31.27, 30.79, 31.70),
    "Lua": (8.50, 26.24, 23.89, 26.61),
    "PHP": (8.37, 28.94, 26.08, 26.75),
    "Perl": (3.42, 19.29, 17.34, 16.32),
    "Python": (19.26, 30.71, 33.57, 30.35),
    "R": (6.45, 10.99, 15.50, 10.18),
    "Ruby": (0.00, 28.63, 1.24, 17.25),
    "Racket": (0.66, 7.05, 0.07, 11.77),
    "Rust": (4.21, 25.22, 21.84, 24.46),
    "Scala": (2.37, 27.62, 27.61, 28.79),
    "Bash": (0.61, 11.74, 10.46, 11.02),
    "Swift": (1.25, 22.12, 22.74, 16.74),
    "TypeScript": (20.07, 31.26, 32.29, 32.15),
}
# From the cards of the small models: 1B, 7B.
_SMALL_ROWS = {
    "C++": (11.68, 23.3),
    "Java": (14.2, 24.44),
    "JavaScript": (13.38, 27.35),
    "PHP": (9.94, None),
}
_BASE_CARD_ROWS = ("C++", "C#", "D")
# SantaCoder's card: HumanEval and MBPP at k = 1, 10, 100.
_SANTACODER_ROWS = {
    "JavaScript": ((16, 27, 47), (28, 51, 70)),
    "Java": ((15, 26, 41), (28, 44, 59)),
    "Python": ((18, 29, 49), (35, 58, 77)),
}


def _santacoder(group: str, column: int) -> dict[str, dict[str, Published]]:
    numbers = _SANTACODER_ROWS[group][column]
    return {f"pass@{k}": _recalled({SANTACODER: n}, _SANTACODER) for k, n in zip((1, 10, 100), numbers, strict=True)}


def _multipl_e(group: str) -> dict[str, dict[str, Published]]:
    multi, cushman, starcoder, base = _MULTIPL_E_ROWS[group]
    small = dict(zip(("StarCoderBase-1B", "StarCoderBase-7B"), _SMALL_ROWS.get(group, (None, None)), strict=True))
    checked = group in _BASE_CARD_ROWS
    numbers = (
        _shares(_CARD, {STARCODER: starcoder})
        | _shares(_BASE_CARD if checked else _PAPER, {BASE: base}, recalled=not checked)
        | _recalled({CUSHMAN: cushman, MULTI: multi})
        | _shares(_SMALL_CARDS, small)
    )
    others = _santacoder(group, 0) if group in _SANTACODER_ROWS else {}
    return others | {"pass@1": numbers | others.get("pass@1", {})}


# DS-1000, pass@1 in % (paper §6.1.2); Matplotlib has no insertion form, so its completion counts for both.
_DS1000_MODELS = (SANTACODER, INCODER, MONO, CUSHMAN, BASE, STARCODER)
_DS1000_COMPLETION = {
    "Matplotlib": (21.6, 28.3, 31.7, 40.7, 47.0, 51.7),
    "NumPy": (4.6, 4.4, 10.9, 21.8, 27.1, 29.7),
    "Pandas": (0.9, 3.1, 3.4, 7.9, 10.1, 11.4),
    "PyTorch": (2.6, 4.4, 7.0, 12.4, 19.5, 21.4),
    "SciPy": (2.4, 2.8, 9.0, 11.3, 21.7, 20.2),
    "scikit-learn": (4.8, 2.8, 10.8, 18.0, 27.0, 29.5),
    "TensorFlow": (3.1, 3.8, 15.2, 12.2, 20.5, 24.5),
    "": (5.7, 7.4, 11.7, 18.1, None, None),
}
_DS1000_INSERTION = {
    "Matplotlib": (21.6, 28.3, 47.0, 51.7),
    "NumPy": (13.8, 4.6, 26.3, 30.8),
    "Pandas": (2.0, 2.9, 10.9, 10.3),
    "PyTorch": (3.8, 4.4, 16.6, 21.0),
    "SciPy": (5.7, 2.8, 20.2, 20.2),
    "scikit-learn": (6.9, 3.1, 30.2, 27.4),
    "TensorFlow": (14.8, 7.8, 22.3, 20.0),
    "": (9.3, 7.5, 24.0, 25.4),
}
_DS1000_CARDS = _shares(_CARD, {STARCODER: 26.0}) | _shares(_BASE_CARD, {BASE: 23.8})


def _ds1000_completion() -> Table:
    table = _rows("pass@1", _DS1000_MODELS, _DS1000_COMPLETION)
    table[""]["pass@1"] |= _DS1000_CARDS
    return table


# PAL and the majority of 40 (paper §7.1), in %.
_GSM8K = {
    BASE: (21.5, 31.2),
    MULTI: (8.6, 15.2),
    MONO: (13.1, 22.4),
    "LLaMA-7B": (10.5, 16.8),
    "LLaMA-13B": (16.9, 28.5),
    "LLaMA-33B": (38.7, 50.3),
}
# Share of valid programs, and of insecure ones among them (paper §6.2.2), in %.
_SECURITY_COMPLETION = {BASE: (85.5, 39.77), INCODER: (87.1, 35.48), MULTI: (95.5, 42.09), CUSHMAN: (96.4, 42.32)}
_SECURITY_INSERTION = {BASE: (98.7, 35.87), INCODER: (85.4, 34.31)}
# F1 of return types, without those that return None, and of all (paper §6.2.3), in %.
_RETURN_TYPES = {INCODER: (59.1, 46.8), SANTACODER: (66.9, 78.5), BASE: (77.4, 86.6), STARCODER: (77.1, 86.4)}
# Perplexity of the last tokens with a window of 2K and of 8K (paper §6.4), StarCoderBase.
_LONG_CONTEXT = {
    "C++": (2.01, 1.79),
    "C#": (1.90, 1.66),
    "C": (1.71, 1.61),
    "Go": (1.35, 1.21),
    "Java": (1.65, 1.54),
}


def _pairs(first: str, second: str, numbers: Mapping[str, tuple[float, float]]) -> Table:
    """A table of one row with two recalled percentages for each model."""
    measures = {first: 0, second: 1}
    return {"": {name: _recalled({model: pair[i] for model, pair in numbers.items()}) for name, i in measures.items()}}


PUBLISHED: dict[str, Table] = {
    "humaneval": _HUMANEVAL,
    "mbpp-paper": _MBPP_PAPER,
    "mbpp": _MBPP,
    "humaneval-multipl-e": {group: _multipl_e(group) for group in _MULTIPL_E_ROWS},
    "mbpp-multipl-e": {group: _santacoder(group, 1) for group in _SANTACODER_ROWS},
    "ds1000-completion": _ds1000_completion(),
    "ds1000-insertion": _rows("pass@1", (SANTACODER, INCODER, BASE, STARCODER), _DS1000_INSERTION),
    "santacoder-fim": _rows(
        "exact_match",
        (INCODER, SANTACODER, STARCODER),
        {"Java": (49, 62, 73), "JavaScript": (51, 60, 74), "Python": (31, 44, 62)},
    ),
    "gsm8k-pal": _pairs("pass@1", "maj@40", _GSM8K),
    "mmlu": {
        "": {"accuracy": _recalled({MULTI: 27.8, STARCODER: 33.9, BASE: 34.2, "LLaMA-7B": 35.1, "LLaMA-13B": 46.9})}
    },
    "coqa": {"": {"f1": _recalled({STARCODER: 67, BASE: 67, "LLaMA-7B": 71, "LLaMA-13B": 73})}},
    "return-types": _pairs("f1_not_none", "f1", _RETURN_TYPES),
    "docstrings": {"": {"bleu": _recalled({INCODER: 18.27, SANTACODER: 19.74, BASE: 21.38, STARCODER: 21.99})}},
    "security-completion": _pairs("valid", "insecure", _SECURITY_COMPLETION),
    "security-insertion": _pairs("valid", "insecure", _SECURITY_INSERTION),
    "long-context": {
        group: {f"perplexity@{k}": _as_printed({BASE: value}) for k, value in zip(("2K", "8K"), pair, strict=True)}
        for group, pair in _LONG_CONTEXT.items()
    },
}
