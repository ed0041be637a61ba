"""`starcoder pii train`: it learns, from files and from what is planted, and leaves a folder or nothing."""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForTokenClassification, BertForPreTraining

from starcoder.errors import UserError
from starcoder.pii.bio import IGNORED, TAGS
from starcoder.pii.encoder import encoder_config, load_encoder
from starcoder.pii.entity import Entity
from starcoder.pii.examples import Example, write_examples
from starcoder.pii.finetuning import Progress, Tuning
from starcoder.pii.ner import NerDetector, read_tokenizer
from starcoder.pii.tagger import Chunks, StarPII, collate, new_classifier
from starcoder.pii.train import _planted, train
from starcoder.tokenizer import train as train_tokenizer

RECIPE = Path(__file__).parents[2] / "recipes" / "pii" / "starpii.yaml"
QUICK = Tuning(chunk=64, batch_size=16, learning_rate=3e-3, warmup_steps=5, max_epochs=12)


def examples(count: int, seed: int) -> list[Example]:
    """A task that four layers learn in seconds: what stands after `by` is a name, after `key` a key."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        text, fragments = "", []
        for _ in range(6):
            word = "".join(rng.choice("abcdefgh") for _ in range(5))
            label = rng.choice(("NAME", "KEY", None))
            text += {"NAME": "by ", "KEY": "key = ", None: "x = "}[label]
            if label:
                fragments.append(Entity(len(text), len(text) + 5, label))
            text += word + "\n"
        found.append(Example(text, tuple(fragments), id=number))
    return found


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("encoder")
    tokenizer = train_tokenizer((example.text for example in examples(50, 7)), 300)
    tokenizer.save(place)
    torch.manual_seed(0)
    small = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "initializer_range": 0.06}
    shape = encoder_config("laptop", tokenizer.vocab_size, **small)
    BertForPreTraining(shape).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "train.parquet"
    write_examples(file, examples(150, 1))
    return file


def test_chunks_carry_every_token_and_its_tag_once(encoder: Path) -> None:
    tokenizer = read_tokenizer(encoder)
    rows = Chunks(examples(4, 3), tokenizer, 32)
    ids = [number for row, _ in map(rows.__getitem__, range(len(rows))) for number in row]
    assert tokenizer.decode(ids) == "".join(example.text for example in examples(4, 3))
    batch = collate([rows[number] for number in range(len(rows))])
    assert batch["input_ids"].shape == batch["labels"].shape == (len(rows), 32)
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()
    assert int(batch["attention_mask"].sum()) == len(ids)


def test_the_loss_is_transformers_own(encoder: Path) -> None:
    detector = NerDetector(new_classifier(load_encoder(encoder), 32).eval(), read_tokenizer(encoder))
    module = StarPII(detector, [], 1e-3, 0, 0.0, lambda: 0.0)
    module.log = lambda *_: None  # type: ignore[method-assign]
    rows = Chunks(examples(4, 3), detector.tokenizer, 32)
    batch = collate([rows[number] for number in range(len(rows))])
    expected = detector.model(**batch).loss
    torch.testing.assert_close(module.training_step(batch, 0), expected)


def test_the_schedule_warms_up_by_steps_and_ends_with_the_run(encoder: Path) -> None:
    progress = Progress(None)
    detector = NerDetector(new_classifier(load_encoder(encoder), 32), read_tokenizer(encoder))
    module = StarPII(detector, [], 1.0, 10, 0.0, lambda: progress.share)
    assert [module._factor(step) for step in (0, 4, 9, 50)] == pytest.approx([0.1, 0.5, 1, 1])
    progress.share = 0.5
    assert module._factor(50) == pytest.approx(0.5)
    progress.share = 1.1
    assert module._factor(50) == pytest.approx(0)


def test_it_learns_and_leaves_a_folder_that_both_libraries_read(
    encoder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(data=data, encoder=str(encoder), output=tmp_path / "out", minutes=None, device="cpu", tuning=QUICK)
    printed = capsys.readouterr().out
    assert "15 examples that it has not seen" in printed
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert min(scores["NAME"]["f1"], scores["KEY"]["f1"]) > 0.9
    assert re.search(rf"NAME .*/{100 * scores['NAME']['f1']:.1f} ", printed)
    found = NerDetector.open(str(tmp_path / "out"), "cpu").detect("x = 1\nkey = badcafe\n")
    assert [(e.start, e.end, e.label) for e in found] == [(12, 19, "KEY")]
    config = AutoModelForTokenClassification.from_pretrained(tmp_path / "out").config
    assert [config.id2label[number] for number in range(15)] == list(TAGS)
    assert not (tmp_path / "out.partial").exists()


def test_the_same_seed_gives_the_same_weights(encoder: Path, data: Path, tmp_path: Path) -> None:
    one, other = (tmp_path / name / "model.safetensors" for name in ("one", "other"))
    for file in (one, other):
        tuning = Tuning(chunk=64, batch_size=16, max_epochs=1)
        train(data=data, encoder=str(encoder), output=file.parent, minutes=None, device="cpu", tuning=tuning)
    assert one.read_bytes() == other.read_bytes()


def test_without_an_encoder_a_small_one_learns_too(encoder: Path, data: Path, tmp_path: Path) -> None:
    tuning = Tuning(chunk=64, batch_size=16, warmup_steps=5, max_epochs=6)
    options: dict[str, Any] = {"data": data, "tokenizer": encoder, "minutes": None, "device": "cpu", "tuning": tuning}
    train(output=tmp_path / "out", **options)
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert min(scores["NAME"]["f1"], scores["KEY"]["f1"]) > 0.9


def test_pseudo_labels_come_first_and_only_the_sure_ones(
    encoder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[list[Example]] = []
    monkeypatch.setattr("starcoder.pii.train.finetune", lambda _, epochs, *rest: stages.append(list(epochs(0))))
    file = tmp_path / "pseudo.jsonl"
    rows = [{"category": "NAME", "position": [0, 3], "score": score} for score in (0.9, 0.5)]
    file.write_text("\n".join(json.dumps({"text": "ada", "fragments": [row]}) for row in rows))
    train(data=data, encoder=str(encoder), pseudo_labels=[file], output=tmp_path / "out", device="cpu")
    assert [len(stage) for stage in stages] == [1, 135]
    assert stages[0][0].fragments[0].score == 0.9


def test_the_best_weights_stay_and_patience_ends_the_run(
    encoder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuning = Tuning(chunk=64, batch_size=16, learning_rate=3e-3, warmup_steps=5, eval_every=10, patience=2)
    train(data=data, encoder=str(encoder), output=tmp_path / "o", minutes=None, device="cpu", tuning=tuning)
    printed = capsys.readouterr().out
    measured = [float(value) for value in re.findall(r"F1 (0\.\d+|1\.0+)$", printed, re.MULTILINE)]
    assert len(measured) >= 3
    assert float(printed.split("\nall ")[1].split()[1].split("/")[2]) == pytest.approx(100 * max(measured), abs=0.06)


def test_an_interrupt_leaves_nothing(
    encoder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "on_train_batch_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(data=data, encoder=str(encoder), output=tmp_path / "out", device="cpu", tuning=QUICK)
    assert not list(tmp_path.iterdir())


def test_time_ends_the_run(encoder: Path, data: Path, tmp_path: Path) -> None:
    tuning = Tuning(chunk=64, batch_size=16, max_epochs=10_000)
    train(data=data, encoder=str(encoder), output=tmp_path / "out", minutes=0.02, device="cpu", tuning=tuning)
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minutes": 0.0}, "minutes is 0.0, no length of time"),
        ({"seed": -1}, "seed is -1, not between 0 and 4294967295"),
        ({"devices": 3}, "16 samples cannot be shared out to 3 devices"),
        ({"device": "abacus"}, "no device abacus"),
        ({"data": Path("nothing.parquet")}, "nothing.parquet cannot be read"),
        ({"encoder": "no/such/folder"}, "neither a folder nor a repository"),
        ({"tuning": Tuning(chunk=2048)}, "tuning.chunk is 2048, but .* sees 512 tokens"),
    ],
)
def test_bad_input_is_one_line(
    encoder: Path, data: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    known: dict[str, Any] = {"data": data, "encoder": str(encoder), "output": tmp_path / "out", "device": "cpu"}
    with pytest.raises(UserError, match=message) as error:
        train(**known | options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_architecture_is_named_once(encoder: Path, data: Path, tmp_path: Path) -> None:
    other = shutil.copytree(encoder, tmp_path / "starcoder")
    (other / "config.json").write_text('{"model_type": "gpt_bigcode"}')
    with pytest.raises(UserError, match=rf"^the model in {other} is a gpt_bigcode, but"):
        train(data=data, encoder=str(other), output=tmp_path / "out", device="cpu")
    (other / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=rf"^{other}: no tokenizer\.json is there"):
        train(data=data, encoder=str(other), output=tmp_path / "out", device="cpu")


def test_what_is_no_tagger_is_not_overwritten(encoder: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for output in (tmp_path, encoder):  # the encoder that it is to be trained on is a model, too
        with pytest.raises(UserError, match="holds something else"):
            train(data=data, encoder=str(encoder), output=output, device="cpu")


def test_two_processes_write_one_model(encoder: Path, data: Path, tmp_path: Path) -> None:
    options = {"data": data, "encoder": encoder, "output": tmp_path / "out", "minutes": "null", "device": "cpu"}
    options |= {"devices": 2, "tuning.chunk": 64, "tuning.max_epochs": 1, "tuning.eval_every": 10}
    script = "import sys; from starcoder.cli import main; main()"
    (tmp_path / "run.py").write_text(script)  # each process begins with it
    words = ["pii", "train", *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run([sys.executable, tmp_path / "run.py", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.count("training a tagger of"), done.stdout.count("written: ")) == (1, 1), done.stdout
    assert "Error" not in done.stderr
    assert "starcoder:" not in done.stderr
    assert not (tmp_path / "out.partial").exists()
    assert NerDetector.open(str(tmp_path / "out"), "cpu").window == 64


@pytest.mark.parametrize(
    ("place", "devices", "message"),
    [("cuda:1", 1, "set CUDA_VISIBLE_DEVICES=1 and name cuda"), ("cuda:0", 3, "devices is 3, but 2 GPUs are here")],
)
def test_gpus_that_are_not_here_or_not_the_first(
    place: str, devices: int, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("starcoder.pii.train.find_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=message):
        train(data=data, output=tmp_path / "out", device=place, devices=devices, tuning=Tuning(batch_size=6))


def test_two_epochs_share_what_is_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def generate(corpus: Path, split: str, count: int, seed: int) -> list[Example]:
        asked.append((split, seed))
        return examples(count, seed)

    monkeypatch.setattr("starcoder.pii.plant.generate.generate", generate)
    epochs, held_out = _planted(Path("corpus"), 20, 5)
    assert len(held_out) == 2
    assert [epochs(number)[0].text for number in range(4)] == [examples(1, seed)[0].text for seed in (5, 5, 6, 6)]
    assert asked == [("test", 5), ("train", 5), ("train", 6)]


def test_files_without_anything_to_learn_or_to_measure(encoder: Path, data: Path, tmp_path: Path) -> None:
    known: dict[str, Any] = {"data": data, "encoder": str(encoder), "output": tmp_path / "out", "device": "cpu"}
    (tmp_path / "none.jsonl").write_text("")
    unsure = {"text": "ada", "fragments": [{"category": "NAME", "position": [0, 3], "score": 0.1}]}
    (tmp_path / "unsure.jsonl").write_text(json.dumps(unsure))
    with pytest.raises(UserError, match="has labels that are sure enough"):
        train(**known, pseudo_labels=[tmp_path / "unsure.jsonl"])
    with pytest.raises(UserError, match=r"none\.jsonl"):
        train(**known, test=tmp_path / "none.jsonl")


def test_tuning_says_all_that_cannot_be() -> None:
    with pytest.raises(UserError, match="chunk is 0, below 1; learning_rate is -1, not above 0; eval_every is 0"):
        Tuning(chunk=0, learning_rate=-1, eval_every=0)


def test_the_recipe_has_the_papers_values_and_fits_the_command() -> None:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(train, as_positional=False)
    options = parser.instantiate(parser.parse_args(["--config", str(RECIPE)]))
    assert options.tuning == Tuning(100, 1024, 1.0, 1.0, 64, 2e-5, 100, 0.01, 100, 15, 0.01)
    assert (options.encoder, options.devices, options.minutes) == ("bigcode/starencoder", 8, None)
    for line in RECIPE.read_text().splitlines():
        assert line.startswith("#") or "#" in line or line in ("", "tuning:")
    assert set(yaml.safe_load(RECIPE.read_text())["tuning"]) == set(Tuning.__dataclass_fields__)


def test_what_is_planted_to_measure_with_chooses_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name them by --data"):
        train(corpus=tmp_path, output=tmp_path / "out", tuning=Tuning(eval_every=10))
