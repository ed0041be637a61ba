import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import AdamW
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertForPreTraining, BertModel

from starcoder.errors import UserError
from starcoder.pii.encoder import (
    MARKER,
    StarEncoder,
    encoder_config,
    flops_per_token,
    load_encoder,
    save_encoder,
)
from starcoder.pii.encoder_module import SaveEncoder, StarEncoderModule
from starcoder.pii.neighbours import look_around
from starcoder.pii.pairs import NO_TARGET, Batch, Collate, Pairs, Texts
from starcoder.pii.pretraining import EncoderDataModule
from starcoder.release.export import export
from starcoder.tokenizer import load
from starcoder.training.base import linear_with_warmup
from starcoder.training.checkpoint import Checkpoint, newest
from starcoder.training.module import load_trained
from starcoder.training.parallel import ShardedStrategy
from tests import nursery
from tests.conftest import VOCAB_SIZE, Command, Tiny

ROOT = Path(__file__).parents[2]
SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
VOCABULARY = f"--model.vocab_size={VOCAB_SIZE}"
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


def count(v: int, c: int, layers: int, f: int, positions: int) -> int:
    """Parameters of a BERT with both heads, in closed form."""
    norm = 2 * c
    embeddings = (v + positions + 2) * c + norm
    block = 4 * (c * c + c) + norm + (c * f + f) + (f * c + c) + norm
    heads = (c * c + c) + (c * c + c + norm) + v + (2 * c + 2)  # pooler, transform, its bias, order
    return embeddings + layers * block + heads


@pytest.mark.parametrize(
    ("preset", "vocab_size", "expected"), [("starencoder", 49_152, 124_829_190), ("laptop", 4096, 1_854_982)]
)
def test_the_number_of_parameters(preset: str, vocab_size: int, expected: int) -> None:
    config = encoder_config(preset, vocab_size)
    with torch.device("meta"):
        theirs, ours = BertForPreTraining(config), StarEncoder(config)
    c, f = config.hidden_size, config.intermediate_size
    closed = count(vocab_size + 4, c, config.num_hidden_layers, f, config.max_position_embeddings)
    assert closed == sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    assert closed == expected
    if preset == "starencoder":
        assert round(closed / 1e6) == 125  # the paper's


def test_the_shape_is_the_published_one() -> None:
    config = encoder_config("starencoder", 49_152)
    assert (config.vocab_size, config.max_position_embeddings, config.hidden_act) == (49_156, 1024, "gelu")
    assert (config.layer_norm_eps, config.hidden_dropout_prob, config.pad_token_id) == (1e-12, 0.1, 49_152)
    blocks = 12 * (4 * 768**2 + 2 * 768 * 3072)
    head = 0.15 * (768**2 + 768 * 49_156)
    assert flops_per_token(config, 1024) == pytest.approx(6 * (blocks + head) + 12 * 12 * 768 * 1024, rel=1e-6)


@pytest.fixture(scope="module")
def batch(tiny: Tiny) -> Batch:
    pairs = Pairs(Texts(tiny.corpus, "train"), load(tiny.tokenizer), 64, 0, max_characters=150)
    return Collate(VOCAB_SIZE)([pairs[0, index] for index in range(6)])


def whole(model: StarEncoder) -> BertForPreTraining:
    """transformers' model with the same weights."""
    theirs = BertForPreTraining(model.config)
    report = theirs.load_state_dict(model.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert set(report.missing_keys) == {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    theirs.tie_weights()
    return theirs


def small(**changes: Any) -> StarEncoder:
    model = StarEncoder(encoder_config("laptop", VOCAB_SIZE, **SHAPE | changes))
    model.init_weights(0)
    return model


def test_the_losses_are_those_of_transformers(batch: Batch) -> None:
    model = small()
    with torch.no_grad():
        for parameter in model.parameters():  # far from the start, where every loss is that of the uniform
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = whole(model)
    labels = torch.full_like(batch["input_ids"], NO_TARGET).flatten()
    labels[batch["masked"]] = batch["targets"]
    names = ("input_ids", "attention_mask", "token_type_ids", "next_sentence_label")
    out = theirs(**{name: batch[name] for name in names}, labels=labels.view_as(batch["input_ids"]))
    ours = model.measure(batch)
    total = ours["mlm_loss"] + ours["nsp_loss"]
    torch.testing.assert_close(total, out.loss)
    right = (out.seq_relationship_logits.argmax(-1) == batch["next_sentence_label"]).float().mean()
    assert ours["nsp_accuracy"] == right
    chosen = labels != NO_TARGET
    right = (out.prediction_logits.flatten(0, 1).argmax(-1)[chosen] == labels[chosen]).float().mean()
    assert ours["mlm_accuracy"] == pytest.approx(right.item())
    total.backward()
    out.loss.backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


def test_without_targets_the_loss_is_a_number(batch: Batch) -> None:
    nothing = torch.zeros(0, dtype=torch.long)
    parts = small().measure(batch | {"masked": nothing, "targets": nothing})
    assert parts["mlm_loss"] == 0
    assert math.isfinite(parts["nsp_loss"].item())


def test_weights_begin_as_berts_and_follow_from_the_seed() -> None:
    one, two = small(), small()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name])
        if name.endswith("bias"):
            assert not tensor.any()
        elif "LayerNorm" in name:
            assert (tensor == 1).all()
        else:
            assert tensor.std() == pytest.approx(one.config.initializer_range, rel=0.3)
    table = one.bert.embeddings.word_embeddings.weight
    assert not table[VOCAB_SIZE].any()
    two.init_weights(1)
    assert not torch.equal(table, two.bert.embeddings.word_embeddings.weight)


def test_a_new_encoder_can_begin_with_a_look_around() -> None:
    plain, looking = (StarEncoderModule("laptop", 300, look_around=look) for look in (False, True))
    for made in (plain, looking):
        made.model = made.build()
        made.init_weights()
    assert plain.model
    assert looking.model
    expected = plain.build()
    expected.init_weights(1234)
    look_around(expected.bert)
    for name, tensor in looking.model.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name])
    changed = {n for n, t in looking.model.state_dict().items() if not torch.equal(t, plain.model.state_dict()[n])}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in changed} >= {"query", "key", "position_embeddings"}
    with pytest.raises(UserError, match="look_around is for new encoders"):
        StarEncoderModule(init_from="here", look_around=True)


def test_the_schedule_is_a_straight_line() -> None:
    factors = [linear_with_warmup(step, 4, 12, 0.0) for step in range(14)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[5:] == pytest.approx([7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0, 0])


class Losses(Callback):
    """The exact loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        self.values.append(outputs["loss"].item())


def module(**changes: Any) -> StarEncoderModule:
    options: dict[str, Any] = {
        "preset": "laptop",
        "vocab_size": VOCAB_SIZE,
        "overrides": SHAPE | DROPOUT,
        "learning_rate": 3e-3,
        "warmup_steps": 3,
        "decay_steps": 30,
    }
    return StarEncoderModule(**options | changes)


def fit(tiny: Tiny, folder: Path, steps: int, resume: bool = False, **changes: Any) -> tuple[list[float], Trainer]:
    """Losses of all steps, of a run in `folder`."""
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=1,
        callbacks=[losses, Checkpoint(str(folder / "run"), every_n_steps=1000), SaveEncoder(str(folder / "model"))],
        strategy=ShardedStrategy(),
    )
    data = EncoderDataModule(tiny.corpus, tiny.tokenizer, context_length=48, batch_size=8, max_characters=200)
    trainer.fit(module(**changes), data, ckpt_path=newest(folder / "run") if resume else None)
    return losses.values, trainer


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], Path]:
    """Losses of a run of some epochs, and its folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return fit(tiny, folder, 30)[0], folder


def test_a_resumed_run_equals_the_undisturbed_one(
    tiny: Tiny, tmp_path: Path, undisturbed: tuple[list[float], Path]
) -> None:
    """Bitwise, over borders of epochs, dropout included."""
    before, _ = fit(tiny, tmp_path, 13)
    after, _ = fit(tiny, tmp_path, 30, resume=True)
    assert before + after == undisturbed[0]


def test_the_folder_is_one_of_transformers(tiny: Tiny, undisturbed: tuple[list[float], Path], batch: Batch) -> None:
    folder = undisturbed[1] / "model"
    config = json.loads((folder / "config.json").read_bytes())
    assert config["architectures"] == ["BertForPreTraining"]
    assert {"model.safetensors", "tokenizer.json", "tokenizer_config.json", MARKER} <= {
        p.name for p in folder.iterdir()
    }
    model, report = BertForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert type(AutoModel.from_pretrained(folder)) is BertModel
    inputs = AutoTokenizer.from_pretrained(folder)("def f(x):\n    return x", return_tensors="pt")
    ours, theirs = load_encoder(folder), model.bert.eval()
    torch.testing.assert_close(ours(**inputs).last_hidden_state, theirs(**inputs).last_hidden_state)
    assert AutoModelForMaskedLM.from_pretrained(folder)(**inputs).logits.shape[-1] == VOCAB_SIZE + 4
    again = undisturbed[1] / "again"
    export(undisturbed[1] / "run", tiny.tokenizer, again)
    assert all(path.read_bytes() == (again / path.name).read_bytes() for path in folder.iterdir())


def test_the_loss_falls(tiny: Tiny, tmp_path: Path) -> None:
    options = {"overrides": SHAPE, "learning_rate": 5e-3, "decay_steps": 300}
    losses, _ = fit(tiny, tmp_path, 120, **options)
    first, last = (sum(part) / len(part) for part in (losses[:5], losses[-20:]))
    assert first == pytest.approx(math.log(VOCAB_SIZE + 4) + math.log(2), abs=0.3)
    assert last < first - 1


def test_the_optimizer_is_the_one_of_the_paper(
    tiny: Tiny, undisturbed: tuple[list[float], Path], tmp_path: Path
) -> None:
    _, trainer = fit(tiny, tmp_path, 1)
    optimizer = trainer.optimizers[0]
    assert isinstance(optimizer, AdamW)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.98)
    assert optimizer.param_groups[0]["eps"] == 1e-6
    assert all(p.ndim == 1 for p in optimizer.param_groups[1]["params"])


def test_training_goes_on_from_a_folder(tiny: Tiny, tmp_path: Path, undisturbed: tuple[list[float], Path]) -> None:
    start = str(undisturbed[1] / "model")
    losses, _ = fit(tiny, tmp_path, 2, init_from=start, learning_rate=1e-9)
    assert losses[0] < undisturbed[0][0] - 0.3


def test_what_cannot_be_is_one_line(tiny: Tiny, tmp_path: Path, undisturbed: tuple[list[float], Path]) -> None:
    model, other = undisturbed[1] / "model", tmp_path / "other"
    data = EncoderDataModule(tiny.corpus, tiny.tokenizer, context_length=65)
    assert module().misfits(data) == ["data.context_length is 65, but the model's positions end at 64"]
    data = EncoderDataModule(tiny.corpus, tiny.tokenizer, context_length=64)
    assert module(vocab_size=500).misfits(data) == [
        f"the tokenizer has {VOCAB_SIZE} tokens, the model is for 500: set model.vocab_size"
    ]
    shutil.copytree(model, other)
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[:1000])
    shutil.copytree(model, tmp_path / "alien")
    (tmp_path / "alien" / "config.json").write_text('{"model_type": "gpt_bigcode"}')
    (tmp_path / "empty").mkdir()
    for call, match in (
        (lambda: encoder_config("huge", 100), "no encoder is called 'huge', only starencoder, laptop"),
        (lambda: encoder_config("laptop", 100, n_embd=3), "has no n_embd"),
        (lambda: encoder_config("laptop", 100, hidden_size=100), "100 channels cannot be shared out to 12 heads"),
        (lambda: encoder_config("laptop", 100, hidden_size="x"), "cannot have this shape"),
        (lambda: load_encoder(tmp_path / "empty"), "config.json is missing"),
        (lambda: load_encoder(tmp_path / "alien"), "is a gpt_bigcode, but an encoder is a bert"),
        (lambda: load_encoder(other), "cannot be read"),
        (lambda: save_encoder(undisturbed[1] / "run", load(tiny.tokenizer), tmp_path), "holds something else"),
        (lambda: export(undisturbed[1] / "run", None, tmp_path / "out"), "is of an encoder: name its --tokenizer"),
        (lambda: load_trained(undisturbed[1] / "run"), "does not fit this version|no checkpoint"),
        (lambda: fit(tiny, undisturbed[1], 3), "is of an earlier run"),
    ):
        with pytest.raises(UserError, match=match) as error:
            call()
        assert "\n" not in str(error.value)


def test_the_command_line_says_what_is_missing(in_process: Command, tiny: Tiny, tmp_path: Path) -> None:
    laptop = ("fit", "--config", str(ROOT / "recipes" / "starencoder-laptop.yaml"))
    for options, words in (
        (("--data.tokenizer", str(tiny.tokenizer), VOCABULARY), ["no train documents in build/smoke/corpus"]),
        (("--data.corpus", str(tiny.corpus)), ["cannot read build/smoke/tokenizer"]),
        (("--data.corpus", str(tiny.corpus), "--data.tokenizer", str(tiny.tokenizer)), ["set model.vocab_size"]),
        (
            ("--data.tokenizer", str(tiny.tokenizer), VOCABULARY, "--data.context_length=513"),
            ["positions end at 512", "no train documents"],
        ),
        (("--architecture=starhound",), ["architecture", "starhound"]),
        (("--model.preset=huge",), ["no encoder is called 'huge'"]),
    ):
        result = in_process(tmp_path, *laptop, *options)
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
        assert all(word in result.stderr for word in words), result.stderr


RANKS = """
import json, os, sys
from starcoder.cli import main
from starcoder.pii import encoder_module, pretraining  # once, for all ranks
from starcoder.training import energy, fit, progress
from tests.training.ranks import finish, fork

def work(rank):
    os.chdir(folder)
    main(arguments)

for ranks, folder, arguments in json.loads(sys.argv[1]):
    finish(fork(ranks, work))
"""


def test_the_recipe_trains_alike_on_any_number_of_processes(tiny: Tiny, tmp_path: Path) -> None:
    """`starcoder fit` from recipe to folder, with and without a copy of the weights on a second process."""
    runs, shape = [], SHAPE | {"num_attention_heads": 8}  # as many as the recipe's heads look to places
    for devices in (1, 2):
        folder = tmp_path / str(devices)
        folder.mkdir()
        args = [
            *("fit", "--config", str(ROOT / "recipes" / "starencoder-laptop.yaml")),
            *("--data.corpus", str(tiny.corpus), "--data.tokenizer", str(tiny.tokenizer)),
            *(VOCABULARY, f"--model.overrides={json.dumps(shape)}", "--data.context_length=32"),
            *("--trainer.max_steps=4", "--trainer.log_every_n_steps=1", f"--trainer.devices={devices}"),
            *("--data.batch_size=2", "--trainer.val_check_interval=4", "--trainer.strategy.init_args.shard_size=1"),
        ]
        runs.append((devices, str(folder), args))
    nursery.run(RANKS, json.dumps(runs), timeout=300)
    losses = []
    for _, folder, _ in runs:
        run = Path(folder) / "build" / "runs" / "starencoder-laptop"
        assert load_encoder(run / "model").config.hidden_size == 32
        with next(run.glob("metrics/*/metrics.csv")).open() as file:
            losses.append([float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]])
    assert len(losses[0]) == 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
