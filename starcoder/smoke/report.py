"""The smoke run's report: one self-contained HTML page, and the numbers behind it as JSON."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure

from starcoder import tokenizer as tokenizers
from starcoder.corpus.document import Document, read_documents
from starcoder.generation import generate, infill
from starcoder.model import StarCoder
from starcoder.release.verify import verify
from starcoder.smoke.measure import (
    HeldOut,
    NGrams,
    by_language,
    exact_matches,
    held_out,
    model_nats,
    single_line_holes,
)
from starcoder.smoke.stage import states
from starcoder.storage import atomic_folder
from starcoder.tokenizer import Tokenizer
from starcoder.training.checkpoint import newest, read_meta
from starcoder.training.loader import Windows
from starcoder.training.metrics import read_metrics
from starcoder.training.stream import open_shards

EVAL_TOKENS = 65_536
HOLES = 256
PROMPT = "def __init__(self, name):\n    "
PREFIX, SUFFIX = "import os\n\n\ndef read(path):\n    with open(path) as ", ":\n        return file.read()\n"


def report(workspace: Path) -> None:
    """Measure what a smoke run trained, print it and write `report/index.html` and `report/results.json`.

    Args:
        workspace: folder of a finished smoke run.

    Raises:
        UserError: when a part of the run is missing or damaged, or transformers does not load the folder as we do.
    """
    vocabulary = tokenizers.load(workspace / "tokenizer")
    trained = {name: StarCoder.from_pretrained(workspace / name) for name in ("starcoderbase", "starcoder")}
    models = {"untrained": StarCoder(trained["starcoderbase"].config, seed=0), **trained}
    config = trained["starcoder"].config
    documents = list(read_documents(workspace / "corpus", "validation"))
    results = {
        "loss": _losses(models, documents, vocabulary, _training_tokens(workspace, config.context_length)),
        "infill": _infilling(models, documents, vocabulary),
        "samples": _samples(models["starcoder"], vocabulary),
        "corpus": json.loads((workspace / "corpus" / "corpus.json").read_text()),
        "n_params": config.n_params,
        "training": _training(workspace, config.context_length),
    }
    results["checks"] = checks(results)
    verify(workspace / "starcoder")
    _print(results)
    with atomic_folder(workspace / "report", marker="results.json") as folder:
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        (folder / "index.html").write_text(_page(workspace, results))


def checks(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What a run of full size must reach, what this one did, and whether that is enough."""
    corpus, rows = results["corpus"]["train"], results["loss"]["rows"]
    measured = {
        "MB of code to train on": (corpus["bytes"] / 1e6, 50),
        "repositories in it": (len(corpus["repositories"]), 30),
        "languages in it": (len(corpus["languages"]), 4),
        "million distinct tokens to draw from": (results["training"]["distinct_tokens"] / 1e6, 10),
        "nats below the unigram": (rows["unigram"]["nats"] - rows["starcoderbase"]["nats"], 1),
    }
    return [
        {"what": what, "found": found, "least": least, "holds": found >= least}
        for what, (found, least) in measured.items()
    ]


def _training_tokens(workspace: Path, context_length: int) -> Any:
    """All tokens (N,) that the models could see."""
    windows = Windows(open_shards(workspace / "shards" / "train"), context_length + 1)
    return np.concatenate([windows[index] for index in range(len(windows))])


def _training(workspace: Path, context_length: int) -> dict[str, Any]:
    """How much there was to train on, and how much was seen."""
    folders = {name: workspace / name / "checkpoints" for name in ("pretrain", "finetune")}
    runs = {name: read_meta(newest(folder) or folder) for name, folder in folders.items()}
    shards, position = open_shards(workspace / "shards" / "train"), runs["pretrain"]["TokenDataModule"]
    windows = position["epoch"] * sum(shards.windows(context_length + 1)) + position["windows"]
    return {
        "distinct_tokens": shards.n_tokens,
        "seen_tokens": windows * context_length,
        "steps": {name: run["global_step"] for name, run in runs.items()},
    }


def _losses(
    models: dict[str, StarCoder], documents: Sequence[Document], vocabulary: Tokenizer, tokens: Any
) -> dict[str, Any]:
    """Mean nats per token on held-out files, of the models and of the n-gram baselines on the very same targets."""
    config = models["untrained"].config
    text = held_out(documents, vocabulary, config.context_length, EVAL_TOKENS)
    ngrams = NGrams(tokens, config.vocab_size)
    nats = {
        "unigram": ngrams.unigram_nats(text),
        "bigram": ngrams.bigram_nats(text),
        **{name: model_nats(model, text) for name, model in models.items()},
    }
    return {
        "tokens": int(text.languages.size),
        "files": text.n_files,
        "rows": {name: _summary(text, values) for name, values in nats.items()},
    }


def _summary(text: HeldOut, nats: Any) -> dict[str, Any]:
    mean = float(nats.mean())
    return {"nats": mean, "perplexity": float(np.exp(mean)), "by_language": by_language(text, nats)}


def _infilling(models: dict[str, StarCoder], documents: Iterable[Document], vocabulary: Tokenizer) -> dict[str, Any]:
    """Exact matches of one masked line in held-out Python files; the untrained model is the control."""
    python = [document for document in documents if document.language == "python"]
    holes = single_line_holes(python, vocabulary, HOLES, models["untrained"].config.context_length)
    return {
        "count": len(holes),
        "matches": {name: sum(exact_matches(model, vocabulary, holes)) for name, model in models.items()},
    }


def _samples(model: StarCoder, vocabulary: Tokenizer) -> dict[str, str]:
    model.eval()
    completion = generate(model, vocabulary, [PROMPT], max_new_tokens=48, temperature=0.0)[0]
    middle = infill(model, vocabulary, [(PREFIX, SUFFIX)], max_new_tokens=16, stop=["\n"])[0]
    return {"prompt": PROMPT, "completion": completion, "prefix": PREFIX, "middle": middle, "suffix": SUFFIX}


def _print(results: dict[str, Any]) -> None:
    loss, infilling, samples = results["loss"], results["infill"], results["samples"]
    seen = results["training"]
    print(
        f"\npretrained on {seen['seen_tokens']:,} tokens out of {seen['distinct_tokens']:,} in "
        f"{seen['steps']['pretrain']:,} steps, then {seen['steps']['finetune']:,} steps on Python"
    )
    print(f"held-out files: {loss['files']} files, {loss['tokens']:,} tokens")
    for name, row in loss["rows"].items():
        print(f"  {name:<14} {row['nats']:.3f} nats   perplexity {row['perplexity']:,.1f}")
    print(f"single-line infilling, exact matches of {infilling['count']} lines:")
    for name, matches in infilling["matches"].items():
        print(f"  {name:<14} {matches} ({matches / max(1, infilling['count']):.1%})")
    for check in results["checks"]:
        if not check["holds"]:
            print(f"too little for a full run: {check['found']:.3g} {check['what']}, {check['least']} wanted")
    print(f"\ncompletion of a prompt:\n{samples['prompt']}\033[1m{samples['completion']}\033[0m")
    print(
        f"\ninfill between prefix and suffix:\n{samples['prefix']}\033[1m{samples['middle']}\033[0m{samples['suffix']}"
    )


def _page(workspace: Path, results: dict[str, Any]) -> str:
    # A run that was resumed shortly before its end has no window of steps to average over.
    rates = [row for row in read_metrics(workspace / "pretrain" / "metrics") if "mfu" in row]
    environment = Environment(loader=PackageLoader("starcoder.smoke"), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html").render(
        **results,
        curve=_loss_curve(workspace, results["loss"]["rows"]),
        stages={name: state["seconds"] for name, state in states(workspace).items() if "digest" in state},
        throughput=rates[-1] if rates else None,
    )


def _loss_curve(workspace: Path, rows: dict[str, Any]) -> Markup:
    """Training loss of both runs against steps, with the baselines as lines, as inline SVG."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="optimizer step", ylabel="loss [nats/token]")
    start = 0
    for name, label in (("pretrain", "StarCoderBase: pretraining with FIM"), ("finetune", "StarCoder: on Python")):
        points = [row for row in read_metrics(workspace / name / "metrics") if "train_loss" in row]
        steps = np.array([int(row["step"]) + start for row in points])
        axes.plot(steps, [float(row["train_loss"]) for row in points], label=label, linewidth=1)
        start = int(steps.max(initial=0))
    for name, style in (("unigram", ":"), ("bigram", "--")):
        axes.axhline(rows[name]["nats"], linestyle=style, color="grey", label=f"{name} on held-out files")
    axes.legend()
    with mpl.rc_context({"svg.hashsalt": "starcoder", "svg.fonttype": "none"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    return Markup(svg[svg.index("<svg") :])
