"""StarCoder on one GPU: training steps beside what the planner says of them, attention kernels, greedy decoding.

A step is one of `ShardedStrategy` under Lightning's Trainer, on random tokens, computing in bf16: tokens/s and MFU over
the last steps, the peak of allocated memory, and how far `starcoder plan` is off. Attention is that of the model (one
key and value head), causal, forward and backward, by each kernel that is there, with its error against fp32. Decoding
is greedy, in bf16, against transformers' `generate` on the same weights. A row that fails tells why, and the others go
on. Where there is no CUDA device it says so and is done. Run by `make bench`, or
`python -m tests.benchmarks.bench_gpu [--parts training attention decoding] [--steps N] [--plan FILE] [--small]`;
`--plan` keeps the predictions in FILE, which needs no GPU, and reads them from there.
"""

import argparse
import contextlib
import gc
import json
import logging
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from starcoder.generation import generate_tokens
from starcoder.model import StarCoder, StarCoderConfig, causal_attention
from starcoder.sampling import Sampling
from starcoder.tokenizer import EOD
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy
from starcoder.training.planner.estimate import Cluster
from starcoder.training.planner.hardware import GPUS, peak_of_device
from starcoder.training.planner.job import Job
from starcoder.training.planner.layouts import compare
from starcoder.training.planner.trace import Layout
from starcoder.training.progress import QuietCollector

KERNELS = ("", "flash", "cuDNN", "FA4")
WARM_UP = 4  # steps before those that count: compilation, the allocator, the optimizer's states
PROMPT, NEW = 128, 128
GIB = 2**30


@dataclass(frozen=True)
class Row:
    """One layout of a training step."""

    preset: str
    length: int
    micro_batch: int
    checkpointing: Any = "none"
    compiled: bool = False
    dropout: float = 0.1  # as the recipes have it
    kernel: str = ""  # of attention; the strategy's choice when not given

    @property
    def config(self) -> StarCoderConfig:
        return StarCoderConfig.preset(self.preset, dropout=self.dropout)

    @property
    def layout(self) -> Layout:
        return Layout(1, 1, self.checkpointing, self.micro_batch, compile_blocks=self.compiled)

    def __str__(self) -> str:
        options = [f"keeps {'all' if self.checkpointing == 'none' else self.checkpointing}"]
        options += ["compiled"] if self.compiled else []
        options += [] if self.dropout else ["no dropout"]
        options += [self.kernel] if self.kernel else []
        name = self.preset.removeprefix("starcoderbase-").upper()
        return f"{name} {self.micro_batch} x {self.length}, {', '.join(options)}"


_SHORT = Row("starcoderbase-1b", 2048, 8)
_LONG = Row("starcoderbase-1b", 8192, 2)
ROWS = (
    _SHORT,
    replace(_SHORT, compiled=True),
    _LONG,
    replace(_LONG, compiled=True),
    replace(_LONG, checkpointing="selective", compiled=True),
    replace(_LONG, checkpointing="selective"),
    replace(_LONG, checkpointing="full"),
    replace(_LONG, checkpointing="full", compiled=True, micro_batch=8),
    replace(_LONG, compiled=True, dropout=0.0),
    replace(_LONG, compiled=True, dropout=0.0, kernel="FA4"),
    Row("starcoderbase-3b", 8192, 1, "selective", compiled=True),
    Row("starcoderbase-3b", 2048, 4, "full"),
)
SMALL_ROWS = (Row("smoke", 256, 2), Row("smoke", 256, 2, "full", dropout=0.0), Row("smoke", 256, 2, kernel="FA4"))


@torch.no_grad()
def draw_weights(model: nn.Module, std: float) -> None:
    """Random weights, drawn where they are: `StarCoder.init_weights` draws on the CPU, a minute for a few billions."""
    for name, parameter in model.named_parameters():
        local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if local.ndim > 1:
            local.normal_(0.0, std)
        else:
            local.fill_(float("ln_" in name and name.endswith("weight")))


class QuickModule(StarCoderModule):
    """Drawn on the device."""

    def init_weights(self) -> None:
        assert self.model is not None
        draw_weights(self.model, self.config.std)


class Strategy(ShardedStrategy):
    """Drops model and optimizer in the end: to move them to the CPU takes longer than these steps."""

    def teardown(self) -> None:
        self.saver.wait()
        for optimizer in self.optimizers:
            optimizer.state.clear()
            optimizer.param_groups.clear()
        self.module.model = None


class Clock(Callback):
    """Seconds of a step after the first `WARM_UP`, and bytes of tensors at their peak and of the device in all."""

    allocated = taken = 0

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == WARM_UP:
            synchronize()
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            self.start = time.perf_counter()
        elif trainer.global_step == trainer.max_steps:
            synchronize()
            self.seconds = (time.perf_counter() - self.start) / (trainer.max_steps - WARM_UP)
            self.loss = float(trainer.callback_metrics["train_loss"])
            if torch.cuda.is_available():
                free, total = torch.cuda.mem_get_info()
                self.allocated, self.taken = torch.cuda.max_memory_allocated(), total - free


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def available(kernels: Sequence[str]) -> list[str]:
    """Those that are installed; it says which is not."""
    if "FA4" in kernels and not (find_spec("flash_attn") and find_spec("flash_attn.cute")):
        print("FA4: flash-attn-4 is not installed")
        return [name for name in kernels if name != "FA4"]
    return list(kernels)


@contextlib.contextmanager
def kernel(name: str) -> Iterator[None]:
    """Attention by this kernel: flash (PyTorch's flash attention 2), cuDNN or FA4 (flash-attn-4)."""
    if name == "FA4":
        torch.nn.attention.activate_flash_attention_impl("FA4")
    backend = {"": None, "cuDNN": SDPBackend.CUDNN_ATTENTION}.get(name, SDPBackend.FLASH_ATTENTION)
    try:
        with sdpa_kernel([backend]) if backend else contextlib.nullcontext():
            yield
    finally:
        if name == "FA4":
            torch.nn.attention.restore_flash_attention_impl()


@contextlib.contextmanager
def told_if_it_fails(row: object) -> Iterator[None]:
    """A row's error in its place, and an empty device after it."""
    try:
        yield
    except Exception as error:  # whatever it is, the other rows go on
        traceback.print_exc()
        print(f"{row!s:<52} failed: {type(error).__name__}: {str(error).strip().splitlines()[:1]}", flush=True)
    finally:
        torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def trained(row: Row, steps: int) -> Clock:
    """Train a few steps as `starcoder fit` does."""
    tokens = torch.randint(row.config.vocab_size, (row.micro_batch, row.length + 1), dtype=torch.long)
    clock = Clock()
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        strategy=Strategy(param_dtype="auto", checkpointing=row.checkpointing, compile_blocks=row.compiled),
        max_steps=WARM_UP + steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock, QuietCollector()],
    )
    batches: Any = [tokens] * (WARM_UP + steps)  # (B, T+1) each
    with kernel(row.kernel):
        module = QuickModule(preset=row.preset, overrides={"dropout": row.dropout}, warmup_steps=1)
        trainer.fit(module, DataLoader(batches, batch_size=None, pin_memory=torch.cuda.is_available()))
    return clock


def predictions(rows: Sequence[Row], gpu: str) -> dict[str, dict[str, float]]:
    """What `starcoder plan` says of each row: bytes at the peak, bytes that the GPU must have, and tokens/s."""
    found = {}
    for shape in {(row.config, row.length) for row in rows}:
        same = [row for row in rows if (row.config, row.length) == shape]
        for micro_batch in {row.micro_batch for row in same}:
            alike = {row.layout: row for row in same if row.micro_batch == micro_batch}
            job = Job(same[0].preset, *shape, micro_batch, 1, 1, 1, None)
            cluster = Cluster(GPUS[gpu], 1, 1, GPUS[gpu].node_network)
            for plan in compare(job, cluster, list(alike)):
                told = {"peak": plan.peak.total(), "needed": plan.needed, "tokens_per_second": plan.tokens_per_second}
                found |= {str(row): told for row in same if row.layout == plan.layout}
    return found


def bench_training(rows: Sequence[Row], steps: int, planned: dict[str, dict[str, float]]) -> None:
    print(
        f"\n{'training step':<52}{'tok/s':>8}{'MFU':>7}{'planned':>9}{'':>7}  {'allocated':>9}{'planned':>9}{'':>7}"
        f"{'of device':>11}{'planned':>9}   loss"
    )
    kernels = available([row.kernel for row in rows])
    for row in rows:
        if row.kernel not in kernels:
            continue
        with told_if_it_fails(row):
            clock = trained(row, steps)
            print(_training_line(row, clock, planned.get(str(row))), flush=True)


def _training_line(row: Row, clock: Clock, planned: dict[str, float] | None) -> str:
    rate = row.micro_batch * row.length / clock.seconds
    peak = peak_of_device(torch.device("cuda")) if torch.cuda.is_available() else None
    mfu = f"{rate * row.config.flops_per_token(row.length) / peak:7.1%}" if peak else f"{'':7}"
    speed = memory = f"{'':16}"
    needed = f"{'':9}"
    if planned and clock.allocated:
        speed = f"{planned['tokens_per_second']:9,.0f}{planned['tokens_per_second'] / rate - 1:+7.1%}"
        memory = f"{planned['peak'] / GIB:9.2f}{planned['peak'] / clock.allocated - 1:+7.1%}"
        needed = f"{planned['needed'] / GIB:9.2f}"
    return (
        f"{row!s:<52}{rate:8,.0f}{mfu}{speed}  {clock.allocated / GIB:9.2f}{memory}"
        f"{clock.taken / GIB:11.2f}{needed}   {clock.loss:.3f}"
    )


def seconds(function: Callable[[], object], repeats: int = 10) -> float:
    """Median time of a call on the device."""
    for _ in range(3):
        function()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start, end in events:
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events) / 1e3


def heads(batch: int, n_head: int, length: int, size: int = 128) -> list[Tensor]:
    """Query, key, value and the gradient of the output, as the model's views of its products are laid out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    joint = torch.randn(batch, length, (n_head + 2) * size, device=device, dtype=torch.bfloat16)
    q, k, v = joint.split((n_head * size, size, size), dim=-1)
    grad = torch.randn(batch, length, n_head * size, device=device, dtype=torch.bfloat16)
    q, grad = (x.unflatten(-1, (n_head, size)).transpose(1, 2) for x in (q, grad))
    return [q.detach().requires_grad_(), *(x.detach().unsqueeze(1).requires_grad_() for x in (k, v)), grad]


def attention_errors(name: str) -> list[float]:
    """Relative error of output and gradients against fp32 on repeated keys and values."""
    torch.manual_seed(0)
    *inputs, grad = heads(2, 16, 1000)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    q, k, v = (x.expand_as(exact[0]) for x in exact)
    scores = (q @ k.transpose(2, 3)) / q.size(3) ** 0.5
    future = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu(1)
    expected = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
    with kernel(name):
        out = causal_attention(*inputs)
        pairs = [(out, expected)]
        found, right = torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, exact, grad.float())
    pairs += list(zip(found, right, strict=True))
    return [((a.float() - b).norm() / b.norm()).item() for a, b in pairs]


def bench_attention(shapes: Sequence[tuple[int, int]]) -> None:
    title = "causal attention, 16 heads of 128, one key/value"
    print(f"\n{title:<52}{'forward':>20}{'forward + backward':>24}   errors: out, dq, dk, dv")
    for name in available(KERNELS):
        with told_if_it_fails(name):
            errors = " ".join(f"{error:.4f}" for error in attention_errors(name))
            print(f"{name or 'as chosen':<52}{'':44}   {errors}", flush=True)
        for batch, length in shapes:
            for dropout in (0.0, 0.1):
                if dropout and name == "FA4":
                    continue  # it has none
                label = f"{name or 'as chosen'}, {batch} x {length}, dropout {dropout}"
                with told_if_it_fails(label), kernel(name):
                    print(_attention_line(label, batch, length, dropout), flush=True)


def _attention_line(label: str, batch: int, length: int, dropout: float) -> str:
    *inputs, grad = heads(batch, 16, length)
    flops = 4 * batch * 16 * length**2 * 128 / 2
    forward = seconds(lambda: causal_attention(*inputs, dropout=dropout))
    both = seconds(lambda: torch.autograd.grad(causal_attention(*inputs, dropout=dropout), inputs, grad))
    return (
        f"{label:<52}{1e3 * forward:6.2f} ms {flops / forward / 1e12:4.0f} TFLOP/s"
        f"{1e3 * both:8.2f} ms {3.5 * flops / both / 1e12:4.0f} TFLOP/s"
    )


def decoders(config: StarCoderConfig) -> dict[str, Callable[[Tensor, int], list[list[int]]]]:
    """Our model and transformers' with the same weights, neither of which ever writes `<|endoftext|>`."""
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

    from starcoder.release.folder import to_transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device("meta"):
        ours = StarCoder(config)
        theirs = GPTBigCodeForCausalLM(GPTBigCodeConfig(**to_transformers(config))).to(torch.bfloat16).eval()
    ours = ours.to(torch.bfloat16).to_empty(device=device).eval()
    draw_weights(ours, config.std)
    with torch.no_grad():
        ours.transformer.wte.weight[EOD] = 0.0  # its logit is 0, never the highest
    theirs.load_state_dict(ours.state_dict(), strict=False, assign=True)
    theirs.tie_weights()
    options = {"do_sample": False, "pad_token_id": EOD}

    def run_theirs(prompts: Tensor, n: int) -> list[list[int]]:
        mask = torch.ones_like(prompts)
        with torch.inference_mode():
            out = theirs.generate(prompts, attention_mask=mask, max_new_tokens=n, **options)
        return out[:, prompts.size(1) :].tolist()

    def run_ours(prompts: Tensor, n: int) -> list[list[int]]:
        return generate_tokens(ours, prompts.tolist(), Sampling(max_new_tokens=n, batch_size=len(prompts)))

    return {"here": run_ours, "transformers": run_theirs}


def bench_decoding(config: StarCoderConfig, batch_sizes: Sequence[int]) -> None:
    print(f"\ngreedy decoding, {NEW} tokens after {PROMPT}, {config.n_params / 1e9:.2f}B parameters, bf16, in tok/s")
    with told_if_it_fails("decoding"):
        sides = decoders(config)
        for batch_size in batch_sizes:
            with told_if_it_fails(f"batch {batch_size}"):
                print(_decoding_line(config, sides, batch_size), flush=True)


def _decoding_line(config: StarCoderConfig, sides: dict[str, Any], batch_size: int) -> str:
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(1, config.vocab_size, (batch_size, PROMPT), generator=generator)
    prompts = prompts.cuda() if torch.cuda.is_available() else prompts
    line, told = f"batch {batch_size:>3}", {}
    for name, run in sides.items():
        try:
            run(prompts, 8)
            times = []
            for _ in range(3):
                synchronize()
                start = time.perf_counter()
                told[name] = run(prompts, NEW)
                times.append(time.perf_counter() - start)
            line += f"   {name} {batch_size * NEW / statistics.median(times):9,.0f}"
        except Exception as error:  # the other side goes on
            traceback.print_exc()
            line += f"   {name} failed: {type(error).__name__}"
    if len(told) == len(sides):
        first, second = told.values()
        equal = sum(a == b for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
        line += f"   {equal / (batch_size * NEW):.0%} of the tokens equal"
    return line


def read_plan(path: Path | None, rows: Sequence[Row], gpu: str | None) -> dict[str, dict[str, float]]:
    """The predictions for these rows, from the file or made now."""
    if path and path.is_file():
        return dict(json.loads(path.read_text()))
    found = predictions(rows, gpu) if gpu else {}
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def gpu_in_table() -> str | None:
    """The planner's name of the device."""
    name = torch.cuda.get_device_name()
    return next((key for key, gpu in GPUS.items() if gpu.name in name), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("training", "attention", "decoding"), default=None)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--plan", type=Path)
    parser.add_argument("--small", action="store_true", help="tiny shapes, on a CPU too: does all of this run?")
    arguments = parser.parse_args()
    rows = SMALL_ROWS if arguments.small else ROWS
    there = torch.cuda.is_available()
    if not there and not arguments.small:
        print("skipped: there is no CUDA device")
        if arguments.plan:
            read_plan(arguments.plan, rows, "h100-80gb")
        return
    warnings.filterwarnings("ignore", module="lightning")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    parts = arguments.parts or ("training", "attention", "decoding")
    device = torch.cuda.get_device_name() if there else "CPU"
    print(f"{device}, torch {torch.__version__}", flush=True)
    if "training" in parts:
        planned = read_plan(arguments.plan, rows, gpu_in_table() if there else "h100-80gb")
        bench_training(rows, arguments.steps, planned)
    if "attention" in parts and there:
        bench_attention(((2, 128),) if arguments.small else ((2, 8192), (8, 2048)))
    if "decoding" in parts:
        preset, sizes = ("smoke", (1, 2)) if arguments.small else ("starcoderbase-1b", (1, 8, 64))
        bench_decoding(StarCoderConfig.preset(preset, dropout=0.0), sizes)


if __name__ == "__main__":
    main()
