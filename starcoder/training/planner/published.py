"""Published training runs whose throughput is known, and what a step of theirs does, in closed form.

They are of other models than StarCoder and of other code than ours, so nothing can be traced; but a step's products,
bytes and collectives follow from the shape. The closed form for `gpt` shapes is that of our own blocks without dropout,
which a test compares with the trace.

Sources:
(1) mosaicml/llm-foundry, scripts/train/benchmarking/README.md, 2023: MPT, FSDP1, no compile. The network of its H100
    rows is not named, 3,200 Gb/s a node here; where the micro-batches of a step are not, one.
(2) "Maximizing training throughput", pytorch.org/blog/maximizing-training, 2024-03-13: Llama 2, FSDP1.
(3) foundation-model-stack/fms-fsdp, README.md, 2024: an earlier table of the same.
(4) pytorch/torchtitan, docs/performance.md, 2024: Llama, FSDP2. Its network is not named, 1,600 Gb/s a node here.
(5) torchtitan, benchmarks/llama3_h100_202412_torchtitan.md, 2024-12.
(6) The sequel of (2), pytorch.org/blog/maximizing-training-throughput, 2024-05-21: of each model its MFU compiled over
    that of (2), applied to the tokens/s of (2); on H100s, 464 of them.
(7) jzhang38/TinyLlama, README.md, 2023: kernels of its own for norms, SiLU and loss, counted as compiled; its network
    is not named, 1,600 Gb/s a node here.

Every run of these is here, fitted or held out, but for the following. Llama2-13B in (2) and (6) recomputes "every n-th
block", n not said. One row of (1), MPT-1B on 32 A100-40, is a fifth slower than its neighbours on 16 and 64. Of
the production runs of (2) and (3) only the days are told, restarts included. FP8 runs of (5), and Megatron's with
tensor or pipeline parallelism, the paper's own among them, are of other kinds; OLMo's do not say on how many GPUs.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from starcoder.training.planner.estimate import Cluster, Step
from starcoder.training.planner.hardware import GPUS
from starcoder.training.planner.ledger import Phase


@dataclass(frozen=True)
class Shape:
    """A decoder: `gpt` has layer norm and an MLP of two matrices, `llama` RMS norm, rotary positions and three."""

    family: str
    n_layer: int
    n_embd: int
    n_inner: int
    vocab_size: int
    kv: float = 1.0  # channels of keys, as of values, over those of queries

    @property
    def matrices(self) -> float:
        """Parameters of all blocks."""
        c, f = self.n_embd, self.n_inner
        return self.n_layer * (c * c * (2 + 2 * self.kv) + (3 if self.family == "llama" else 2) * c * f)

    @property
    def params(self) -> float:
        """Parameters, tables of tokens with them: one in `gpt`, which ties its head, two in `llama`."""
        return self.matrices + (2 if self.family == "llama" else 1) * self.vocab_size * self.n_embd

    @property
    def bytes_per_token(self) -> tuple[float, float]:
        """Bytes that operators other than products move for one token in all blocks: forward, backward (bf16, eager).

        `gpt`: two layer norms (4 bytes a channel: read, written), two residual sums (6), GELU (4 an inner channel);
        backward the same with a gradient more (6, 6, 6), sums for biases (2), the gradients of Q, K and V joined (4),
        those of shared K and V summed over heads (4). `llama`: RMS norm in six operators on fp32 copies (36), sums (6),
        rotation of queries and keys in fp32 (20), SiLU and its product (10); backward twice as much.
        """
        c, f = self.n_embd, self.n_inner
        if self.family == "gpt":
            biases, joined = 2 * ((3 + 2 * self.kv) * c + f), 4 * (1 + 2 * self.kv) * c
            expanded = 4 * c if self.kv < 1 else 0
            return self.n_layer * (20 * c + 4 * f), self.n_layer * (24 * c + 6 * f + biases + joined + expanded)
        forward = self.n_layer * (84 * c + 20 * (1 + self.kv) * c + 10 * f)
        return forward, 2 * forward


MPT_1B = Shape("gpt", 24, 2048, 8192, 50368)
MPT_3B = Shape("gpt", 32, 2560, 10240, 50368)
MPT_7B = Shape("gpt", 32, 4096, 16384, 50368)
MPT_13B = Shape("gpt", 40, 5120, 20480, 50368)
MPT_30B = Shape("gpt", 48, 7168, 28672, 50368)
MPT_70B = Shape("gpt", 80, 8192, 32768, 50368)
LLAMA2_7B = Shape("llama", 32, 4096, 11008, 32000)
LLAMA2_13B = Shape("llama", 40, 5120, 13824, 32000)
LLAMA2_34B = Shape("llama", 48, 8192, 22016, 32000, 1 / 8)
LLAMA2_70B = Shape("llama", 80, 8192, 28672, 32000, 1 / 8)
TINY_LLAMA = Shape("llama", 22, 2048, 5632, 32000, 1 / 8)
LLAMA3_8B = Shape("llama", 32, 4096, 14336, 128256, 1 / 4)
LLAMA3_70B = Shape("llama", 80, 8192, 28672, 128256, 1 / 8)


@dataclass(frozen=True)
class Run:
    """A measured run.

    Attributes:
        source: number in this file's docstring.
        label: model, GPUs, and what else tells it from the others.
        shape: of the model.
        length: tokens of a sequence.
        micro_batch: sequences of a GPU at a time.
        accumulation: micro-batches of a step.
        gpu: key of `GPUS`.
        ranks: GPUs, eight in a node.
        network: bytes/s of a node, 0 within one.
        measured: tokens per second and GPU.
        recomputed: share of the blocks' products that the backward pass repeats.
        recomputed_attention: share of their attention.
        compiled: whether blocks are compiled.
        reduce_bytes: of an element of the gradients that are reduced.
        shard_size: GPUs that share a copy; all when not given.
    """

    source: int
    label: str
    shape: Shape
    length: int
    micro_batch: int
    accumulation: int
    gpu: str
    ranks: int
    network: float
    measured: float
    recomputed: float = 0.0
    recomputed_attention: float = 0.0
    compiled: bool = False
    reduce_bytes: int = 4
    shard_size: int | None = None

    @property
    def cluster(self) -> Cluster:
        """Where it ran."""
        return Cluster(GPUS[self.gpu], self.ranks, 8, self.network)

    @property
    def step(self) -> Step:
        """What one of its steps does."""
        shard_size = self.shard_size or self.ranks
        phases = _phases(self, shard_size)
        return Step(
            phases, self.shape.n_embd, self.shape.n_layer + 1, shard_size, self.accumulation, compiled=self.compiled
        )


def _phases(run: Run, shard_size: int) -> dict[str, Phase]:
    """The work of a run's phases, as a trace tells it; memory is left out."""
    shape, tokens, units = run.shape, run.length * run.micro_batch, run.shape.n_layer + 1
    products = 2 * tokens * (shape.matrices + shape.vocab_size * shape.n_embd)
    square = 4 * shape.n_layer * shape.n_embd * run.length * tokens  # attention's two products
    forward, backward = (tokens * nbytes for nbytes in shape.bytes_per_token)
    softmax = 20 * tokens * shape.vocab_size  # of the head, in fp32, in each direction
    gathered, reduced = 2 * shape.params, run.reduce_bytes * shape.params
    between = {
        "matmul": 2 * products + run.recomputed * 2 * tokens * shape.matrices,
        "attention": (2.5 + run.recomputed_attention) * square,
        # gathered parameters are copied out, gradients copied in
        "traffic": backward + bool(run.recomputed) * forward + softmax + 3 * gathered + reduced,
        "all_gather": gathered,
        "all_gather_calls": units,
        "reduce_scatter": reduced,
        "reduce_scatter_calls": units,
    }
    first = {
        "matmul": products,
        "attention": square,
        "traffic": forward + softmax + 2 * gathered,
        "all_gather": gathered,
        "all_gather_calls": units,
    }
    copied = run.ranks > shard_size
    copies = {"all_reduce": copied * reduced / shard_size, "all_reduce_calls": copied * units}
    steps = {"traffic": 40 * shape.params / shard_size}  # bytes: AdamW 28, clipping 12
    works = {"forward": first, "backward_between": between, "backward": between | copies, "optimizer": steps}
    return {name: Phase(work=Counter(work)) for name, work in works.items()}


FULL: dict[str, Any] = {"recomputed": 1.0, "recomputed_attention": 1.0}
OPERATORS: dict[str, Any] = {"recomputed": 0.5}  # torchtitan keeps attention and every second product
LAYERS: dict[str, Any] = {"recomputed": 0.5, "recomputed_attention": 0.5}  # every second block
PURE: dict[str, Any] = {"reduce_bytes": 2}  # gradients are reduced in bf16
ROCE, EFA, IB = 200e9, 50e9, 400e9  # 1,600, 400 and 3,200 Gb/s a node

FITTED = (
    Run(1, "MPT-1B 8k", MPT_1B, 8192, 3, 4, "a100-80gb", 8, 0, 13814),
    Run(1, "MPT-3B 8k", MPT_3B, 8192, 3, 6, "a100-80gb", 8, 0, 7695),
    Run(1, "MPT-7B 1k full", MPT_7B, 1024, 64, 2, "a100-80gb", 8, 0, 4357, **FULL),
    Run(1, "MPT-7B 2k", MPT_7B, 2048, 6, 2, "a100-80gb", 8, 0, 4641),
    Run(1, "MPT-7B 8k full", MPT_7B, 8192, 8, 2, "a100-80gb", 8, 0, 3206, **FULL),
    Run(1, "MPT-7B 32k full", MPT_7B, 32768, 2, 2, "a100-80gb", 8, 0, 1672, **FULL),
    Run(1, "MPT-13B 8k full", MPT_13B, 8192, 5, 3, "a100-80gb", 8, 0, 1795, **FULL),
    Run(1, "MPT-70B 2k full", MPT_70B, 2048, 8, 4, "a100-80gb", 64, ROCE, 410, **FULL, **PURE),
    Run(2, "Llama2-7B HSDP", LLAMA2_7B, 4096, 2, 1, "a100-80gb", 128, EFA, 3700, **PURE, shard_size=8),
    Run(4, "Llama2-13B", LLAMA2_13B, 4096, 2, 1, "a100-80gb", 64, ROCE, 2162),
    Run(4, "Llama3-8B select", LLAMA3_8B, 8192, 1, 1, "a100-80gb", 64, ROCE, 2973, **OPERATORS),
    Run(1, "MPT-1B 8k", MPT_1B, 8192, 3, 4, "h100-80gb", 8, 0, 29157),
    Run(1, "MPT-7B 2k", MPT_7B, 2048, 6, 1, "h100-80gb", 8, 0, 10643),
    Run(1, "MPT-7B 8k full", MPT_7B, 8192, 8, 2, "h100-80gb", 8, 0, 6935, **FULL),
    Run(1, "MPT-13B 2k", MPT_13B, 2048, 2, 1, "h100-80gb", 64, IB, 4800),
    Run(5, "Llama3-8B select", LLAMA3_8B, 8192, 2, 1, "h100-96gb", 8, 0, 5762, **OPERATORS),
    Run(5, "Llama3-8B compile", LLAMA3_8B, 8192, 2, 1, "h100-96gb", 8, 0, 6667, **OPERATORS, compiled=True),
)
HELD_OUT = (
    Run(1, "MPT-3B 1k", MPT_3B, 1024, 20, 6, "a100-80gb", 8, 0, 11580),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 10, 6, "a100-80gb", 8, 0, 10811),
    Run(1, "MPT-3B 4k", MPT_3B, 4096, 5, 6, "a100-80gb", 8, 0, 9457),
    Run(1, "MPT-3B 16k", MPT_3B, 16384, 1, 8, "a100-80gb", 8, 0, 5529),
    Run(1, "MPT-3B 32k full", MPT_3B, 32768, 3, 1, "a100-80gb", 8, 0, 3029, **FULL),
    Run(1, "MPT-7B 4k full", MPT_7B, 4096, 16, 2, "a100-80gb", 8, 0, 3684, **FULL),
    Run(1, "MPT-7B 16k full", MPT_7B, 16384, 4, 2, "a100-80gb", 8, 0, 2453, **FULL),
    Run(1, "MPT-13B 2k", MPT_13B, 2048, 2, 3, "a100-80gb", 8, 0, 2262),
    Run(1, "MPT-13B 1k full", MPT_13B, 1024, 40, 3, "a100-80gb", 8, 0, 2330, **FULL),
    Run(1, "MPT-13B 4k full", MPT_13B, 4096, 10, 3, "a100-80gb", 8, 0, 2060, **FULL),
    Run(1, "MPT-13B 16k full", MPT_13B, 16384, 3, 3, "a100-80gb", 8, 0, 1431, **FULL),
    Run(1, "MPT-13B 32k full", MPT_13B, 32768, 1, 4, "a100-80gb", 8, 0, 1016, **FULL),
    Run(1, "MPT-30B 4k full", MPT_30B, 4096, 1, 21, "a100-80gb", 8, 0, 814, **FULL),
    Run(1, "MPT-30B 8k full", MPT_30B, 8192, 1, 21, "a100-80gb", 8, 0, 574, **FULL),
    Run(1, "MPT-70B 2k full", MPT_70B, 2048, 2, 16, "a100-80gb", 32, ROCE, 373, **FULL, **PURE),
    Run(1, "MPT-1B 2k", MPT_1B, 2048, 8, 8, "a100-40gb", 8, 0, 19271, **PURE),
    Run(1, "MPT-1B 2k", MPT_1B, 2048, 8, 1, "a100-40gb", 16, ROCE, 19085, **PURE),
    Run(1, "MPT-1B 2k", MPT_1B, 2048, 10, 1, "a100-40gb", 64, ROCE, 19001, **PURE),
    Run(1, "MPT-1B 2k", MPT_1B, 2048, 10, 1, "a100-40gb", 128, ROCE, 18647, **PURE),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 5, 8, "a100-40gb", 8, 0, 10065, **PURE),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 5, 1, "a100-40gb", 16, ROCE, 9750, **PURE),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 6, 1, "a100-40gb", 32, ROCE, 9914, **PURE),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 6, 1, "a100-40gb", 64, ROCE, 9736, **PURE),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 6, 1, "a100-40gb", 128, ROCE, 9538, **PURE),
    Run(1, "MPT-7B 2k full", MPT_7B, 2048, 12, 4, "a100-40gb", 8, 0, 3679, **FULL, **PURE),
    Run(1, "MPT-7B 2k full", MPT_7B, 2048, 16, 1, "a100-40gb", 16, ROCE, 3645, **FULL, **PURE),
    Run(1, "MPT-7B 2k full", MPT_7B, 2048, 18, 1, "a100-40gb", 32, ROCE, 3725, **FULL, **PURE),
    Run(1, "MPT-7B 2k full", MPT_7B, 2048, 18, 1, "a100-40gb", 64, ROCE, 3665, **FULL, **PURE),
    Run(1, "MPT-7B 2k full", MPT_7B, 2048, 18, 1, "a100-40gb", 128, ROCE, 3623, **FULL, **PURE),
    Run(1, "MPT-13B 2k full", MPT_13B, 2048, 4, 16, "a100-40gb", 8, 0, 1668, **FULL, **PURE),
    Run(1, "MPT-13B 2k full", MPT_13B, 2048, 10, 1, "a100-40gb", 16, ROCE, 1993, **FULL, **PURE),
    Run(1, "MPT-13B 2k full", MPT_13B, 2048, 14, 1, "a100-40gb", 32, ROCE, 1998, **FULL, **PURE),
    Run(1, "MPT-13B 2k full", MPT_13B, 2048, 16, 1, "a100-40gb", 64, ROCE, 1976, **FULL, **PURE),
    Run(1, "MPT-13B 2k full", MPT_13B, 2048, 16, 1, "a100-40gb", 128, ROCE, 1972, **FULL, **PURE),
    Run(1, "MPT-13B 8k full", MPT_13B, 8192, 1, 16, "a100-40gb", 8, 0, 1407, **FULL, **PURE),
    Run(1, "MPT-30B 2k full", MPT_30B, 2048, 4, 1, "a100-40gb", 32, ROCE, 857, **FULL, **PURE),
    Run(1, "MPT-30B 2k full", MPT_30B, 2048, 6, 1, "a100-40gb", 128, ROCE, 865, **FULL, **PURE),
    Run(1, "MPT-70B 2k full", MPT_70B, 2048, 2, 1, "a100-40gb", 64, ROCE, 276, **FULL, **PURE),
    Run(1, "MPT-70B 2k full", MPT_70B, 2048, 4, 1, "a100-40gb", 128, ROCE, 376, **FULL, **PURE),
    Run(2, "Llama2-34B full", LLAMA2_34B, 4096, 2, 1, "a100-80gb", 128, EFA, 700, **FULL, **PURE),
    Run(2, "Llama2-70B full", LLAMA2_70B, 4096, 2, 1, "a100-80gb", 128, EFA, 370, **FULL, **PURE),
    Run(3, "Llama2-7B HSDP", LLAMA2_7B, 4096, 2, 1, "a100-80gb", 128, EFA, 3760, **PURE, shard_size=8),
    Run(3, "Llama2-13B HSDP", LLAMA2_13B, 4096, 1, 1, "a100-80gb", 128, EFA, 1700, **PURE, shard_size=8),
    Run(3, "Llama2-34B full", LLAMA2_34B, 4096, 8, 1, "a100-80gb", 128, EFA, 772, **FULL, **PURE),
    Run(3, "Llama2-70B full", LLAMA2_70B, 4096, 6, 1, "a100-80gb", 128, EFA, 380, **FULL, **PURE),
    Run(
        6, "Llama2-7B compile", LLAMA2_7B, 4096, 2, 1, "a100-80gb", 128, EFA, 4414, **PURE, shard_size=8, compiled=True
    ),
    Run(6, "Llama2-34B compile", LLAMA2_34B, 4096, 2, 1, "a100-80gb", 128, EFA, 804, **FULL, **PURE, compiled=True),
    Run(6, "Llama2-70B compile", LLAMA2_70B, 4096, 2, 1, "a100-80gb", 128, EFA, 407, **FULL, **PURE, compiled=True),
    Run(4, "Llama2-13B layers", LLAMA2_13B, 4096, 2, 1, "a100-80gb", 64, ROCE, 1914, **LAYERS),
    Run(4, "Llama2-13B select", LLAMA2_13B, 4096, 2, 1, "a100-80gb", 64, ROCE, 1904, **OPERATORS),
    Run(4, "Llama2-70B full", LLAMA2_70B, 4096, 2, 1, "a100-80gb", 64, ROCE, 353, **FULL),
    Run(4, "Llama2-70B select", LLAMA2_70B, 4096, 1, 1, "a100-80gb", 64, ROCE, 355, **OPERATORS),
    Run(4, "Llama3-8B layers", LLAMA3_8B, 8192, 1, 1, "a100-80gb", 64, ROCE, 2904, **LAYERS),
    Run(4, "Llama3-70B full", LLAMA3_70B, 8192, 1, 1, "a100-80gb", 64, ROCE, 331, **FULL),
    Run(7, "TinyLlama fused", TINY_LLAMA, 2048, 8, 8, "a100-40gb", 16, ROCE, 24000, compiled=True),
    Run(1, "MPT-1B 2k", MPT_1B, 2048, 14, 1, "h100-80gb", 8, 0, 45455),
    Run(1, "MPT-1B 2k", MPT_1B, 2048, 20, 1, "h100-80gb", 16, IB, 46037),
    Run(1, "MPT-1B 2k", MPT_1B, 2048, 20, 1, "h100-80gb", 32, IB, 45130),
    Run(1, "MPT-1B 2k", MPT_1B, 2048, 20, 1, "h100-80gb", 64, IB, 44402),
    Run(1, "MPT-3B 8k", MPT_3B, 8192, 3, 6, "h100-80gb", 8, 0, 16578),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 10, 1, "h100-80gb", 16, IB, 24142),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 6, 1, "h100-80gb", 32, IB, 23021),
    Run(1, "MPT-3B 2k", MPT_3B, 2048, 6, 3, "h100-80gb", 64, IB, 22525),
    Run(1, "MPT-7B 1k full", MPT_7B, 1024, 64, 2, "h100-80gb", 8, 0, 10203, **FULL),
    Run(1, "MPT-7B 4k full", MPT_7B, 4096, 16, 2, "h100-80gb", 8, 0, 8611, **FULL),
    Run(1, "MPT-7B 32k full", MPT_7B, 32768, 2, 2, "h100-80gb", 8, 0, 3318, **FULL),
    Run(1, "MPT-13B 2k", MPT_13B, 2048, 2, 1, "h100-80gb", 8, 0, 4792),
    Run(1, "MPT-13B 2k", MPT_13B, 2048, 2, 1, "h100-80gb", 16, IB, 4767),
    Run(1, "MPT-13B 2k", MPT_13B, 2048, 2, 1, "h100-80gb", 32, IB, 4811),
    Run(1, "MPT-13B 4k full", MPT_13B, 4096, 10, 3, "h100-80gb", 8, 0, 4717, **FULL),
    Run(1, "MPT-30B 8k full", MPT_30B, 8192, 1, 21, "h100-80gb", 8, 0, 1384, **FULL),
    Run(1, "MPT-30B 2k full", MPT_30B, 2048, 3, 21, "h100-80gb", 8, 0, 2002, **FULL),
    Run(1, "MPT-30B 2k full", MPT_30B, 2048, 10, 1, "h100-80gb", 16, IB, 2263, **FULL),
    Run(1, "MPT-30B 2k full", MPT_30B, 2048, 14, 3, "h100-80gb", 32, IB, 2308, **FULL),
    Run(1, "MPT-70B 2k full", MPT_70B, 2048, 2, 16, "h100-80gb", 32, IB, 882, **FULL),
    Run(1, "MPT-70B 2k full", MPT_70B, 2048, 8, 4, "h100-80gb", 64, IB, 1039, **FULL),
    Run(2, "Llama2-7B HSDP", LLAMA2_7B, 4096, 2, 1, "h100-80gb", 96, 100e9, 7500, **PURE, shard_size=8),
    Run(2, "Llama2-70B full", LLAMA2_70B, 4096, 2, 1, "h100-80gb", 96, 100e9, 800, **FULL, **PURE),
    Run(6, "Llama2-7B compile", LLAMA2_7B, 4096, 2, 1, "h100-80gb", 464, IB, 9122, **PURE, shard_size=8, compiled=True),
    Run(6, "Llama2-70B compile", LLAMA2_70B, 4096, 2, 1, "h100-80gb", 464, IB, 894, **FULL, **PURE, compiled=True),
    Run(5, "Llama3-8B select", LLAMA3_8B, 8192, 2, 1, "h100-96gb", 128, IB, 5605, **OPERATORS),
    Run(5, "Llama3-8B compile", LLAMA3_8B, 8192, 2, 1, "h100-96gb", 128, IB, 6514, **OPERATORS, compiled=True),
)
