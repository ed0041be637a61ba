"""From what a step does to how long it takes: a roofline with stated efficiencies.

    compute  = matrix products / rate + attention / rate + traffic of all other operators / rate
    slowdown = what collectives inside a node take from the computing that they run beside
    exposed  = communication that computing does not hide, with the first all-gathers and the last reduce-scatter
    step     = accumulation · (forward + backward) + optimizer

All times are seconds of one optimizer step, all bytes and FLOPs those of one GPU.
"""

from dataclasses import astuple, dataclass

from starcoder.training.planner.hardware import LINK_LATENCY, NETWORK_LATENCY, Gpu
from starcoder.training.planner.ledger import Amounts, Phase


@dataclass(frozen=True)
class Efficiencies:
    """What a training step reaches of the hardware's figures; `calibration` says where the numbers come from.

    Attributes:
        half_width: channels of a model whose matrix products reach half of the best product's rate
            (`Gpu.flops · Gpu.achieved`); n channels reach n / (n + half_width) of it.
        attention: share of `Gpu.flops` in causal attention, which computes half of the T×T square.
        attention_hopper: the same on Hopper, of whose peak flash attention 2 uses less.
        memory: share of the memory's bandwidth in operators that stream.
        fused: share of their traffic that is left in compiled blocks.
        contention: share of the time of collectives, at the speed of a node's links, by which computing beside them
            slows down.
        link: share of the link between the GPUs of a node that a collective reaches.
        network: share of a node's network that a collective reaches.
    """

    half_width: float
    attention: float
    attention_hopper: float
    memory: float
    fused: float
    contention: float
    link: float
    network: float


@dataclass(frozen=True)
class Cluster:
    """Where a job runs: `ranks` GPUs, `per_node` of them in a node, and a network of bytes/s a direction and node."""

    gpu: Gpu
    ranks: int
    per_node: int
    network: float


@dataclass(frozen=True)
class Step:
    """What one optimizer step does.

    Attributes:
        phases: `forward`, `backward`, `optimizer`, and `backward_between` where micro-batches accumulate; see
            `Phase.work`.
        width: channels of the model.
        units: pieces that are gathered one by one: the blocks, and embedding with head.
        shard_size: GPUs that share one copy of the parameters.
        accumulation: micro-batches.
        compiled: whether blocks are compiled.
    """

    phases: dict[str, Phase]
    width: int
    units: int
    shard_size: int
    accumulation: int = 1
    compiled: bool = False

    @property
    def schedule(self) -> list[tuple[str, int]]:
        """Phases of forward and backward passes, and how often each comes."""
        between = [("backward_between", self.accumulation - 1)] if self.accumulation > 1 else []
        return [("forward", self.accumulation), *between, ("backward", 1)]

    def total(self, work: str) -> float:
        """FLOPs or bytes of all forward and backward passes."""
        return sum(count * self.phases[name].work[work] for name, count in self.schedule)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step by what they are spent on."""

    matmul: float = 0.0
    attention: float = 0.0
    memory: float = 0.0
    slowdown: float = 0.0
    exposed: float = 0.0
    optimizer: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return float(sum(astuple(self)))

    def add(self, other: "StepTime", count: int) -> "StepTime":
        """This, and `other` so many times."""
        return StepTime(*(mine + count * theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Sent:
    """Bytes of collectives that one GPU sends `inside` its node and `between` nodes, and how many seconds they take."""

    inside: float = 0.0
    between: float = 0.0
    seconds: float = 0.0


def step_time(step: Step, cluster: Cluster, efficiencies: Efficiencies) -> StepTime:
    """Time of one optimizer step."""
    gpu = cluster.gpu
    time = StepTime(optimizer=step.phases["optimizer"].work["traffic"] / (gpu.memory_bandwidth * efficiencies.memory))
    for name, count in step.schedule:
        time = time.add(_pass_time(name, step, cluster, efficiencies), count)
    return time


def _pass_time(name: str, step: Step, cluster: Cluster, efficiencies: Efficiencies) -> StepTime:
    gpu, work = cluster.gpu, step.phases[name].work
    attention = efficiencies.attention_hopper if gpu.hopper else efficiencies.attention
    matmul = work["matmul"] / (gpu.flops * gpu.achieved) * (1 + efficiencies.half_width / step.width)
    square = work["attention"] / 2 / (gpu.flops * attention)
    left = efficiencies.fused if step.compiled else 1.0
    memory = left * work["traffic"] / (gpu.memory_bandwidth * efficiencies.memory)
    shard, replicate = communication(work, step.shard_size, cluster, efficiencies)
    ends = (2 if name == "forward" else 1) / step.units  # for embedding and first block the forward pass must wait
    beside = max((1 - ends) * shard.seconds, replicate.seconds)
    at_link_speed = (shard.inside + shard.between) / (gpu.link_bandwidth * efficiencies.link)
    return StepTime(
        matmul=matmul,
        attention=square,
        memory=memory,
        slowdown=efficiencies.contention * at_link_speed,
        exposed=ends * shard.seconds + max(0.0, beside - matmul - square - memory),
    )


def communication(work: Amounts, shard_size: int, cluster: Cluster, efficiencies: Efficiencies) -> tuple[Sent, Sent]:
    """What a phase sends among the GPUs that share one copy, and between the copies.

    Collectives are rings (nccl-tests, doc/PERFORMANCE.md): over n GPUs a gather or scatter of S bytes sends
    S·(n−1)/n from each, an all-reduce twice that. A ring through several nodes enters and leaves each of them once; the
    rings of the slices, which the copies reduce all at the same time, share a node's network.
    """
    ranks = cluster.ranks
    gathered = work["all_gather"] + work["reduce_scatter"]
    calls = work["all_gather_calls"] + work["reduce_scatter_calls"]
    shard = _Ring(shard_size, shard_size, 1, cluster, efficiencies).send(gathered, calls)
    replicate = _Ring(ranks // shard_size, ranks, shard_size, cluster, efficiencies)
    return shard, replicate.send(2 * work["all_reduce"], 2 * work["all_reduce_calls"])


@dataclass(frozen=True)
class _Ring:
    """A ring of `n` GPUs among `span` neighbouring ones; of `rings` such, those of a node's GPUs run side by side."""

    n: int
    span: int
    rings: int
    cluster: Cluster
    efficiencies: Efficiencies

    def send(self, nbytes: float, calls: float) -> Sent:
        """Gather or scatter tensors of so many bytes in all, in so many calls."""
        cluster, link = self.cluster, self.cluster.gpu.link_bandwidth * self.efficiencies.link
        sent = nbytes * (self.n - 1) / self.n
        if self.span <= cluster.per_node:
            return Sent(inside=sent, seconds=sent / link + calls * (self.n - 1) * LINK_LATENCY)
        side_by_side = min(self.rings, cluster.per_node)
        between = sent * side_by_side / cluster.per_node  # a GPU's share of what leaves its node
        seconds = sent * side_by_side / (cluster.network * self.efficiencies.network)
        crossings = min(self.n, self.span // cluster.per_node)
        latency = crossings * NETWORK_LATENCY + (self.n - crossings) * LINK_LATENCY
        return Sent(sent - between, between, max(seconds, (sent - between) / link) + calls * latency)
