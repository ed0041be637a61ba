"""Which layouts there are, which is best, and what a run in it costs."""

from collections import Counter
from dataclasses import replace

import pytest

from starcoder.errors import UserError
from starcoder.model import StarCoderConfig
from starcoder.training.planner.estimate import Cluster, Step, StepTime
from starcoder.training.planner.hardware import GPUS
from starcoder.training.planner.job import Job
from starcoder.training.planner.layouts import Plan, best, candidates, fallback, shortage
from starcoder.training.planner.ledger import Phase
from starcoder.training.planner.trace import Layout

OWN = Layout(ranks=512, shard_size=16, checkpointing="full", compile_blocks=True)
JOB = Job("starcoderbase", StarCoderConfig(), 8192, 512, 250_000, 64, 8, OWN)
A100 = GPUS["a100-80gb"]


def plan(seconds: float = 1.0, gib: float = 10.0, layout: Layout = OWN, job: Job = JOB) -> Plan:
    cluster = Cluster(A100, job.ranks, job.per_node, A100.node_network)
    step = Step({name: Phase() for name in ("forward", "backward", "optimizer")}, 6144, 41, layout.shard_size)
    return Plan(job, cluster, layout, Counter(activations=int(gib * 2**30)), step, StepTime(matmul=seconds))


def test_the_papers_job_has_a_dozen_layouts_and_more() -> None:
    found = candidates(JOB)
    assert len(found) >= 12
    assert OWN in found
    assert {layout.shard_size for layout in found} == {8, 16, 32, 64, 128, 256, 512}
    assert {layout.micro_batch for layout in found} == {1}  # 512 sequences on 512 GPUs


def test_one_gpu_has_a_dozen_too() -> None:
    found = candidates(replace(JOB, nodes=1, per_node=1, layout=None))
    assert len(found) == 12
    assert all(layout.micro_batch * layout.accumulation == 512 and layout.shard_size == 1 for layout in found)


def test_every_layout_takes_the_same_steps() -> None:
    job = replace(JOB, nodes=6, per_node=8, global_batch=480, layout=None)
    for layout in candidates(job):
        assert layout.micro_batch * layout.accumulation * layout.ranks == 480
        assert layout.ranks % layout.shard_size == 0


def test_a_batch_that_cannot_be_split_is_told() -> None:
    with pytest.raises(UserError, match="512 sequences cannot be split over 1024 GPUs"):
        candidates(replace(JOB, nodes=128, layout=None))


def test_the_best_is_the_fastest_that_fits() -> None:
    too_large, slow, fast = plan(1.0, 100), plan(3.0), plan(2.0)
    assert best([too_large, slow, fast]) is fast
    assert best([too_large]) is None


def test_of_equals_the_best_leaves_room_and_has_copies_on_few_gpus() -> None:
    wide, tight = plan(1.000, 5, replace(OWN, shard_size=512)), plan(1.000, 70)
    small, roomy = plan(1.005, 20), plan(1.001, 60)
    assert best([wide, tight, small, roomy]) is small


def test_a_tight_choice_has_a_roomy_alternative() -> None:
    tight, slow, slower = plan(1.0, 72), plan(1.2, 40), plan(1.3, 20)
    assert best([tight, slow, slower]) is tight
    assert fallback([tight, slow, slower], tight) is slow
    assert fallback([tight], tight) is None
    assert fallback([slow, slower], slow) is None


def test_memory_has_room_for_fragmentation_and_cuda() -> None:
    assert plan(gib=20).needed == pytest.approx((20 * 1.05 + 2) * 2**30)
    assert plan(gib=73).fits
    assert not plan(gib=74).fits


def test_the_papers_gpu_hours_give_its_energy_and_carbon() -> None:
    seconds = 320_256 * 3600 / 512 / 250_000
    paper = plan(seconds)
    assert paper.gpu_hours == pytest.approx(320_256)
    assert paper.days == pytest.approx(26.06, abs=0.01)
    assert paper.kwh == pytest.approx(89_671.68, rel=1e-6)
    assert paper.kg == pytest.approx(16_680, abs=10)
    assert paper.tokens_per_second == pytest.approx(909.5, abs=0.1)
    assert paper.mfu == pytest.approx(0.341, abs=0.001)


def test_what_can_never_fit_is_told() -> None:
    huge = replace(JOB, nodes=1, per_node=1)
    message = shortage([plan(gib=900, job=huge, layout=Layout(ranks=1, shard_size=1))])
    assert "does not fit 1 x A100-SXM4-80GB" in message
    assert "take GPUs with more memory" in message
