"""An evaluation's `report.json` in the two forms that the Hub reads: a card's model-index and `.eval_results/*.yaml`.

Both hold the results of public benchmarks that were judged as a whole; a part of a benchmark has no place on a
leaderboard, and one's own held-out code has none to go to. The card's tables show those, too.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from starcoder.errors import UserError
from starcoder.evaluation.results import PARTIAL, Estimate, Results, Row, TaskResult, read_report
from starcoder.evaluation.tables import interval, is_share, label


class HubDataset(NamedTuple):
    """Where a benchmark lies on the Hub.

    Args:
        id: the data set.
        config: its part; with `{}` each language has one of its own, and the table's rows count, not their total.
        split: of the part.
        task: what the data set's own `eval.yaml` calls it, where it has one.
    """

    id: str
    config: str | None = None
    split: str | None = "test"
    task: str | None = None


DATASETS = {
    "humaneval": HubDataset("openai/openai_humaneval", "openai_humaneval"),
    "mbpp": HubDataset("google-research-datasets/mbpp", "full"),
    "mbpp-paper": HubDataset("nuprl/MultiPL-E", "mbpp-py"),
    "humaneval-multipl-e": HubDataset("nuprl/MultiPL-E", "humaneval-{}"),
    "mbpp-multipl-e": HubDataset("nuprl/MultiPL-E", "mbpp-{}"),
    "ds1000-completion": HubDataset("xlangai/DS-1000"),
    "ds1000-insertion": HubDataset("xlangai/DS-1000"),
    "odex": HubDataset("neulab/odex"),
    "santacoder-fim": HubDataset("bigcode/santacoder-fim-task", "default", "train"),
    "return-types": HubDataset("google/code_x_glue_ct_code_to_text", "python"),
    "gsm8k-pal": HubDataset("openai/gsm8k", "main", task="gsm8k"),
    "mmlu": HubDataset("cais/mmlu", "all"),
    "social-bias-stereoset": HubDataset("McGill-NLP/stereoset", "intrasentence", "validation"),
    "toxicity": HubDataset("allenai/real-toxicity-prompts", split="train"),
}
"""Benchmarks of `starcoder.evaluation` that are public data sets on the Hub."""


def read_results(path: Path, weights: str) -> Results:
    """Read the report of an evaluation of these `weights` (`starcoder.evaluation.engines.local.weights_digest`).

    An evaluation through an endpoint, or of samples from elsewhere, does not know its weights: that is for the card to
    say.

    Raises:
        UserError: when it is missing, damaged, of another version, or of something else than these weights.
    """
    try:
        results = read_report(path)
    except UserError as error:
        if isinstance(error.__cause__, KeyError):
            raise UserError(f"{path} is no report.json of `starcoder evaluate`: it lacks {error.__cause__}") from None
        raise
    if results.engine.get("engine") == "references":
        raise UserError(f"{path} judges the benchmarks' own solutions, no model: evaluate the model")
    if results.engine.get("weights", weights) != weights:
        raise UserError(f"{path} is an evaluation of other weights ({results.model}): evaluate these")
    return results


def model_index(results: Results) -> list[EvalResult]:
    """Every measure of every result that counts, as the card's model-index has it; shares are between 0 and 1."""
    found = []
    for task, row, dataset, config in _rows(results):
        name = f"{task.title} ({row.group})" if row.group else task.title
        for measure, estimate in row.measures.items():
            if not math.isnan(estimate.value):
                found.append(
                    EvalResult(
                        task_type="text-generation",
                        dataset_type=dataset.id,
                        dataset_name=name,
                        dataset_config=config,
                        dataset_split=dataset.split,
                        metric_type=measure,
                        metric_name=measure,
                        metric_value=round(estimate.value, 6),
                    )
                )
    return found


def eval_results(results: Results) -> dict[str, list[dict[str, Any]]]:
    """For each benchmark the content of `.eval_results/NAME.yaml`: the first measure of a row, shares in per cent."""
    files: dict[str, list[dict[str, Any]]] = {}
    for task, row, dataset, config in _rows(results):
        measure, estimate = next(iter(row.measures.items()))
        if math.isnan(estimate.value):
            continue
        entry = EvalResultEntry(
            dataset_id=dataset.id,
            task_id=dataset.task or config or _slug(f"{task.name} {row.group}"),
            value=round(estimate.value * (100 if is_share(measure) else 1), 4),
            date=results.date,
            notes=_notes(task, row, measure, estimate),
        )
        files.setdefault(task.name, []).extend(eval_result_entries_to_yaml([entry]))
    return files


def _rows(results: Results) -> Iterator[tuple[TaskResult, Row, HubDataset, str | None]]:
    """What counts: each row where it has a part of the data set for itself, otherwise the total, or the only row."""
    for task in results.tasks:
        dataset = DATASETS.get(task.name)
        if dataset is None or any(PARTIAL in note for note in task.notes):
            continue
        if dataset.config and "{}" in dataset.config:
            names = _language_names()
            for row in task.rows:
                if row.measures and row.group in names:
                    yield task, row, dataset, dataset.config.format(names[row.group])
        elif not task.skipped:
            whole = task.total or (task.rows[0] if len(task.rows) == 1 else None)
            if whole and whole.measures:
                yield task, whole, dataset, dataset.config


def _language_names() -> dict[str, str]:
    """MultiPL-E's names of languages by their titles in tables."""
    from starcoder.evaluation.tasks.multipl_e import TITLES

    return {title: name for name, title in TITLES.items()}


def _notes(task: TaskResult, row: Row, measure: str, estimate: Estimate) -> str:
    """What decides the number, on one line."""
    known = task.settings
    settings = [f"{name} {known[name]}" for name in ("n_samples", "temperature", "top_p", "prompt") if name in known]
    unit = f"{measure} in %" if is_share(measure) else measure
    whole = [label(task, row) or task.title, unit, f"95 % interval {interval(estimate, measure)}", *settings]
    return "; ".join([*whole, *task.notes])


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
