"""The roofline against arithmetic done by hand."""

from collections import Counter
from dataclasses import replace

import pytest

from starcoder.training.planner.calibration import EFFICIENCIES
from starcoder.training.planner.estimate import Cluster, Efficiencies, Step, communication, step_time
from starcoder.training.planner.hardware import GPUS, LINK_LATENCY, NETWORK_LATENCY, Gpu
from starcoder.training.planner.ledger import Phase

GPU = Gpu(
    "G", flops=1e12, memory=1e10, memory_bandwidth=1e11, link_bandwidth=1e10, watts=100, node_network=1e9, achieved=1
)
IDEAL = Efficiencies(0, 1, 1, 1, 0.5, 0, 1, 1)
WORK: Counter[str] = Counter(
    matmul=2e12,
    attention=2e12,
    traffic=1e11,
    all_gather=8e9,
    all_gather_calls=2,
    reduce_scatter=8e9,
    reduce_scatter_calls=2,
)


def cluster(ranks: int = 16, network: float = 1e9) -> Cluster:
    return Cluster(GPU, ranks, 8, network)


def step(compiled: bool = False, shard_size: int = 1, work: Counter[str] = WORK) -> Step:
    phases = {"forward": Phase(work=work), "backward": Phase(work=work), "optimizer": Phase(work=Counter(traffic=1e11))}
    return Step(phases, 100, 4, shard_size, compiled=compiled)


def test_computing_takes_the_sum_of_its_parts() -> None:
    time = step_time(step(), cluster(1), IDEAL)
    # twice 2 TFLOP of products, half of 2 TFLOP of attention, 0.1 TB; the optimizer another 0.1 TB
    assert (time.matmul, time.attention, time.memory, time.optimizer) == pytest.approx((4, 2, 2, 1))
    assert time.total == pytest.approx(9)


def test_compiled_blocks_move_fewer_bytes() -> None:
    assert step_time(step(compiled=True), cluster(1), IDEAL).memory == pytest.approx(1)


def test_narrow_models_multiply_slower() -> None:
    assert step_time(step(), cluster(1), replace(IDEAL, half_width=100)).matmul == pytest.approx(8)


def test_a_ring_in_a_node_stays_there() -> None:
    sent, copies = communication(WORK, 8, cluster(8), IDEAL)
    assert (sent.inside, sent.between, copies.seconds) == (16e9 * 7 / 8, 0, 0)
    assert sent.seconds == pytest.approx(16e9 * 7 / 8 / 1e10 + 4 * 7 * LINK_LATENCY)


def test_a_ring_over_nodes_enters_each_once() -> None:
    sent, _ = communication(WORK, 16, cluster(16), IDEAL)
    assert sent.between * 8 == 16e9 * 15 / 16  # of all GPUs of a node together
    latency = 4 * (2 * NETWORK_LATENCY + 14 * LINK_LATENCY)
    assert sent.seconds == pytest.approx(16e9 * 15 / 16 / 1e9 + latency)


def test_the_copies_of_all_slices_share_the_network() -> None:
    _, copies = communication(Counter(all_reduce=1e9), 8, cluster(16), IDEAL)
    assert copies.seconds == pytest.approx(8 * 2 * 1e9 / 2 / 1e9)
    assert copies.between == pytest.approx(1e9)


def test_copies_in_one_node_do_not_use_the_network() -> None:
    _, copies = communication(Counter(all_reduce=1e9), 2, cluster(8), IDEAL)
    assert copies.between == 0
    assert copies.inside == pytest.approx(2 * 1e9 * 3 / 4)


def test_communication_hides_behind_computing_but_for_its_ends() -> None:
    fast = step_time(step(shard_size=8), cluster(8), IDEAL)
    a_pass = 16e9 * 7 / 8 / 1e10
    assert fast.exposed == pytest.approx((2 + 1) / 4 * a_pass, rel=0.01)  # of 4 units, 2 before and 1 after
    slow = step_time(step(shard_size=16), cluster(16), IDEAL)
    assert slow.total == pytest.approx(1 + 2 * 15, rel=0.01)  # bound by the network, which hides all computing


def test_a_faster_network_is_never_slower() -> None:
    times = [step_time(step(shard_size=16), cluster(16, network), EFFICIENCIES).total for network in (1e8, 1e9, 1e10)]
    assert times == sorted(times, reverse=True)


def test_accumulated_micro_batches_reduce_between_copies_once() -> None:
    phases = step().phases | {"backward_between": Phase(work=WORK)}
    once = step_time(Step(phases, 100, 4, 1), cluster(1), IDEAL)
    four = step_time(Step(phases, 100, 4, 1, accumulation=4), cluster(1), IDEAL)
    assert four.matmul == 4 * once.matmul
    assert four.optimizer == once.optimizer
    assert Step(phases, 100, 4, 1, accumulation=4).schedule == [
        ("forward", 4),
        ("backward_between", 3),
        ("backward", 1),
    ]


def test_every_gpu_of_the_table_is_a_plausible_one() -> None:
    for gpu in GPUS.values():
        assert 5e13 < gpu.flops < 2e15
        assert 20e9 < gpu.memory < 200e9
        assert 4e11 < gpu.memory_bandwidth < 1e13
        assert 0.5 < gpu.achieved < 1
