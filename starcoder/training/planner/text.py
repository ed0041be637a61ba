"""The plan in words and columns: lines of at most 120 characters."""

from collections.abc import Sequence

from starcoder.model import StarCoderConfig
from starcoder.training.planner.calibration import EFFICIENCIES, likely
from starcoder.training.planner.estimate import Cluster
from starcoder.training.planner.job import Job
from starcoder.training.planner.layouts import CONTEXT, FRAGMENTATION, KG_PER_KWH, MEAN_POWER, PUE, ROOMY, Plan
from starcoder.training.planner.ledger import KINDS

GIB, GB = 2**30, 1e9
PAPER_TOKENS = 250_000 * 512 * 8192
PAPER = {"days": (24.0, 26.1), "GPU hours": (320_256.0,), "kWh": (89_672.0,), "t CO2e": (16.68,)}  # §5.6-5.7

_HEAD = (
    f"{'':16}micro accu- |{' GiB of one GPU at its peak':<44}|{' GB a GPU sends':<17}|"
    f"{'step':>6}{'tok/s':>7}{'whole':>15}",
    f"  shard check-   batch mul. |{'param':>6}{'grad':>6}{'opt':>6}{'activ':>6}{'comm':>6}{'needed':>8}{'fits':>5} |"
    f"{'inside':>8}{'between':>8} |{'s':>6}{'GPU':>7}{'MFU':>6}{'run':>9}",
)


def describe(job: Job, cluster: Cluster) -> str:
    """What is planned, in two lines."""
    gpu = cluster.gpu
    network = f", {cluster.network * 8 / GB:,.0f} Gbit/s a node" if job.nodes > 1 else ""
    return (
        f"{job.name}: {job.config.n_params:,} parameters, {job.tokens:.4g} tokens in {job.steps:,} steps of "
        f"{job.global_batch:,} x {job.length:,} tokens\n"
        f"on {job.nodes} x {job.per_node} {gpu.name} of {gpu.memory / GIB:.1f} GiB and {gpu.flops / 1e12:.0f} TFLOP/s"
        f"{network}"
    )


def table(plans: Sequence[Plan], chosen: Plan | None) -> str:
    """One line a layout."""
    own = plans[0].job.layout
    eager = " (alone not compiled)" if own and not own.compile_blocks else ""
    legend = f"* recommended, r the recipe's own{eager}; sent in a step, inside nodes and between them"
    return "\n".join([*_HEAD, *(_row(plan, chosen) for plan in plans), legend])


def _row(plan: Plan, chosen: Plan | None) -> str:
    layout, (inside, between) = plan.layout, plan.sent
    mark = ("*" if plan is chosen else " ") + ("r" if layout == plan.job.layout else " ")
    how = f"{mark}{layout.shard_size:>4} {layout.checkpointing:<9} {layout.micro_batch:>4} {layout.accumulation:>5} "
    kinds = "".join(f"{plan.peak[kind] / GIB:6.1f}" for kind in KINDS)
    memory = f"{kinds}{plan.needed / GIB:8.1f}{'yes' if plan.fits else 'NO':>5} "
    seconds = plan.time.total
    step = f"{seconds:6.2f}" if seconds < 1000 else f"{seconds:6.0f}"
    speed = f"{step}{plan.tokens_per_second:7.0f}{plan.mfu:6.1%}{_period(plan.days):>9}"
    return f"{how}|{memory}|{inside / GB:8.1f}{between / GB:8.1f} |{speed}"


def recommendation(plan: Plan, instead: Plan | None) -> str:
    """The best layout as lines of a recipe, what to take `instead` should memory run out, and what the run costs."""
    paper = ["", *_paper(plan)] if _is_the_papers(plan.job) else []
    return "\n".join([*_lines(plan), *_tight(plan, instead), "", *_costs(plan), *paper])


def _tight(plan: Plan, instead: Plan | None) -> list[str]:
    share = f"it needs {plan.needed / plan.cluster.gpu.memory:.0%} of the memory"
    if instead is None:
        return [f"{share}, and no layout needs less than {ROOMY:.0%}"] if plan.tight else []
    layout, longer = instead.layout, instead.time.total / plan.time.total - 1
    return [
        f"{share}; should that run out,",
        f"shard_size {layout.shard_size}, checkpointing {layout.checkpointing}, batch_size {layout.micro_batch} needs "
        f"{instead.needed / GIB:.1f} GiB and takes {longer:.0%} longer",
    ]


def _lines(plan: Plan) -> list[str]:
    layout = plan.layout
    return [
        "recommended, as lines of a recipe:",
        "  data:",
        f"    batch_size: {layout.micro_batch}",
        f"    global_batch_size: {plan.job.global_batch}",
        "  trainer:",
        "    strategy:",
        "      class_path: starcoder.training.parallel.ShardedStrategy",
        "      init_args:",
        f"        shard_size: {layout.shard_size}",
        "        param_dtype: bfloat16",
        f"        checkpointing: {layout.checkpointing}",
        f"        compile_blocks: {str(layout.compile_blocks).lower()}",
        f"        reshard_after_forward: {str(layout.reshard_after_forward).lower()}",
        f"        reduce_every_batch: {str(layout.reduce_every_batch).lower()}",
    ]


def _costs(plan: Plan) -> list[str]:
    shares = ", ".join(f"{name} {share / plan.time.total:.1%}" for name, share in vars(plan.time).items())
    low, high = (_period(days) for days in likely(plan.days))
    return [
        f"{_period(plan.days)} ({low} to {high} in nine of ten published runs), {_amount(plan.gpu_hours)} GPU hours, "
        f"{_weight(plan.kwh, 'Wh', 'kWh')} in the GPUs, {_weight(plan.kg, 'g', 'kg', 't')} CO2e",
        f"{plan.tokens_per_second:,.0f} tokens/s/GPU, MFU {plan.mfu:.1%}, "
        f"{plan.flops_per_token / 1e9:,.2f} GFLOP a token (attention's whole square, no recomputation)",
        f"a step of {plan.time.total:.2f} s: {shares}",
        "(slowdown: of computing beside collectives; exposed: collectives that computing does not hide)",
    ]


def _period(days: float) -> str:
    for size, unit in ((1.0, "d"), (1 / 24, "h")):
        if days >= size:
            return f"{days / size:.1f} {unit}"
    return f"{days * 1440:.1f} min"


def _weight(thousands: float, *units: str) -> str:
    """A number of thousands in the unit that keeps it short: the first is a thousandth of the second, and so on."""
    value = 1000 * thousands
    for unit in units[:-1]:
        if value < 1000:
            return f"{_amount(value)} {unit}"
        value /= 1000
    return f"{_amount(value)} {units[-1]}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _is_the_papers(job: Job) -> bool:
    same_shape = job.config.replace(dropout=0.1) == StarCoderConfig()
    return same_shape and abs(job.tokens / PAPER_TOKENS - 1) < 0.01


def _paper(plan: Plan) -> list[str]:
    found = {"days": plan.days, "GPU hours": plan.gpu_hours, "kWh": plan.kwh, "t CO2e": plan.kg / 1000}
    lines = [
        f"  {name:<10} {found[name]:>12,.2f}   paper {' to '.join(f'{value:,.2f}' for value in values):<16} "
        + " to ".join(f"{found[name] / value - 1:+.0%}" for value in values)
        for name, values in PAPER.items()
    ]
    return ["beside the paper's run on 512 A100-80GB (TP 4 x PP 4 x DP 32, with its interruptions):", *lines]


def assumptions(plan: Plan) -> str:
    """What the recommendation rests on."""
    e, gpu = EFFICIENCIES, plan.cluster.gpu
    width = plan.job.config.n_embd
    products = gpu.achieved * width / (width + e.half_width)
    attention = e.attention_hopper if gpu.hopper else e.attention
    network = plan.cluster.network / GB
    lines = [
        "assumptions:",
        f"  of {gpu.flops / 1e12:.0f} TFLOP/s matrix products reach {products:.0%}, attention (flash attention 2) "
        f"{attention:.0%}",
        f"  all else reaches {e.memory:.0%} of {gpu.memory_bandwidth / GB:,.0f} GB/s of memory; compiled blocks move "
        f"{e.fused:.0%} of the bytes of eager ones",
        f"  collectives reach {e.link:.0%} of {gpu.link_bandwidth / GB:,.0f} GB/s in a node, {e.network:.0%} of "
        f"{network:,.1f} GB/s between nodes,",
        f"  and slow computing by {e.contention:.0%} of the time that they take in a node",
        "  computing is bf16, parameters, gradients and AdamW are fp32; dropout in attention costs nothing",
        "  memory is that of eager blocks, an upper bound for compiled ones",
        f"  needed = peak + {FRAGMENTATION:.0%} of it for fragmentation + {CONTEXT / GIB:.0f} GiB for CUDA and NCCL",
        f"  {MEAN_POWER * gpu.watts:.0f} W a GPU ({MEAN_POWER:.0%} of the board's, as the paper's 280 of 400), "
        f"PUE {PUE}, {KG_PER_KWH} kg CO2e/kWh",
        "  CO2e counts the data centre's overhead (PUE), kWh the GPUs alone, as in the paper",
        "  no interruptions, no waiting for data; slow nodes cost no more than in the published runs",
    ]
    return "\n".join(lines)
