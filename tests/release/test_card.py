"""A card says what training, corpus and evaluation left, no more; its examples run; the Hub's client reads it."""

import hashlib
import json
import math
import re
import shutil
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants, parse_eval_result_entries
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from markdown_it import MarkdownIt
from safetensors.torch import load_file, save_file

from starcoder import tokenizer as tokenizers
from starcoder.cli import main
from starcoder.corpus.build import build
from starcoder.corpus.summary import read_summary
from starcoder.errors import UserError
from starcoder.evaluation.engines.local import weights_digest
from starcoder.evaluation.results import PARTIAL, Estimate, Results, Row, TaskResult, to_json
from starcoder.evaluation.tasks import TASKS
from starcoder.executors import Execution
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.card import write_card
from starcoder.release.export import export
from starcoder.release.folder import save
from starcoder.release.licences import DEFAULT, OPENRAIL
from starcoder.release.results import DATASETS
from starcoder.training.energy import Start
from starcoder.training.energy import to_json as to_kwh
from starcoder.training.shards import tokenize
from starcoder.training.stream import open_shards
from tests.conftest import ROOT, VOCAB_SIZE, Tiny, starcoder
from tests.pages import Page

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": VOCAB_SIZE, "context_length": 64}
STEPS, BATCH = 6, 4


@dataclass(frozen=True)
class Chain:
    """Folders of a small run: everything under `root`."""

    root: Path
    corpus: Path
    run: Path
    model: Path


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    root = tmp_path_factory.mktemp("chain")
    chain = Chain(root, root / "corpus", root / "run", root / "model")
    library = Path(sysconfig.get_path("stdlib"))
    for number, pattern in enumerate(("a*.py", "b*.py", "c*.py")):
        (repository := root / "source" / f"repository{number}").mkdir(parents=True)
        for path in library.glob(pattern):
            shutil.copy(path, repository)
    build(chain.corpus, source=root / "source", license="MIT", validation_share=0.2, execution=Execution(workers=1))
    tokenize(chain.corpus, tiny.tokenizer, root / "shards", execution=Execution(workers=1))
    options = {
        "model.overrides": json.dumps(SHAPE),
        "data.train": root / "shards",
        "data.tokenizer": tiny.tokenizer,
        "data.validation": "null",
        "data.context_length": 64,
        "checkpoint.folder": chain.run / "checkpoints",
        "checkpoint.keep": 2,
        "checkpoint.every_n_steps": 4,
        "trainer.max_steps": STEPS,
        "trainer.log_every_n_steps": 2,
        "trainer.default_root_dir": chain.run,
        "trainer.logger.init_args.save_dir": chain.run / "metrics",
    }
    args = [f"--{name}={value}" for name, value in options.items()]
    starcoder(root, "fit", "--config", str(ROOT / "recipes" / "smoke.yaml"), *args, check=True)
    export(chain.run / "checkpoints", tiny.tokenizer, chain.model)
    return chain


@pytest.fixture
def chain(trained: Chain, tmp_path: Path) -> Chain:
    """The same, with a release of one's own."""
    return replace(trained, model=Path(shutil.copytree(trained.model, tmp_path / "model")))


def task(name: str, title: str, rows: dict[str, float], **more: Any) -> TaskResult:
    made = [Row(g, {"pass@1": Estimate(v, v - 0.01, v + 0.01, 10)}, 10, 20) for g, v in rows.items()]
    settings = {"temperature": 0.2, "n_samples": 2, "prompt": "plain"}
    return TaskResult(name, title, "§6.1", settings, tuple(made), **more)


def results(folder: Path, *tasks: TaskResult, **engine: Any) -> Results:
    weights = weights_digest(StarCoder.from_pretrained(folder))
    versions = {"python": "3.11"}
    settings = {"engine": "kit", "weights": weights} | engine
    return Results("me", settings, {}, versions, "landlock", True, 0, "2026-11-27T01:22:01+00:00", {}, tasks)


def report(chain: Chain, *tasks: TaskResult, **engine: Any) -> Path:
    path = chain.model.parent / "report.json"
    path.write_text(to_json(results(chain.model, *tasks, **engine)))
    return path


def rendered(folder: Path) -> Page:
    text = ModelCard.load(folder / "README.md").text
    return Page(MarkdownIt("commonmark", {"xhtmlOut": False}).enable("table").render(text).replace(" />", ">"))


def snippets(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def missing(text: str) -> list[str]:
    return re.findall(r"\*\*Missing:\*\* (.*)", text)


def begun(chain: Chain, folder: Path, base: Path | str) -> Path:
    """A copy of the run that says to have started from `base`."""
    run = Path(shutil.copytree(chain.run, folder))
    recipe = run / "metrics" / "version_0" / "config.yaml"
    content = yaml.safe_load(recipe.read_text())
    content["model"]["init_from"] = str(base) if isinstance(base, Path) else yaml.safe_load(base)
    recipe.write_text(yaml.safe_dump(content))
    return run


def refused(folder: Path, *parts: str, **options: Any) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as error:
        write_card(folder, **options)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in parts), error.value
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_card_says_what_the_run_and_the_corpus_left(chain: Chain) -> None:
    write_card(chain.model, run=chain.run, corpus=chain.corpus)
    page, card = rendered(chain.model), ModelCard.load(chain.model / "README.md")
    recipe = dict(page.table(0))
    assert recipe["optimizer steps"] == str(STEPS)
    assert recipe["tokens seen, repetitions counted"] == f"{STEPS * BATCH * 64:,}"
    assert recipe["peak learning rate"] == "0.0025"
    shards, summary = open_shards(chain.root / "shards"), read_summary(chain.corpus)
    assert page.table(2)[1] == ["python", *(f"{n:,}" for n in shards.metadata.languages["python"].values()), "100.0%"]
    (license, count), *_ = summary["train"]["licenses"].items()
    assert page.table(3)[1] == [license, f"{count['documents']:,}", f"{count['bytes'] / 1e6:,.1f}"]
    n_params = StarCoderConfig.preset("smoke", **SHAPE).n_params
    assert f"{n_params / 1e6:.1f} million parameters" in card.text
    assert "Opt-out: no list was applied." in card.text
    assert "Personal data: redacted by regex (" in card.text
    assert re.search(r"Training steps took \d+\.\d minutes on one device \(accelerator: cpu\)", card.text)
    assert card.data.to_dict()["license"] == DEFAULT
    assert len(missing(card.text)) == 4  # copies, personal data, energy, evaluation


def test_headings_and_links_hold_together(chain: Chain) -> None:
    write_card(chain.model, run=chain.run, corpus=chain.corpus)
    page = rendered(chain.model)
    headings = [*page.all("h2"), *page.all("h3")]
    assert page.all("h1") == ["model"]
    assert page.all("h2") == ["Use", "Limitations", "Training", "Evaluation", "License", "Citation"]
    anchors = {re.sub(r"[^a-z0-9]+", "-", heading.lower()) for heading in headings}
    links = [attributes["href"] or "" for tag, attributes in page.elements if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} == {"data", "attribution"} <= anchors
    assert all(link.startswith(("#", "https://")) for link in links)
    assert not any("**" in text or "|" in text for text in page.all("p"))


def test_examples_of_the_card_run(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_card(chain.model, run=chain.run)
    monkeypatch.chdir(chain.model.parent)
    names: dict[str, Any] = {}
    completion, middle = snippets((chain.model / "README.md").read_text())
    capsys.readouterr()
    exec(completion, names)
    assert capsys.readouterr().out.startswith("def hello_world():")
    exec(middle, names)
    tokenizer = tokenizers.load(chain.model)
    prompt = [1, *tokenizer.encode(names["prefix"]), 3, *tokenizer.encode(names["suffix"]), 2]
    assert names["inputs"]["input_ids"].tolist() == [prompt]
    assert names["output"].shape[1] > len(prompt)


def test_examples_load_the_repository_when_it_is_named(chain: Chain) -> None:
    write_card(chain.model, run=chain.run, repo="some-team/small-coder")
    card = ModelCard.load(chain.model / "README.md")
    assert 'checkpoint = "some-team/small-coder"' in snippets(card.text)[0]
    assert card.text.strip().startswith("# small-coder\n")


def test_without_a_run_everything_is_said_to_be_missing(chain: Chain) -> None:
    refused(chain.model, "--run", "--license")
    write_card(chain.model, license="mit")
    card = ModelCard.load(chain.model / "README.md")
    assert len(missing(card.text)) == 9
    assert card.data.to_dict()["tags"] == ["code", "gpt_bigcode", "starcoder"]
    assert "was trained to" not in card.text.replace("whether the model was trained to fill", "")


def test_one_report_gives_tables_model_index_and_eval_results(chain: Chain) -> None:
    tasks = (
        task("humaneval", "HumanEval", {"": 0.336}),
        task("humaneval-multipl-e", "MultiPL-E HumanEval", {"C++": 0.3155, "Rust": 0.21}, total=Row("", {}, 0, 0)),
        task("gsm8k-pal", "GSM8K", {"": 0.084}),
        task("mbpp", "MBPP", {"": 0.5}, notes=(f"3 of 500 problems, {PARTIAL}",)),
        task("bits-per-byte", "Bits per byte", {"Python": 0.25}),
        task(
            "ds1000-completion", "DS-1000", {"NumPy": 0.2, "Pandas": math.nan}, skipped={"TensorFlow": "not installed"}
        ),
    )
    write_card(chain.model, run=chain.run, report=report(chain, *tasks))
    page, data = rendered(chain.model), ModelCard.load(chain.model / "README.md").data
    index = data.to_dict()["model-index"]
    name, found = model_index_to_eval_results(index)
    assert name == "model"
    assert eval_results_to_model_index(name, found) == index
    assert {(r.dataset_type, r.dataset_config, r.metric_type): r.metric_value for r in found} == {
        ("openai/openai_humaneval", "openai_humaneval", "pass@1"): 0.336,
        ("nuprl/MultiPL-E", "humaneval-cpp", "pass@1"): 0.3155,
        ("nuprl/MultiPL-E", "humaneval-rs", "pass@1"): 0.21,
        ("openai/gsm8k", "main", "pass@1"): 0.084,
    }
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (chain.model / ".eval_results").iterdir()}
    entries = {(e.dataset_id, e.task_id): e for file in files.values() for e in parse_eval_result_entries(file)}
    assert files.keys() == {"humaneval", "humaneval-multipl-e", "gsm8k-pal"}
    assert {key: entry.value for key, entry in entries.items()} == {
        ("openai/openai_humaneval", "openai_humaneval"): 33.6,
        ("nuprl/MultiPL-E", "humaneval-cpp"): 31.55,
        ("nuprl/MultiPL-E", "humaneval-rs"): 21.0,
        ("openai/gsm8k", "gsm8k"): 8.4,
    }
    assert entries["openai/gsm8k", "gsm8k"].date == "2026-11-27T01:22:01+00:00"
    assert "95 % interval 7.4 to 9.4; n_samples 2; temperature 0.2" in str(entries["openai/gsm8k", "gsm8k"].notes)
    assert page.table(2)[1][:3] == ["", "33.6", "32.6 to 34.6"]
    assert any(PARTIAL in text for text in page.all("li"))
    assert "DS-1000 (incomplete: TensorFlow skipped, no total)" in page.all("h3")


def test_the_names_of_benchmarks_are_those_of_the_evaluation() -> None:
    assert DATASETS.keys() <= TASKS.keys()


def test_a_new_report_removes_the_results_of_the_old(chain: Chain) -> None:
    write_card(chain.model, run=chain.run, report=report(chain, task("humaneval", "HumanEval", {"": 0.3})))
    (chain.model / ".eval_results" / "mine.yaml").write_text("[]\n")
    write_card(chain.model, run=chain.run, report=report(chain, task("mbpp", "MBPP", {"": 0.3})))
    assert sorted(path.name for path in (chain.model / ".eval_results").iterdir()) == ["mbpp.yaml", "mine.yaml"]


@pytest.mark.parametrize(
    ("engine", "part"),
    [({"weights": "0" * 64}, "of other weights"), ({"engine": "references"}, "own solutions")],
)
def test_an_evaluation_of_something_else_is_refused(chain: Chain, engine: dict[str, Any], part: str) -> None:
    path = report(chain, task("humaneval", "HumanEval", {"": 0.3}), **engine)
    refused(chain.model, "report.json", part, run=chain.run, report=path)


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": 2}', '{"schema": 1}'])
def test_a_damaged_report_is_refused(chain: Chain, content: str) -> None:
    path = chain.model.parent / "report.json"
    path.write_text(content)
    refused(chain.model, "report.json", run=chain.run, report=path)


def test_a_report_of_something_else_is_named_so(chain: Chain) -> None:
    path = chain.model.parent / "results.json"
    path.write_text('{"loss": {}}')
    refused(chain.model, "results.json is no report.json of `starcoder evaluate`", run=chain.run, report=path)


def test_measured_figures_are_stated_with_their_method(chain: Chain) -> None:
    files = [chain.model.parent / "samples.json", chain.model.parent / "energy.json"]
    pii = {"samples": 1000, "matches": 4, "method": "regular expressions"}
    verbatim = {"samples": 1000, "matches": 12, "method": "50 tokens in a row | exact"}
    files[0].write_text(json.dumps({"pii": pii, "verbatim": verbatim}))
    files[1].write_text(json.dumps({"energy": {"kwh": 0.0125, "method": "the counters of the board"}}))
    write_card(chain.model, run=chain.run, measured=files)
    items = rendered(chain.model)
    assert "Copied training code: 12 of 1,000 completions, 1.20% (50 tokens in a row | exact)." in items.all("li")
    assert "Personal data in completions: 4 of 1,000 completions, 0.40% (regular expressions)." in items.all("li")
    assert "Energy: 0.0125 kWh (the counters of the board)." in items.all("p")
    for names in (str(files[1]), f"[{files[0]}, {files[1]}]"):
        main(["card", str(chain.model), "--run", str(chain.run), "--measured", names])
        assert "Energy: 0.0125 kWh" in (chain.model / "README.md").read_text()


def test_the_energy_that_the_run_counted_is_found(chain: Chain, tmp_path: Path) -> None:
    """Unless another tool's figure is given; that of another run's folder of checkpoints is not taken."""
    run = Path(shutil.copytree(chain.run, tmp_path / "run"))
    (run / "energy.json").write_text(to_kwh([Start(0, 99, 3.6e6, 1, 0, 0.0, 0, 1)]))
    write_card(chain.model, run=run)
    assert "the energy of the run was not measured." in missing(ModelCard.load(chain.model / "README.md").text)
    (run / "checkpoints" / "energy.json").write_text(to_kwh([Start(0, STEPS, 3.6e6, 1, 0, 0.0, 0, 1)]))
    write_card(chain.model, run=run)
    (told,) = (text for text in rendered(chain.model).all("p") if text.startswith("Energy:"))
    assert told.startswith(
        "Energy: 1 kWh (hardware counters of 1 NVIDIA GPU, whatever ran on them, optimizer steps 0 to 6"
    )
    assert "not counted: the CPUs of 1 node" in told
    given = tmp_path / "mine.json"
    given.write_text(json.dumps({"energy": {"kwh": 2, "method": "a wattmeter"}}))
    write_card(chain.model, run=run, measured=[given])
    assert "Energy: 2 kWh (a wattmeter)." in rendered(chain.model).all("p")
    (run / "checkpoints" / "energy.json").write_text("{")
    refused(chain.model, "energy.json", "cannot be read", run=run)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "cannot be read"),
        ("{}", "none of the figures energy"),
        ('{"energy": {"kwh": 1}}', "energy needs kwh"),
        ('{"energy": {"kwh": -1, "method": "x"}}', "cannot have"),
        ('{"energy": {"kwh": NaN, "method": "x"}}', "cannot have"),
        ('{"pii": {"samples": 10, "matches": 11, "method": "x"}}', "cannot have"),
        ('{"pii": {"samples": 0, "matches": 0, "method": "x"}}', "cannot have"),
        ('{"weights": "other", "energy": {"kwh": 1, "method": "x"}}', "other weights"),
    ],
)
def test_figures_that_cannot_be_are_refused(chain: Chain, content: str, part: str) -> None:
    path = chain.model.parent / "figures.json"
    path.write_text(content)
    refused(chain.model, "figures.json", part, run=chain.run, measured=[path])


def test_a_card_that_was_edited_stays(chain: Chain) -> None:
    write_card(chain.model, run=chain.run)
    write_card(chain.model, run=chain.run, repo="a/b")  # its own card is replaced
    card = chain.model / "README.md"
    for edited in (card.read_text().replace("# b\n", "# A good model\n"), card.read_text() + "More.\n", "mine\n"):
        card.write_text(edited)
        refused(chain.model, "README.md", "--fresh", run=chain.run)
    write_card(chain.model, run=chain.run, fresh=True)
    assert "mine" not in card.read_text()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_checkpoints_of_the_run_are_told_apart(chain: Chain, tiny: Tiny, tmp_path: Path, dtype: str) -> None:
    earlier = tmp_path / "earlier"
    export(chain.run / "checkpoints" / "step-00000004", tiny.tokenizer, earlier, dtype=dtype)
    write_card(earlier, run=chain.run)
    assert dict(rendered(earlier).table(0))["optimizer steps"] == "4"


def test_weights_of_no_checkpoint_or_of_two_are_refused(chain: Chain, tiny: Tiny, tmp_path: Path) -> None:
    save(StarCoder(StarCoderConfig.preset("smoke", **SHAPE)), tmp_path / "other", tokenizers.load(tiny.tokenizer))
    refused(tmp_path / "other", "no checkpoint", "holds the released weights", run=chain.run)
    run = Path(shutil.copytree(chain.run, tmp_path / "run"))
    checkpoints = run / "checkpoints"
    shutil.copytree(checkpoints / f"step-{STEPS:08d}", checkpoints / "step-00000008")
    refused(chain.model, f"step-{STEPS:08d}", "step-00000008", "the same weights in float32", run=run)
    for shard in (checkpoints / "step-00000008").glob("*.distcp"):
        shard.write_bytes(b"0")
    write_card(chain.model, run=run)


def test_weights_are_those_that_the_index_names(chain: Chain) -> None:
    path = report(chain, task("humaneval", "HumanEval", {"": 0.3}))
    tensors = load_file(chain.model / "model.safetensors")
    save_file({f"adapter.{name}": tensor for name, tensor in tensors.items()}, chain.model / "adapter.safetensors")
    write_card(chain.model, run=chain.run, report=path)
    n_bytes = 4 * StarCoderConfig.preset("smoke", **SHAPE).n_params
    assert f"stored as float32, {n_bytes / 1e6:,.1f} MB." in (chain.model / "README.md").read_text()


def test_other_folders_are_refused(chain: Chain, tiny: Tiny, tmp_path: Path) -> None:
    refused(tmp_path, "config.json is missing", run=chain.run)
    refused(chain.model, "is no run of `starcoder fit`", run=tmp_path)
    refused(chain.model, "no corpus in", run=chain.run, corpus=tmp_path)
    other = Path(shutil.copytree(chain.corpus, tmp_path / "another"))
    refused(chain.model, "another", "not the corpus of the token shards", run=chain.run, corpus=other)
    moved = Path(shutil.copytree(chain.corpus, tmp_path / "corpus"))
    (moved / "corpus.json").write_text(json.dumps(read_summary(moved) | {"train": {}}))
    refused(chain.model, "damaged", run=chain.run, corpus=moved)
    recipe = Path(shutil.copytree(chain.run, tmp_path / "run")) / "metrics" / "version_0" / "config.yaml"
    recipe.write_text("model: [")
    refused(chain.model, "config.yaml", run=tmp_path / "run")
    bare = Path(shutil.copytree(chain.model, tmp_path / "bare"))
    (bare / "tokenizer.json").unlink()
    refused(bare, "tokenizer", run=chain.run)  # its examples could not run
    (chain.model / "model.safetensors").write_bytes(b"0" * 100)
    refused(chain.model, "model.safetensors is damaged", run=chain.run)


def test_shards_that_are_gone_leave_gaps_that_are_told(chain: Chain, tmp_path: Path) -> None:
    run = Path(shutil.copytree(chain.run, tmp_path / "run"))
    recipe = run / "metrics" / "version_0" / "config.yaml"
    recipe.write_text(recipe.read_text().replace(str(chain.root / "shards"), "s3://gone"))
    (run / "metrics" / "version_0" / "metrics.csv").unlink()
    write_card(chain.model, run=run, corpus=chain.corpus)
    text = (chain.model / "README.md").read_text()
    assert dict(rendered(chain.model).table(0))["tokens seen, repetitions counted"] == f"{STEPS * BATCH * 64:,}"
    assert "how many tokens of each language the model saw is not recorded." in missing(text)
    assert "devices and hours of training are not recorded." in missing(text)


def test_hours_devices_and_losses_up_to_the_released_step(chain: Chain, tmp_path: Path) -> None:
    run = Path(shutil.copytree(chain.run, tmp_path / "run"))
    header = "step,steps_per_sec,tokens_per_sec,tokens_per_sec_per_device,train_loss,val_loss"
    rows = ["1,0.01,200,100,5.5,", "3,,,,,4.25", "5,0.04,200,100,4.5,", "7,0.001,200,100,1.5,1.25"]
    (run / "metrics" / "version_0" / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    write_card(chain.model, run=run)
    text = (chain.model / "README.md").read_text()
    assert "Training steps took 5.0 minutes on 2 devices" in text  # 2 / 0.01 + 4 / 0.04 seconds
    assert "Training loss where it was last logged: 4.500 nats a token." in text
    assert "Validation loss where it was last logged: 4.250 nats a token." in text
    (run / "metrics" / "version_0" / "metrics.csv").write_text("\n".join([header, "1,fast,,,,"]) + "\n")
    refused(chain.model, "metrics", "damaged", run=run, fresh=True)
    for rates in ("0.01,200,0", "0.01,inf,100"):
        (run / "metrics" / "version_0" / "metrics.csv").write_text("\n".join([header, f"1,{rates},,"]) + "\n")
        refused(chain.model, "metrics", "damaged", run=run)


def test_a_recipe_that_starts_from_no_name_is_refused(chain: Chain, tmp_path: Path) -> None:
    refused(chain.model, "config.yaml: model.init_from is ['a']", run=begun(chain, tmp_path / "run", "[a]"))


def test_tokens_of_earlier_epochs_count(chain: Chain, tmp_path: Path) -> None:
    run = Path(shutil.copytree(chain.run, tmp_path / "run"))
    meta = run / "checkpoints" / f"step-{STEPS:08d}" / "meta.pt"
    content = torch.load(meta, weights_only=True)
    content["TokenDataModule"]["epoch"] = 2
    torch.save(content, meta)
    write_card(chain.model, run=run)
    epoch = sum(open_shards(chain.root / "shards").windows(65))
    seen = dict(rendered(chain.model).table(0))["tokens seen, repetitions counted"]
    assert seen == f"{64 * (2 * epoch + STEPS * BATCH):,}"
    recipe = run / "metrics" / "version_0" / "config.yaml"
    recipe.write_text(recipe.read_text().replace(str(chain.root / "shards"), "s3://gone"))
    write_card(chain.model, run=run)
    told = missing((chain.model / "README.md").read_text())
    assert "the number of tokens seen cannot be told, as the token shards are not at hand any more." in told


def test_a_recipe_without_infilling_has_no_example_of_it(chain: Chain, tmp_path: Path) -> None:
    run = Path(shutil.copytree(chain.run, tmp_path / "run"))
    recipe = run / "metrics" / "version_0" / "config.yaml"
    recipe.write_text(recipe.read_text().replace("fim_rate: 0.5", "fim_rate: 0.0"))
    write_card(chain.model, run=run)
    card = ModelCard.load(chain.model / "README.md")
    assert len(snippets(card.text)) == 1
    assert "does not fill gaps" in card.text
    assert "fill-in-the-middle" not in card.data.to_dict()["tags"]


@pytest.mark.parametrize("base", ["bigcode/starcoderbase-1b", "bigcode/tiny_starcoder_py", "bigcode/starcoder2-15b"])
def test_what_derives_from_starcoder_keeps_its_licence(chain: Chain, base: str) -> None:
    refused(chain.model, base, OPENRAIL, run=chain.run, base=base, license="mit")
    write_card(chain.model, run=chain.run, base=base)
    card = ModelCard.load(chain.model / "README.md")
    data = card.data.to_dict()
    assert (data["license"], data["base_model"]) == (OPENRAIL, base)
    assert list(data["extra_gated_fields"].values()) == ["checkbox"]
    assert "Attachment A" in data["extra_gated_prompt"]
    assert "Attachment A" in card.text
    page = rendered(chain.model)
    assert "to write or spread malware," in page.all("li")
    assert any(text.startswith("The licence of the weights does not replace") for text in page.all("p"))


def test_a_folder_is_not_taken_for_a_repository_of_the_same_name(chain: Chain, tmp_path: Path) -> None:
    (base := tmp_path / "starcoderbase").mkdir()
    run = begun(chain, tmp_path / "run", base)
    refused(chain.model, "the licence of", "is not known", run=run)
    write_card(chain.model, run=run, license="mit")
    card = ModelCard.load(chain.model / "README.md")
    assert "the weights in a folder named starcoderbase, no repository on the Hub as far as is recorded;" in card.text
    assert "under which licence the weights are from which training went on is not recorded." in missing(card.text)
    assert "base_model" not in card.data.to_dict()
    (base / "README.md").write_text("---\nlicense: gpl-3.0\n---\n")
    write_card(chain.model, run=run)
    card = ModelCard.load(chain.model / "README.md")
    assert card.data.to_dict()["license"] == "gpl-3.0"
    assert "stays with what derives from them" in card.text
    assert not any("under which licence" in line for line in missing(card.text))


@pytest.mark.parametrize(
    ("base", "named", "words"),
    [
        (
            "/x/models--bigcode--starcoderbase-1b/snapshots/abc",
            "bigcode/starcoderbase-1b",
            "of bigcode/starcoderbase-1b;",
        ),
        ("bigcode/starcoderbase", "bigcode/starcoderbase", "of bigcode/starcoderbase;"),
        ("ada/coder", None, "of ada/coder, a repository on the Hub or a folder;"),
    ],
)
def test_repositories_are_named_where_they_are_known(
    chain: Chain, tmp_path: Path, base: str, named: str | None, words: str
) -> None:
    write_card(chain.model, run=begun(chain, tmp_path / "run", base), license=OPENRAIL)
    assert any(f"went on from the weights {words}" in text for text in rendered(chain.model).all("p"))
    assert ModelCard.load(chain.model / "README.md").data.to_dict().get("base_model") == named


@pytest.fixture
def validator(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What is posted to a stand-in of the Hub's validation, which refuses metadata of the wrong types."""
    posted: list[dict[str, Any]] = []
    types = {"license": str, "tags": list, "model-index": list, "extra_gated_prompt": str, "extra_gated_fields": dict}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = yaml.safe_load(body["content"].split("---\n")[1])
            posted.append(data)
            sound = self.path == "/api/validate-yaml" and {"license", "pipeline_tag"} <= data.keys()
            sound &= all(isinstance(data[key], kind) for key, kind in types.items() if key in data)
            self.send_response(200 if sound else 400)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield posted
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_clients_validation_passes(chain: Chain, validator: list[dict[str, Any]]) -> None:
    tasks = [task("humaneval", "HumanEval", {"": 0.3})]
    write_card(chain.model, run=chain.run, base="bigcode/starcoder", report=report(chain, *tasks))
    card = ModelCard.load(chain.model / "README.md")
    card.validate()
    assert validator == [card.data.to_dict()]


def test_hostile_names_stay_text(chain: Chain, tmp_path: Path) -> None:
    name = 'x"`*<script>'
    hostile = Path(shutil.move(chain.model, tmp_path / name))
    write_card(hostile, run=chain.run)
    page = rendered(hostile)
    assert page.all("h1") == [name]
    assert not page.all("script")
    assert f"checkpoint = {json.dumps(name)}" in snippets((hostile / "README.md").read_text())[0]


def test_the_seal_is_the_hash_of_what_is_above(chain: Chain) -> None:
    write_card(chain.model, run=chain.run)
    *lines, last = (chain.model / "README.md").read_bytes().splitlines(keepends=True)
    assert hashlib.sha256(b"".join(lines)).hexdigest().encode() in last


def test_the_command_writes_the_card(chain: Chain, capsys: pytest.CaptureFixture[str]) -> None:
    main(["card", str(chain.model), "--run", str(chain.run), "--corpus", str(chain.corpus)])
    out = capsys.readouterr().out
    assert "README.md" in out
    assert "missing: the model was not evaluated." in out
    with pytest.raises(SystemExit) as stop:
        main(["card", str(chain.model), "--run", str(chain.root)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
