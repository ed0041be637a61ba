"""StereoSet and CrowS-Pairs: both formats, and scores against values worked by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from starcoder.errors import UserError
from starcoder.evaluation.metrics import WeightedMean
from starcoder.evaluation.task import Likelihood, Problem
from starcoder.evaluation.tasks.bias import CrowSPairs, StereoSet

KINDS = ("stereotype", "unrelated", "anti-stereotype")


def cluster(number: int, target: str, domain: str = "gender") -> dict[str, Any]:
    sentences = [{"id": f"{number}{kind}", "sentence": f"{kind} {number}.", "gold_label": kind} for kind in KINDS]
    return {"id": str(number), "target": target, "bias_type": domain, "context": "BLANK", "sentences": sentences}


def write(folder: Path, *clusters: dict[str, Any]) -> Path:
    path = folder / "stereoset" / "dev.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"version": "1.0", "data": {"intersentence": [], "intrasentence": clusters}}))
    return folder


def row_of(
    task: Likelihood, problems: Sequence[Problem], nats: Sequence[Sequence[Sequence[float]]]
) -> dict[str, float]:
    """A table's row, as the report makes it: Σ sum / Σ weight of each measure, and their summary."""
    scores = [score for pair in zip(problems, nats, strict=True) for score in task.scores(*pair).items()]
    found = {name: [pair for other, pair in scores if other == name] for name, _ in scores}
    return task.summary({name: sum(s for s, _ in pairs) / sum(w for _, w in pairs) for name, pairs in found.items()})


def test_stereoset_is_averaged_over_target_words(tmp_path: Path) -> None:
    problems = StereoSet().problems(write(tmp_path, cluster(0, "nurse"), cluster(1, "nurse"), cluster(2, "he")))
    assert StereoSet().requests(problems[0]) == [
        ("", "anti-stereotype 0."),
        ("", "stereotype 0."),
        ("", "unrelated 0."),
    ]
    # Nats of anti-stereotype, stereotype, unrelated; the mean of a sentence's tokens counts, not their sum.
    nats = [
        [[1.0, 1.0, 1.0], [2.0], [3.0]],  # anti wins, both make more sense: ss 0, lms 1
        [[2.0], [1.0, 1.0, 1.0], [1.5]],  # the stereotype wins, and alone makes more sense: ss 1, lms 1/2
        [[2.0], [1.0], [0.5]],  # the stereotype wins, neither makes more sense: ss 1, lms 0
    ]
    lms, ss = ((1 + 0.5) / 2 + 0) / 2, ((0 + 1) / 2 + 1) / 2
    found = row_of(StereoSet(), problems, nats)
    assert found == {"lms": lms, "ss": ss, "icat": pytest.approx(lms * min(ss, 1 - ss) / 0.5)}


def test_a_limited_run_weighs_only_what_it_scores(tmp_path: Path) -> None:
    """Of three clusters about a nurse and one about a clerk, two and one are scored."""
    targets = ("nurse", "nurse", "clerk", "nurse")
    problems = StereoSet().problems(write(tmp_path, *(cluster(n, target) for n, target in enumerate(targets))))
    stereotype, anti = [[2.0], [1.0], [3.0]], [[1.0], [2.0], [3.0]]
    found = row_of(StereoSet(), problems[:3], [stereotype, stereotype, anti])
    assert found == {"lms": 1.0, "ss": 0.5, "icat": 1.0}
    metric = WeightedMean(
        3, ["lms gender nurse", "lms gender clerk", "ss gender nurse", "ss gender clerk"], StereoSet().summary
    )
    one_each = torch.tensor([[1.0, 0, 1, 0], [1, 0, 1, 0], [0, 1, 0, 1]])
    metric.update(torch.arange(3), one_each * torch.tensor([1, 1, 1, 0]), one_each)
    estimate = metric.compute()["ss"]  # a resample may draw no clerk: then the nurses alone count
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_a_word_of_two_domains_is_two_targets(tmp_path: Path) -> None:
    problems = StereoSet().problems(write(tmp_path, cluster(0, "he"), cluster(1, "he"), cluster(2, "he", "profession")))
    stereotype, anti = [[2.0], [1.0], [3.0]], [[1.0], [2.0], [3.0]]
    assert row_of(StereoSet(), problems, [stereotype, stereotype, anti])["ss"] == 0.5


def test_an_ideal_model_has_an_icat_of_one(tmp_path: Path) -> None:
    problems = StereoSet().problems(write(tmp_path, cluster(0, "a", "race"), cluster(1, "b", "race")))
    assert {problem.group for problem in problems} == {"race"}
    found = row_of(StereoSet(), problems, [[[1.0], [2.0], [3.0]], [[2.0], [1.0], [3.0]]])
    assert found == {"lms": 1.0, "ss": 0.5, "icat": 1.0}


def test_the_hubs_file_of_stereoset(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sentences = {"sentence": ["s", "u", "a"], "gold_label": [1, 2, 0]}
    (tmp_path / "stereoset/intrasentence").mkdir(parents=True)
    table = pa.Table.from_pylist([{"id": "x", "target": "t", "bias_type": "religion", "sentences": sentences}])
    pq.write_table(table, tmp_path / "stereoset/intrasentence/validation-00000-of-00001.parquet")
    (problem,) = StereoSet().problems(tmp_path)
    assert StereoSet().requests(problem) == [("", "a"), ("", "s"), ("", "u")]


def test_crows_pairs_compares_whole_sentences(tmp_path: Path) -> None:
    path = tmp_path / "crows-pairs" / "crows_pairs_anonymized.csv"
    path.parent.mkdir()
    path.write_text(
        ",id,sent_more,sent_less,stereo_antistereo,bias_type,annotations\n"
        '0,1,"Old, they say.",Young.,stereo,age,"[[\'age\'], []]"\n'
        "1,2,More.,Less.,antistereo,gender,[]\n"
    )
    task = CrowSPairs()
    problems = task.problems(tmp_path)
    assert [problem.group for problem in problems] == ["age", "gender"]
    assert task.requests(problems[0]) == [("", "Old, they say."), ("", "Young.")]
    assert task.scores(problems[0], [[1.0, 1.0], [2.5]]) == {"stereotype": (1.0, 1.0)}
    assert task.scores(problems[1], [[1.0, 1.0, 1.0], [2.5]]) == {"stereotype": (0.0, 1.0)}


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="moinnadeem/StereoSet"):
        StereoSet().problems(tmp_path)
    with pytest.raises(UserError, match=r"crows-pairs needs data.*nyu-mll/crows-pairs"):
        CrowSPairs().problems(None)
    with pytest.raises(UserError, match="3 has not one sentence of each kind"):
        StereoSet().problems(write(tmp_path, {**cluster(3, "t"), "sentences": [{"sentence": "s"}]}))
    with pytest.raises(UserError, match="row 1 has no target"):
        StereoSet().problems(write(tmp_path, {**cluster(3, "t"), "target": None}))
    (tmp_path / "stereoset/dev.json").write_text("[]")
    with pytest.raises(UserError, match="is no JSON object"):
        StereoSet().problems(tmp_path)
    (tmp_path / "stereoset/dev.json").write_text('{"data": []}')
    with pytest.raises(UserError, match="has no list under data, intrasentence"):
        StereoSet().problems(tmp_path)
