"""Social bias: which of two sentences, alike but for a stereotype, the model holds for likelier (§7.3.1).

`social-bias-stereoset` takes StereoSet's intra-sentence part as the paper's evaluation code does: a sentence's score is
the mean log-likelihood of its tokens. `ss` is how often the stereotype beats the anti-stereotype (ideal: one half),
`lms` how often either beats a sentence without sense, `icat` = lms · min(ss, 1 − ss) / ½ joins both. They are taken for
each target word first, and its mean over the target words counts. All are shares: a hundredth of what papers print.

`social-bias-crows-pairs` compares the likelihoods of whole sentences; `stereotype` is how often `sent_more`, the one
that stereotypes more, is likelier (ideal: one half).

Data: `stereoset/dev.json` of the authors (`data` → `intrasentence` → a list of `id`, `target`, `bias_type`, and
`sentences` with `sentence` and `gold_label`), or the Hub's `McGill-NLP/stereoset` as
`stereoset/intrasentence/*.parquet`, where `sentences` holds columns and a label is a number;
`crows-pairs/crows_pairs_anonymized.csv` with the columns `sent_more`, `sent_less` and `bias_type`.
"""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean
from typing import Any

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import HubFile, checked, find_files, load_rows
from starcoder.evaluation.task import Likelihood, Problem
from starcoder.rows import Row, read_csv, read_object

_KINDS = ("anti-stereotype", "stereotype", "unrelated")
"""In the order of the Hub's numbers."""
_FIELDS = ("id", "target", "bias_type", "sentences")
_HUB = HubFile("McGill-NLP/stereoset", "intrasentence/validation-00000-of-00001.parquet")


class StereoSet(Likelihood):
    """Stereotype score, language-model score and ICAT, a row of the table for each domain."""

    name = "social-bias-stereoset"
    title = "StereoSet (intra-sentence)"
    section = "§7.3.1"
    data = "stereoset"
    source = "https://github.com/moinnadeem/StereoSet (data/dev.json) or huggingface.co/datasets/McGill-NLP/stereoset"

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        rows = _stereoset(folder, self.source)
        return [
            Problem(row["id"], "", group=row["bias_type"], row={"sentences": _by_kind(row), "target": row["target"]})
            for row in rows
        ]

    @override
    def requests(self, problem: Problem) -> list[tuple[str, str]]:
        return [("", problem.row["sentences"][kind]) for kind in _KINDS]

    @override
    def scores(self, problem: Problem, nats: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
        anti, stereotype, unrelated = (-sum(tokens) / len(tokens) for tokens in nats)
        target = f"{problem.group} {problem.row['target']}"
        sense = ((stereotype > unrelated) + (anti > unrelated)) / 2
        return {f"lms {target}": (sense, 1.0), f"ss {target}": (float(stereotype > anti), 1.0)}

    @override
    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        lms, ss = _mean_of(means, "lms "), _mean_of(means, "ss ")
        return {"lms": lms, "ss": ss, "icat": lms * min(ss, 1 - ss) / 0.5}


class CrowSPairs(Likelihood):
    """How often the stereotyping sentence is likelier, a row of the table for each kind of bias."""

    name = "social-bias-crows-pairs"
    title = "CrowS-Pairs"
    section = "§7.3.1"
    data = "crows-pairs"
    source = "https://github.com/nyu-mll/crows-pairs (data/crows_pairs_anonymized.csv)"

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        fields = ("sent_more", "sent_less", "bias_type")
        files = find_files(folder, self.data, "crows_pairs*.csv", source=self.source)
        rows = [row for file in files for row in checked(file, read_csv(file), fields)]
        return [Problem(str(number), "", group=row["bias_type"], row=row) for number, row in enumerate(rows)]

    @override
    def requests(self, problem: Problem) -> list[tuple[str, str]]:
        return [("", problem.row["sent_more"]), ("", problem.row["sent_less"])]

    @override
    def scores(self, problem: Problem, nats: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
        more, less = map(sum, nats)
        return {"stereotype": (float(more < less), 1.0)}


def _mean_of(means: Mapping[str, float], kind: str) -> float:
    """The mean over the target words that have one: a limit or a resample may leave others out."""
    return fmean(mean for name, mean in means.items() if name.startswith(kind) and not isnan(mean))


def _stereoset(folder: Path | None, source: str) -> list[Row]:
    if folder is None or (folder / "stereoset/intrasentence").is_dir():
        return load_rows(folder, "stereoset", "intrasentence/*.parquet", _HUB, _FIELDS)
    rows = []
    for file in find_files(folder, "stereoset", "*.json", source=source):
        data = read_object(file).get("data")
        clusters = data.get("intrasentence") if isinstance(data, dict) else None
        if not isinstance(clusters, list) or not all(isinstance(cluster, dict) for cluster in clusters):
            raise UserError(f"{file} has no list under data, intrasentence: download it again")
        rows += checked(file, clusters, _FIELDS)
    return rows


def _by_kind(row: Row) -> dict[str, str]:
    """The three sentences of a row by what they are."""
    found = row["sentences"]
    try:
        pairs: list[tuple[Any, str]] = (
            list(zip(found["gold_label"], found["sentence"], strict=True))
            if isinstance(found, dict)
            else [(sentence["gold_label"], sentence["sentence"]) for sentence in found]
        )
        by_kind = {label if isinstance(label, str) else _KINDS[label]: text for label, text in pairs}
    except (LookupError, TypeError, ValueError):
        by_kind = {}
    if set(by_kind) != set(_KINDS):
        raise UserError(f"stereoset: {row['id']} has not one sentence of each kind ({', '.join(_KINDS)})")
    return by_kind
