"""`starcoder card`: the model card of a release (paper §9), from what training, corpus and evaluation left behind.

What was not measured or recorded is not stated, but said to be missing.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import nn

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.evaluation.engines.local import weights_digest
from starcoder.evaluation.report import INTERVALS, conditions, described, remarks
from starcoder.evaluation.results import Results
from starcoder.evaluation.tables import cells, escaped, heading, markdown
from starcoder.hub import is_repository
from starcoder.release.dataset import corpus_facts, languages_table, read_corpus
from starcoder.release.folder import read_config
from starcoder.release.licences import OPENRAIL_TEXT, RESTRICTIONS, Licence, choose, on_hub
from starcoder.release.record import Stored, Training, read_measurements, read_training
from starcoder.release.results import eval_results, model_index, read_results
from starcoder.storage import atomic_file

CARD = "README.md"
RESULTS = ".eval_results"
_SEAL = re.compile(r"(?:<!--|#) written by `starcoder card`; sha256 of the text above: ([0-9a-f]{64})(?: -->)?\n\Z")
_SETTINGS = ("n_samples", "temperature", "top_p", "max_new_tokens", "prompt", "seed")


def write_card(
    folder: Path,
    run: Path | None = None,
    corpus: Path | None = None,
    report: Path | None = None,
    measured: list[Path] | Path | None = None,
    repo: str | None = None,
    base: str | None = None,
    license: str | None = None,
    fresh: bool = False,
) -> None:
    """Write README.md and .eval_results/ of a release, from what its training, corpus and evaluation left.

    A card that you have edited stays as it is, unless you say --fresh. What is not given is said to be missing.

    Args:
        folder: what `starcoder export` wrote.
        run: folder of the training run: its checkpoints, recipe and metrics. Call it where the run was started, so that
            the recipe's paths lead to its token shards.
        corpus: folder of the corpus that the token shards were made of.
        report: report.json of `starcoder evaluate`, or the folder that holds it.
        measured: JSON files with figures of other tools: verbatim, pii, and energy instead of what the run counted.
        repo: name on the Hub, OWNER/NAME, which the card's examples load; the folder's name by default.
        base: repository on the Hub of the weights that training started from, when the recipe names a folder.
        license: the Hub's identifier of the weights' licence, or the name of the one in the folder's file LICENSE. By
            default that of the weights that training started from, or apache-2.0 when it started from scratch.
        fresh: replace a card, or results, that somebody has edited.

    Raises:
        UserError: when the folder holds no model, an input is missing, damaged or about another model, the licence
            cannot be that one, or the card was edited.
    """
    for option, name in (("repo", repo), ("base", base)):
        if name is not None and not is_repository(name):
            raise UserError(f"--{option} {name} is no name on the Hub: it is OWNER/NAME")
    config, vocabulary = read_config(folder), tokenizers.load(folder)
    stored = Stored.read(folder, config)
    weights = weights_digest(cast(nn.Module, stored))  # which asks for nothing but parameters
    training = read_training(run, config, vocabulary.digest, stored) if run else None
    shards = training.shards if training else None
    summary = read_corpus(corpus, shards) if corpus else None
    results = read_results(report, weights) if report else None
    figures = read_measurements(measured or (), weights)
    if training and training.energy and "energy" not in figures:
        figures |= read_measurements([training.energy], weights)
    bases = [start for start in (base, training and training.base) if start]
    licence = choose(license, training is not None, bases, summary["train"]["licenses"] if summary else (), folder)
    repository = base or (training and training.base and on_hub(training.base)) or None
    name = repo or folder.resolve().name
    facts = {
        "title": escaped(name.rpartition("/")[2]),
        "checkpoint": json.dumps(name, ensure_ascii=False),
        "config": config,
        "n_params": _count(config.n_params),
        "dtype": stored.dtype,
        "size": f"{stored.n_bytes / 1e6:,.1f} MB",
        "new_tokens": min(32, config.context_length // 4),
        "licence": licence,
        "own_licence": licence.metadata["license"] == "other",
        "openrail_text": OPENRAIL_TEXT,
        "restrictions": RESTRICTIONS,
        "base": _base(repository, bases),
        **_training_facts(training),
        "corpus": corpus_facts(summary) if summary else None,
        "languages": languages_table(summary, shards),
        "evaluation": _evaluation(results) if results else None,
        **_figures(figures),
    }
    metadata = _metadata(name, licence, repository, facts["fim_rate"], results)
    files = {folder / CARD: f"---\n{metadata.to_yaml()}\n---\n\n{_render(facts)}"}
    for task, entries in (eval_results(results) if results else {}).items():
        files[folder / RESULTS / f"{task}.yaml"] = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    _write(folder, files, fresh)
    print(f"wrote {folder / CARD}")
    for missing in re.findall(r"\*\*Missing:\*\* (.*)", files[folder / CARD]):
        print(f"missing: {missing}")


def sealed(text: str, comment: str) -> str:
    """`text` with a comment at its end that tells whether anybody has edited it since."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text + comment.format(f"written by `starcoder card`; sha256 of the text above: {digest}") + "\n"


def is_edited(path: Path) -> bool:
    """Whether a file is anything else than what `sealed` made of a text."""
    content = path.read_bytes()
    found = _SEAL.search(content.decode(errors="replace"))
    return found is None or _digest_above(content) != found[1]


def _digest_above(content: bytes) -> str:
    """SHA-256 of all lines but the last."""
    return hashlib.sha256(content[: content.rstrip(b"\n").rfind(b"\n") + 1]).hexdigest()


def _write(folder: Path, files: Mapping[Path, str], fresh: bool) -> None:
    """Write the files, the card last; results of an earlier card that are not among them are removed."""
    there = [path for path in (folder / CARD, *sorted((folder / RESULTS).glob("*.yaml"))) if path.exists()]
    edited = [path for path in there if is_edited(path)]
    if taken := [path for path in edited if path in files and not fresh]:
        raise UserError(f"{taken[0]} is not as `starcoder card` wrote it: --fresh replaces it")
    for path in set(there) - set(edited) - files.keys():
        path.unlink()
    for path, text in [*files.items()][::-1]:
        with atomic_file(path) as partial:
            partial.write_text(sealed(text, "<!-- {} -->" if path.suffix == ".md" else "# {}"), encoding="utf-8")


def _render(facts: Mapping[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("starcoder.release"),
        autoescape=False,  # Markdown, in which `escaped` takes care of the texts of others
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    text = environment.get_template("card.md").render(facts)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n\n"


def _metadata(
    name: str, licence: Licence, base: str | None, fim_rate: float | None, results: Results | None
) -> ModelCardData:
    """What the Hub reads at the top of the card."""
    index = model_index(results) if results else []
    return ModelCardData(
        language="code",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=base,
        tags=["code", "gpt_bigcode", "starcoder", *["fill-in-the-middle"] * bool(fim_rate)],
        model_name=name.rpartition("/")[2] if index else None,
        eval_results=index or None,
        **licence.metadata,
    )


def _base(repository: str | None, bases: Sequence[str]) -> str:
    """Which weights training went on from, so that nobody takes a folder for a repository of the same name."""
    if repository:
        return f"of [{escaped(repository)}](https://huggingface.co/{repository})"
    if not bases:
        return ""
    folder = Path(bases[0])
    if is_repository(bases[0]) and not folder.is_dir():
        return f"of {escaped(bases[0])}, a repository on the Hub or a folder"
    return f"in a folder named {escaped(folder.resolve().name)}, no repository on the Hub as far as is recorded"


def _training_facts(training: Training | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"training": training, "fim_rate": None, "mix_known": False}
    if training is None:
        return facts
    devices = "one device" if training.devices == 1 else f"{training.devices} devices"
    accelerator = training.recipe["trainer"].get("accelerator", "auto")
    return facts | {
        "fim_rate": training.recipe["data"].get("fim_rate"),
        "mix_known": training.shards is not None,
        "recipe": markdown([["", "value"], *_recipe(training)]),
        "hours": _duration(training.hours or 0.0),
        "devices": f"{devices} (accelerator: {escaped(str(accelerator))})",
    }


def _recipe(training: Training) -> list[list[str]]:
    """What decides the weights besides the data, row by row; a setting that the recipe leaves open is left out."""
    model, data, trainer = (training.recipe[section] for section in ("model", "data", "trainer"))
    rows = {
        "optimizer steps": f"{training.step:,}",
        "tokens seen, repetitions counted": None if training.tokens is None else f"{training.tokens:,}",
        "tokens in the data": f"{training.shards.n_tokens:,}" if training.shards else None,
        "samples a step": data.get("global_batch_size"),
        "tokens a sample": data.get("context_length"),
        "documents permuted for infilling": data.get("fim_rate"),
        "of those, suffix first": data.get("fim_spm_rate"),
        "peak learning rate": model.get("learning_rate"),
        "last learning rate": model.get("min_learning_rate"),
        "warm-up steps": model.get("warmup_steps"),
        "weight decay": model.get("weight_decay"),
        "AdamW betas": f"{model.get('beta1')}, {model.get('beta2')}",
        "gradient norm clipped at": trainer.get("gradient_clip_val"),
        "precision": trainer.get("precision"),
        "seed": training.recipe.get("seed_everything"),
    }
    return [[name, str(value)] for name, value in rows.items() if value is not None]


def _evaluation(results: Results) -> str:
    """The report's tables, without published numbers of other models."""
    parts = [f"{escaped(conditions(results))}. {INTERVALS}"]
    if "weights" not in results.engine:
        parts.append(f"The evaluation names the model {escaped(results.model)}; it has no record of its weights.")
    for task in results.tasks:
        settings = {name: task.settings[name] for name in _SETTINGS if name in task.settings}
        lines = [*remarks(task), ", ".join(described(settings))]
        bullets = "\n".join(f"- {escaped(line)}" for line in lines)
        parts += [f"### {escaped(heading(task))}", markdown(cells(task, most_models=0)), bullets]
    return "\n\n".join(parts)


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    found: dict[str, str | None] = dict.fromkeys(("energy", "verbatim", "pii"))
    for name, values in figures.items():
        method = escaped(values["method"])
        if name == "energy":
            found[name] = f"{values['kwh']:,.6g} kWh ({method})."
        else:
            samples, matches = values["samples"], values["matches"]
            found[name] = f"{matches:,} of {samples:,} completions, {matches / samples:.2%} ({method})."
    return found


def _count(number: int) -> str:
    return f"{number / 1e9:.1f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"


def _duration(hours: float) -> str:
    return f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"
