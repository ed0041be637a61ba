"""The same numbers on every layout, without a GPU: gloo ranks on this machine.

Processes start slowly, so that all runs of one number of ranks share a launch: see the fixtures.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from lightning.pytorch import Trainer
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.utils.flop_counter import FlopCounterMode

from starcoder.model import StarCoder, StarCoderConfig
from starcoder.training.checkpoint import read_weights
from starcoder.training.data import TokenDataModule
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import Checkpointing, ShardedStrategy, init_alone, parallelize
from tests import nursery
from tests.conftest import Tiny
from tests.training.layouts import SHAPE, Steps, run_job, run_jobs

STEPS, STOP = 12, 5
TOLERANCE = 1e-6
LAYOUTS: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "accumulation": {"batch_size": 2},
        "full": {"strategy": {"checkpointing": "full"}},
        "selective": {"strategy": {"checkpointing": "selective"}},
    },
    2: {
        "fsdp": {},
        "fsdp, accumulation, full": {"batch_size": 1, "strategy": {"checkpointing": "full"}},
        "fsdp, accumulation of whole gradients": {"batch_size": 2, "strategy": {"reduce_every_batch": False}},
        "replicas": {"strategy": {"shard_size": 1, "reshard_after_forward": False}},
    },
    4: {
        "fsdp": {},
        "hsdp": {"strategy": {"shard_size": 2}},
        "hsdp, accumulation, selective": {"batch_size": 1, "strategy": {"shard_size": 2, "checkpointing": "selective"}},
    },
}
DROPOUT = {"dropout": 0.1, "batch_size": 1, "strategy": {"checkpointing": "selective"}}


def with_stop(folder: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """An undisturbed run, one that stops, and the one that goes on from there."""
    first, second = {"folder": str(folder / "a")} | changes, {"folder": str(folder / "b")} | changes
    return {
        "undisturbed": first | {"steps": STEPS},
        "before": second | {"steps": STOP},
        "after": second | {"steps": STEPS, "resume": True},
    }


def layouts(folder: Path, ranks: int) -> dict[str, dict[str, Any]]:
    return {name: {"steps": STEPS, "folder": str(folder / name)} | changes for name, changes in LAYOUTS[ranks].items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layouts")
    for name in ("1", "2", "4"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def one(tiny: Tiny, folder: Path) -> dict[str, Steps]:
    """Runs of one process, which shards nothing; the last leaves a checkpoint for two ranks."""
    stop = {"stopped": {"steps": STOP, "folder": str(folder / "from-1")}}
    plain = {"plain": {"steps": STEPS, "folder": str(folder / "1" / "plain")}}
    jobs = plain | layouts(folder / "1", 1) | stop
    return {name: run_job(job, tiny.tokenizer.parent, 1) for name, job in jobs.items()}


@pytest.fixture(scope="module")
def two(tiny: Tiny, folder: Path, one: dict[str, Steps]) -> dict[str, Steps]:
    """Runs of two ranks; one goes on from the checkpoint of one process, one leaves a checkpoint for four ranks."""
    jobs = layouts(folder / "2", 2) | with_stop(folder / "2", **DROPOUT)
    jobs["resumed"] = {"steps": STEPS, "folder": str(folder / "from-1"), "resume": True, "batch_size": 1}
    jobs["stopped"] = {"steps": STOP, "folder": str(folder / "from-2")}
    jobs["bf16"] = {"steps": STEPS, "folder": str(folder / "2" / "bf16"), "batch_size": 2, "validate_every": 5}
    jobs["bf16"]["strategy"] = {"param_dtype": "bfloat16"}
    jobs["poisoned"] = {"steps": STEPS, "folder": str(folder / "2" / "poisoned"), "batch_size": 2, "poison": [9, 1]}
    return run_jobs(jobs, tiny.tokenizer.parent, 2, folder / "2")


@pytest.fixture(scope="module")
def four(tiny: Tiny, folder: Path, two: dict[str, Steps]) -> dict[str, Steps]:
    """Runs of four ranks; one goes on from the checkpoint of two ranks, one leaves a checkpoint for one process."""
    hsdp = {"strategy": {"shard_size": 2, "checkpointing": "selective"}, "batch_size": 1}
    jobs = layouts(folder / "4", 4) | with_stop(folder / "4", **DROPOUT | hsdp)
    jobs["resumed"] = {"steps": STEPS, "folder": str(folder / "from-2"), "resume": True} | hsdp
    jobs["stopped"] = {"steps": STOP, "folder": str(folder / "from-4")}
    return run_jobs(jobs, tiny.tokenizer.parent, 4, folder / "4")


def close(steps: Steps, expected: Steps) -> None:
    """Losses within 1e-6, gradient norms within 1e-5: they are sums over all parameters."""
    assert len(steps) == len(expected)
    losses, norms, skipped = torch.tensor(steps, dtype=torch.float64).T
    expected_losses, expected_norms, _ = torch.tensor(expected, dtype=torch.float64).T
    assert not skipped.any()
    torch.testing.assert_close(losses, expected_losses, rtol=TOLERANCE, atol=0)
    torch.testing.assert_close(norms, expected_norms, rtol=10 * TOLERANCE, atol=0)


@pytest.mark.parametrize(("ranks", "name"), [(ranks, name) for ranks, names in LAYOUTS.items() for name in names])
def test_losses_are_those_of_one_process(
    request: pytest.FixtureRequest, one: dict[str, Steps], ranks: int, name: str
) -> None:
    runs: dict[str, Steps] = request.getfixturevalue({1: "one", 2: "two", 4: "four"}[ranks])
    assert len(runs[name]) == STEPS
    close(runs[name], one["plain"])


@pytest.mark.parametrize("ranks", ["two", "four"])
def test_a_resumed_run_is_bitwise_the_undisturbed_one(request: pytest.FixtureRequest, ranks: str) -> None:
    """With dropout, accumulation and recomputation; every rank draws masks of its own."""
    runs: dict[str, Steps] = request.getfixturevalue(ranks)
    assert runs["before"] + runs["after"] == runs["undisturbed"]


def test_the_strategy_compiles_the_blocks_that_it_shards(
    one: dict[str, Steps], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one rank, where bf16 shards too; run operator by operator, see below."""
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend="aot_eager"))
    torch._dynamo.utils.counters.clear()
    strategy = {"compile_blocks": True, "param_dtype": "bfloat16", "checkpointing": "selective"}
    steps = run_job({"steps": 3, "folder": str(tmp_path), "strategy": strategy}, tiny.tokenizer.parent, 1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    for (loss, *_), (expected, *_) in zip(steps, one["plain"], strict=False):
        assert loss == pytest.approx(expected, rel=5e-3)


def test_bf16_with_fp32_reduction_stays_close(one: dict[str, Steps], two: dict[str, Steps]) -> None:
    """And a validation between steps, sharded too, changes nothing."""
    losses, norms, skipped = torch.tensor(two["bf16"]).T
    expected_losses, expected_norms, _ = torch.tensor(one["plain"]).T
    torch.testing.assert_close(losses, expected_losses, rtol=5e-3, atol=0)
    torch.testing.assert_close(norms, expected_norms, rtol=5e-2, atol=0)
    assert not torch.equal(losses, expected_losses)
    assert not skipped.any()


def test_a_loss_that_is_no_number_on_one_rank_is_skipped_by_all(one: dict[str, Steps], two: dict[str, Steps]) -> None:
    """The tenth micro-batch, in the fifth step of two."""
    before, (loss, norm, skipped), after = two["poisoned"][:4], two["poisoned"][4], two["poisoned"][5:]
    close(before, one["plain"][:4])
    assert (loss, norm, skipped) == (None, None, 1)
    assert all(loss is not None and norm is not None and skipped == 1 for loss, norm, skipped in after)


def test_a_run_goes_on_with_another_number_of_ranks_and_micro_batches(
    one: dict[str, Steps], two: dict[str, Steps], four: dict[str, Steps], tiny: Tiny, folder: Path
) -> None:
    """Same windows, same fill-in-the-middle, same optimizer: 1 → 2, 2 → 4 and 4 → 1."""
    close(one["stopped"] + two["resumed"], one["plain"])
    close(two["stopped"] + four["resumed"], one["plain"])
    job = {"steps": STEPS, "folder": str(folder / "from-4"), "resume": True, "batch_size": 2}
    close(four["stopped"] + run_job(job, tiny.tokenizer.parent, 1), one["plain"])


def test_a_skipped_step_leaves_the_weights_as_they_were(tiny: Tiny, tmp_path: Path) -> None:
    job = {"steps": 4, "folder": str(tmp_path), "every_n_steps": 1, "poison": [3, 0]}
    steps = run_job(job, tiny.tokenizer.parent, 1)
    assert [skipped for _, _, skipped in steps] == [0, 0, 0, 1]
    before, after = (read_weights(tmp_path / f"step-0000000{step}") for step in (3, 4))
    weights = [name for name in before if name.startswith("model.")]
    assert weights
    assert all(torch.equal(before[name], after[name]) for name in weights)


def test_auto_computes_in_what_suits_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, device, expected in (
        ("auto", "cuda", torch.bfloat16),
        ("auto", "cpu", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float32", "cuda", torch.float32),
    ):
        monkeypatch.setattr(ShardedStrategy, "root_device", torch.device(device))
        assert ShardedStrategy(param_dtype=name).compute_dtype == expected


def one_step(checkpointing: Checkpointing) -> tuple[int, list[Tensor]]:
    """FLOPs of forward and backward, and the gradients, of a small model with dropout."""
    init_alone()
    model = StarCoder(StarCoderConfig.preset("smoke", vocab_size=256, dropout=0.1))
    for block in model.transformer.h:
        block.attn.dropout = 0.0  # on a CPU attention with dropout is no single operation
    parallelize(model, init_device_mesh("cpu", (1,)), checkpointing=checkpointing)
    tokens = torch.randint(256, (2, 129), generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
    return counter.get_total_flops(), [p.grad for p in model.parameters() if p.grad is not None]


def test_recomputation_costs_what_it_should_and_changes_nothing() -> None:
    """`full` computes the blocks' forward pass once more, `selective` no product; dropout draws the same masks."""
    (plain, gradients), *others = [one_step(checkpointing) for checkpointing in ("none", "selective", "full")]
    for _, recomputed in others:
        assert all(map(torch.equal, recomputed, gradients))
    config = StarCoderConfig.preset("smoke")
    multiplied = config.n_params - (config.vocab_size + config.context_length) * config.n_embd
    assert others[0][0] == plain
    # torch counts no FLOPs of attention on a CPU.
    assert others[1][0] - plain == pytest.approx(2 * 2 * 128 * multiplied, rel=0.02)


@pytest.fixture(scope="module")
def collectives() -> list[list[dict[str, int]]]:
    """What the first of four ranks in two replicas, which are not there, would send in a step of three micro-batches.

    First with whole gradients between them, then with gradients that are reduced every time.
    """
    told: list[list[dict[str, int]]] = json.loads(
        nursery.run("from tests.training.collectives import main; main()", timeout=60)
    )
    return told


@pytest.mark.parametrize("reduce_every_batch", [True, False])
def test_accumulation_communicates_no_more_than_it_must(
    collectives: list[list[dict[str, int]]], reduce_every_batch: bool
) -> None:
    batches = collectives[reduce_every_batch]
    units = 3 + 1  # blocks, and the rest of the model
    scatters = [units] * 3 if reduce_every_batch else [0, 0, units]
    assert [batch.get("_reduce_scatter_base_", 0) for batch in batches] == scatters
    assert [batch.get("allreduce_", 0) for batch in batches] == [0, 0, units]


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_a_block_compiles_as_one_graph_for_all_layers(
    monkeypatch: pytest.MonkeyPatch, checkpointing: Checkpointing
) -> None:
    """Traced and differentiated as for a GPU, then run operator by operator: a C++ compiler would take a minute."""
    expected = losses_of_steps(checkpointing, compile_blocks=False)
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compile_module(module, backend="aot_eager", fullgraph=True)
    )
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert losses_of_steps(checkpointing, compile_blocks=True) == pytest.approx(expected, rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def losses_of_steps(checkpointing: Checkpointing, compile_blocks: bool) -> list[float]:
    init_alone()
    model = StarCoder(StarCoderConfig.preset("smoke", vocab_size=256))
    mesh = init_device_mesh("cpu", (1,))
    parallelize(model, mesh, checkpointing=checkpointing, compile_blocks=compile_blocks)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for step in range(4):
        tokens = torch.randint(256, (2, 129), generator=torch.Generator().manual_seed(step))
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_validation_gathers_parameters_as_training_does(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gloo Lightning validates without inference mode, in which FSDP fails, but not with NCCL."""
    monkeypatch.setattr("lightning.pytorch.loops.utilities._distributed_is_initialized", lambda: False)
    module = StarCoderModule(preset="smoke", overrides=SHAPE)
    data = TokenDataModule(tiny.train, tiny.tokenizer, SHAPE["context_length"], 2, validation=tiny.validation)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        strategy=ShardedStrategy(param_dtype="bfloat16"),
        limit_val_batches=1,
        logger=False,
        enable_progress_bar=False,
    )
    (metrics,) = trainer.validate(module, data, verbose=False)
    assert math.isfinite(metrics["val_loss"])
