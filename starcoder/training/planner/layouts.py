"""The layouts of a job: which there are, what each needs and takes, and which is best."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from tqdm import tqdm

from starcoder.errors import UserError
from starcoder.training.parallel import BYTES_AT_REST, Checkpointing
from starcoder.training.planner.calibration import EFFICIENCIES
from starcoder.training.planner.estimate import Cluster, Step, StepTime, communication, step_time
from starcoder.training.planner.job import Job
from starcoder.training.planner.ledger import Amounts
from starcoder.training.planner.trace import Layout, Trace, trace

CONTEXT = 2 * 2**30  # bytes that CUDA's context and NCCL's buffers take
FRAGMENTATION = 0.05  # of the peak, that the allocator holds but cannot use
MEAN_POWER = 0.7  # of the board's: the paper's 280 W of 400 W (§5.7)
PUE, KG_PER_KWH = 1.2, 0.15495  # the paper's data centre and grid (§5.7)
CHECKPOINTING: tuple[Checkpointing, ...] = ("none", "selective", "full")
TIE = 1.01  # a difference of 1 % in time is below what the estimate can tell
ROOMY = 0.9  # share of the memory beyond which an estimate that is a little low means a run out of memory
MOST_GPUS = 4096
MICRO_BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Plan:
    """What a job needs and takes in one layout.

    Attributes:
        job: what is trained.
        cluster: where.
        layout: how it is spread.
        peak: bytes of one GPU by kind, at the moment that needs most.
        step: what an optimizer step does.
        time: of an optimizer step.
    """

    job: Job
    cluster: Cluster
    layout: Layout
    peak: Amounts
    step: Step
    time: StepTime

    @property
    def needed(self) -> float:
        """Bytes that a GPU must have: the peak, the context, and what fragmentation loses."""
        return self.peak.total() * (1 + FRAGMENTATION) + CONTEXT

    @property
    def fits(self) -> bool:
        """Whether the GPU has them."""
        return self.needed <= self.cluster.gpu.memory

    @property
    def tight(self) -> bool:
        """Whether the estimate of its memory must not be low by a tenth."""
        return self.needed > ROOMY * self.cluster.gpu.memory

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second and GPU."""
        return self.job.global_batch * self.job.length / self.cluster.ranks / self.time.total

    @property
    def mfu(self) -> float:
        """Share of the GPU's peak by PaLM's convention: no recomputation, but the whole attention square."""
        return self.tokens_per_second * self.job.config.flops_per_token(self.job.length) / self.cluster.gpu.flops

    @property
    def flops_per_token(self) -> float:
        """FLOPs of forward and backward for a token, as counted; attention is its whole square, thrice."""
        forward, tokens = self.step.phases["forward"].work, self.layout.micro_batch * self.job.length
        backward = self.step.phases["backward"].work
        products = forward["matmul"] + backward["matmul"] - backward["recomputed_matmul"]
        return (products + 3 * forward["attention"]) / tokens

    @property
    def sent(self) -> tuple[float, float]:
        """Bytes that one GPU sends in a step inside its node, and between nodes."""
        passes = [
            (sent, count)
            for name, count in self.step.schedule
            for sent in communication(self.step.phases[name].work, self.layout.shard_size, self.cluster, EFFICIENCIES)
        ]
        return sum(sent.inside * count for sent, count in passes), sum(sent.between * count for sent, count in passes)

    @property
    def days(self) -> float:
        """Days of the whole run, without interruptions."""
        return self.job.steps * self.time.total / 86_400

    @property
    def gpu_hours(self) -> float:
        """Hours of all GPUs together."""
        return 24 * self.days * self.cluster.ranks

    @property
    def kwh(self) -> float:
        """Energy of the GPUs in kWh."""
        return self.gpu_hours * MEAN_POWER * self.cluster.gpu.watts / 1000

    @property
    def kg(self) -> float:
        """Kilograms of CO2e, the data centre's overhead included."""
        return self.kwh * PUE * KG_PER_KWH


def candidates(job: Job) -> list[Layout]:
    """Layouts worth to compare, the recipe's own among them.

    Copies are shared by a node's GPUs, twice as many, and so on to all; in a single node by one or all.

    Raises:
        UserError: when the global batch cannot be split over the GPUs.
    """
    per_step = [(micro, job.global_batch // (micro * job.ranks)) for micro in MICRO_BATCHES]
    batches = [(micro, times) for micro, times in per_step if micro * times * job.ranks == job.global_batch]
    if not batches:
        raise UserError(
            f"a global batch of {job.global_batch} sequences cannot be split over {job.ranks} GPUs: "
            "change data.global_batch_size, or the number of GPUs"
        )
    own = job.layout
    base = Layout(job.ranks, job.ranks, compile_blocks=True) if own is None else replace(own, compile_blocks=True)
    found = {
        replace(base, shard_size=size, checkpointing=checkpointing, micro_batch=micro, accumulation=times)
        for size in _shard_sizes(job)
        for checkpointing in CHECKPOINTING
        for micro, times in batches
    }
    return sorted(found | ({own} if own else set()), key=_order)


def _order(layout: Layout) -> tuple[int, ...]:
    kept = CHECKPOINTING.index(layout.checkpointing)
    return layout.shard_size, kept, layout.micro_batch, layout.compile_blocks


def _shard_sizes(job: Job) -> list[int]:
    if job.nodes == 1:
        return sorted({1, job.ranks})
    sizes, size = [job.ranks], job.per_node
    while size < job.ranks:
        sizes += [size] if job.ranks % size == 0 else []
        size *= 2
    return sizes


def compare(job: Job, cluster: Cluster, layouts: Sequence[Layout]) -> list[Plan]:
    """Trace every layout, two at a time, and estimate it; a terminal is told how far it is."""
    traced = {layout: _measured(layout) for layout in layouts}
    unique = sorted(set(traced.values()))
    workers = min(2, os.cpu_count() or 1, len(unique))
    traces: dict[Layout, Trace] = {}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _ignore_interrupts) as pool:
        try:
            futures = {layout: pool.submit(trace, job.config, job.length, layout) for layout in unique}
            for layout, future in tqdm(futures.items(), "layouts", leave=False, disable=None):
                traces[layout] = future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [estimate(job, cluster, layout, traces[traced[layout]]) for layout in layouts]


def _measured(layout: Layout) -> Layout:
    """What is traced for `layout`: compiling changes the time alone, one micro-batch stands for all but the last."""
    return replace(layout, compile_blocks=False, accumulation=min(2, layout.accumulation))


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends the workers, without their tracebacks


def estimate(job: Job, cluster: Cluster, layout: Layout, phases: Trace) -> Plan:
    """What a layout needs and takes, from what a step of it does."""
    step = Step(
        phases,
        job.config.n_embd,
        job.config.n_layer + 1,
        layout.shard_size,
        layout.accumulation,
        compiled=layout.compile_blocks,
    )
    peak = max((phase.peak for phase in phases.values()), key=lambda amounts: amounts.total())
    return Plan(job, cluster, layout, peak, step, step_time(step, cluster, EFFICIENCIES))


def best(plans: Sequence[Plan]) -> Plan | None:
    """The fastest that fits; of those as good, one that leaves room, then one with copies on fewer GPUs, then smaller.

    Collectives over fewer nodes wait less for slow ones, which the estimate does not know.
    """
    fitting = [plan for plan in plans if plan.fits]
    fastest = min((plan.time.total for plan in fitting), default=0.0)
    ties = [plan for plan in fitting if plan.time.total <= TIE * fastest]
    return min(ties, key=_preference, default=None)


def _preference(plan: Plan) -> tuple[bool, int, float]:
    return plan.tight, plan.layout.shard_size, plan.needed


def fallback(plans: Sequence[Plan], chosen: Plan) -> Plan | None:
    """For a choice that is tight, the fastest that leaves room."""
    roomy = [plan for plan in plans if chosen.tight and not plan.tight]
    return min(roomy, key=lambda plan: plan.time.total, default=None)


def shortage(plans: Sequence[Plan]) -> str:
    """For a job that does not fit: what the least needs, and how many GPUs of this kind would do."""
    least = min(plans, key=lambda plan: plan.needed)
    gpu, ranks = least.cluster.gpu, _enough(least)
    needed, room = least.needed / 2**30, gpu.memory / 2**30
    none = f"no number of them that can share {least.job.global_batch} sequences would do, take GPUs with more memory"
    advice = f"{ranks} of them would do" if ranks else none
    return (
        f"{least.job.name} does not fit {least.cluster.ranks} x {gpu.name}: a GPU needs {needed:.1f} GiB at least "
        f"and has {room:.1f}; {advice}"
    )


def _enough(least: Plan) -> int | None:
    """The fewest times as many GPUs over which the global batch can be split, all sharing one copy of the parameters.

    First by arithmetic, then by tracing.
    """
    states = (1 + FRAGMENTATION) * BYTES_AT_REST * least.job.config.n_params
    fixed = least.needed - states / least.layout.shard_size
    samples, memory = least.job.global_batch, least.cluster.gpu.memory
    for ranks in range(2 * least.cluster.ranks, MOST_GPUS + 1, least.cluster.ranks):
        if samples % ranks or fixed + states / ranks > memory:
            continue
        layout = replace(least.layout, ranks=ranks, shard_size=ranks, micro_batch=1, accumulation=samples // ranks)
        if compare(least.job, replace(least.cluster, ranks=ranks), [layout])[0].fits:
            return ranks
    return None
