"""The trace against closed forms, and extrapolation from few blocks against all of them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch

from starcoder.model import StarCoderConfig
from starcoder.training.parallel import Checkpointing, activation_bytes
from starcoder.training.planner import trace as tracing
from starcoder.training.planner.ledger import Phase
from starcoder.training.planner.trace import Layout, extrapolate, merge, trace

SMALL = StarCoderConfig(vocab_size=2048, context_length=256, n_layer=9, n_head=4, n_embd=256)
PAPER = StarCoderConfig()
FSDP = Layout(ranks=16, shard_size=16)
HSDP = Layout(ranks=16, shard_size=4)
ROOT = (2048 + 256 + 2) * 256  # parameters of embedding, positions and last norm


@pytest.fixture(scope="module", autouse=True)
def run_once() -> Iterator[None]:
    """The same model in the same layout is run once: two and four of its blocks, whatever the depth it stands for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "run", cache(tracing.run))
        yield


@pytest.fixture(scope="module")
def fsdp() -> dict[str, Phase]:
    return trace(SMALL, 256, FSDP)


@pytest.fixture(scope="module")
def hsdp() -> dict[str, Phase]:
    return trace(SMALL, 256, HSDP)


def peak(phases: dict[str, Phase]) -> int:
    return max(phase.peak.total() for phase in phases.values())


def test_states_are_cut_into_as_many_slices_as_ranks_share_them(fsdp: dict[str, Phase], hsdp: dict[str, Phase]) -> None:
    n = SMALL.n_params
    for phases, shards in ((fsdp, 16), (hsdp, 4)):
        states = phases["optimizer"].peak
        assert states["parameters"] == pytest.approx(4 * n / shards, rel=0.01)
        assert states["gradients"] == pytest.approx(4 * n / shards, rel=0.01)
        assert states["optimizer"] == pytest.approx(8 * n / shards, rel=0.01)


def test_collectives_move_each_parameter_as_often_as_fsdp_says(fsdp: dict[str, Phase], hsdp: dict[str, Phase]) -> None:
    n = SMALL.n_params
    for phases in (fsdp, hsdp):
        forward, backward = phases["forward"].work, phases["backward"].work
        assert forward["all_gather"] == pytest.approx(2 * n, rel=0.001)  # bf16
        assert 2 * (n - ROOT) * 0.999 < backward["all_gather"] < 2 * n * 1.001  # the root may stay whole between
        assert backward["reduce_scatter"] == pytest.approx(4 * n, rel=0.001)  # fp32
        assert forward["all_gather_calls"] == backward["reduce_scatter_calls"] == SMALL.n_layer + 1
    assert fsdp["backward"].work["all_reduce"] == 0
    assert hsdp["backward"].work["all_reduce"] == pytest.approx(4 * n / 4, rel=0.001)


def test_a_block_keeps_what_its_backward_pass_needs(fsdp: dict[str, Phase]) -> None:
    c, d, heads, tokens = SMALL.n_embd, SMALL.head_size, SMALL.n_head, 256
    # bf16: inputs and outputs of both norms, Q, attention's output (12), c_fc's output and GELU's (16); masks (2); K, V
    a_token = 12 * c + 16 * c + 2 * c + 4 * d + 4 * heads
    without = trace(SMALL.replace(n_layer=8), tokens, FSDP)["forward"].rest["activations"]
    assert fsdp["forward"].rest["activations"] - without == pytest.approx(a_token * tokens, rel=0.01)


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
def test_what_blocks_keep_is_known_in_closed_form(checkpointing: Checkpointing) -> None:
    found = [
        trace(SMALL.replace(n_layer=depth), 256, replace(FSDP, checkpointing=checkpointing))["forward"]
        for depth in (8, 9)
    ]
    kept = [activation_bytes(SMALL.replace(n_layer=depth), 256, checkpointing, torch.bfloat16) for depth in (8, 9)]
    assert kept[1] - kept[0] == pytest.approx(found[1].rest["activations"] - found[0].rest["activations"], rel=0.02)


def test_dropout_masks_take_one_byte_an_element(fsdp: dict[str, Phase]) -> None:
    undropped = trace(SMALL.replace(dropout=0.0), 256, FSDP)["forward"].rest["activations"]
    masks = (2 * SMALL.n_layer + 1) * 256 * SMALL.n_embd
    assert fsdp["forward"].rest["activations"] - undropped == masks


def test_flops_per_token_are_those_of_the_formula() -> None:
    phases = trace(PAPER, 8192, Layout(ranks=512, shard_size=512))
    forward, backward = phases["forward"].work, phases["backward"].work
    counted = (forward["matmul"] + backward["matmul"] + 3 * forward["attention"]) / 8192
    assert counted == pytest.approx(PAPER.flops_per_token(8192), rel=0.005)
    assert backward["recomputed_matmul"] == backward["recomputed_attention"] == 0
    assert backward["attention"] == 2.5 * forward["attention"]


def test_checkpointing_trades_activations_for_recomputation(fsdp: dict[str, Phase]) -> None:
    selective, full = (trace(SMALL, 256, replace(FSDP, checkpointing=how)) for how in ("selective", "full"))
    kept = [phases["forward"].rest["activations"] for phases in (full, selective, fsdp)]
    assert kept[0] < kept[1] < kept[2]
    head = 3 * 2 * 256 * SMALL.vocab_size * SMALL.n_embd  # its products all run forward
    blocks = full["forward"].work["matmul"] - head
    assert full["backward"].work["recomputed_matmul"] == blocks
    assert full["backward"].work["recomputed_attention"] == full["forward"].work["attention"]
    assert selective["backward"].work["recomputed_matmul"] == 0
    assert selective["backward"].work["matmul"] == fsdp["backward"].work["matmul"]


def test_more_shards_never_need_more_memory_for_states() -> None:
    found = [trace(SMALL, 256, Layout(ranks=16, shard_size=size)) for size in (1, 4, 16)]
    for kind in ("parameters", "gradients", "optimizer"):
        sizes = [phases["optimizer"].peak[kind] for phases in found]
        assert sizes == sorted(sizes, reverse=True)


def test_a_pass_keeps_the_same_activations_however_many_share_the_parameters(fsdp: dict[str, Phase]) -> None:
    """Gathered parameters are parameters, and reduced gradients gradients, also where there is nobody to share with."""
    for alone in (Layout(ranks=1, shard_size=1), Layout(ranks=16, shard_size=1)):
        phases = trace(SMALL, 256, alone)
        assert phases["forward"].rest["activations"] == fsdp["forward"].rest["activations"]
        gathered = phases["forward"].peak["parameters"] - phases["forward"].rest["parameters"]
        assert gathered == fsdp["forward"].peak["parameters"] - fsdp["forward"].rest["parameters"]
        assert phases["optimizer"].peak["activations"] < 1e-3 * phases["optimizer"].peak["gradients"]  # norms, one each


def test_one_gpu_holds_everything_and_sends_nothing() -> None:
    phases = trace(SMALL, 256, Layout(ranks=1, shard_size=1))
    assert phases["optimizer"].peak.total() == pytest.approx(16 * SMALL.n_params, rel=0.01)
    assert not any(phases[name].work[kind] for name in phases for kind in ("all_gather", "reduce_scatter"))


def test_accumulation_keeps_whole_gradients_only_when_told() -> None:
    cut = trace(SMALL, 256, replace(FSDP, accumulation=4))
    whole = trace(SMALL, 256, replace(FSDP, accumulation=4, reduce_every_batch=False))
    assert cut["backward_between"].work["reduce_scatter"] == cut["backward"].work["reduce_scatter"]
    assert whole["backward_between"].work["reduce_scatter"] == 0
    more = whole["forward"].rest["gradients"] - cut["forward"].rest["gradients"]
    assert more == pytest.approx(4 * SMALL.n_params * (1 - 1 / 16), rel=0.02)


def test_gradients_between_micro_batches_are_told_as_such() -> None:
    for shard_size in (1, 4):
        phases = trace(SMALL, 256, Layout(ranks=16, shard_size=shard_size, accumulation=2))
        once = trace(SMALL, 256, Layout(ranks=16, shard_size=shard_size))
        kept = phases["forward"].rest["gradients"]
        assert kept == pytest.approx(4 * SMALL.n_params / shard_size, rel=0.01)
        assert phases["forward"].rest["activations"] == pytest.approx(once["forward"].rest["activations"], rel=0.001)


@pytest.mark.parametrize(
    "layout",
    [
        FSDP,
        HSDP,
        replace(HSDP, checkpointing="full"),
        replace(FSDP, checkpointing="selective", micro_batch=2),
        replace(FSDP, reshard_after_forward=False),
        replace(HSDP, accumulation=2),
        replace(FSDP, accumulation=2, reduce_every_batch=False),
        Layout(ranks=1, shard_size=1, checkpointing="full"),
    ],
)
def test_few_blocks_tell_what_more_need(layout: Layout) -> None:
    for depth in (7, 8):
        check_extrapolation(SMALL.replace(n_layer=depth), 256, layout)


def test_two_and_four_blocks_tell_what_the_papers_forty_need() -> None:
    """About half a minute: the whole 15.5B model on 512 ranks."""
    check_extrapolation(PAPER, 8192, Layout(ranks=512, shard_size=512, checkpointing="full"))


def check_extrapolation(config: StarCoderConfig, length: int, layout: Layout) -> None:
    few, more = (tracing.run(config.replace(n_layer=depth), length, layout) for depth in (2, 4))
    found, whole = extrapolate(few, more, config.n_layer), merge(dict(tracing.run(config, length, layout)))
    assert found.keys() == whole.keys()
    assert peak(found) == pytest.approx(peak(whole), rel=0.01)
    for name, phase in whole.items():
        assert found[name].peak.total() == pytest.approx(phase.peak.total(), rel=0.01)
        assert found[name].work == pytest.approx(phase.work, rel=0.01)
