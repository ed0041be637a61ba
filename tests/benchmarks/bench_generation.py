"""Greedy decoding against transformers' `generate` and CTranslate2: the same weights, turn by turn in one run.

Each has a process of its own: the threads of one slow down what else runs in its process.

Models of 6 × 512 (42 M parameters) and 12 × 768 (111 M), V = 49152, complete random prompts of 32 tokens. Three tables:

* tokens per second: medians over the rounds, and the median ratio of our rate to the better of the others;
* peak memory of a process that loads the model and decodes 32 rows, above what it had after its imports;
* a step at 128 to 4096 tokens of context with one key/value head and with one for each head (transformers' GPTBigCode
  with `multi_query` on and off), and the bytes that a token takes in the cache.

On a GPU, a preset in bf16, and the share of the memory's bandwidth that reading the weights once a step makes.

Run by `make bench`, or `python -m tests.benchmarks.bench_generation [--rounds N] [--new-tokens N] [--batch-sizes N …]
[--sizes S M] [--only speed memory heads]`, or `… --device cuda --preset starcoderbase-1b`.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, get_args

import torch
from transformers import DynamicCache, GPTBigCodeConfig, GPTBigCodeForCausalLM

from starcoder import tokenizer as tokenizers
from starcoder.batch import Batch
from starcoder.cache import KVCache
from starcoder.decoding import Decoding
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.quantization import impossible
from starcoder.release.folder import save, to_transformers
from starcoder.sampling import Sampling
from starcoder.tokenizer import EOD

SIZES = {
    "S": StarCoderConfig(context_length=4224, n_layer=6, n_head=8, n_embd=512, dropout=0.0),
    "M": StarCoderConfig(context_length=4224, n_layer=12, n_head=12, n_embd=768, dropout=0.0),
}
PROMPT = 32
CONTEXTS = (128, 1024, 4096)
BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12}
TIE = 1e-3
PAUSE = 0.5  # seconds, until the threads of the one before have ceased to spin
CTRANSLATE2 = find_spec("ctranslate2") is not None
EIGHTHS = [*["CTranslate2 int8"] * CTRANSLATE2, *["here int8"] * (impossible() is None)]
Rows = list[list[int]]
Contender = Callable[[Rows, int], Rows]
"""Completes prompts by so many tokens each."""
Step = Callable[[], float]
"""Computes one token of each sequence, and says how many bytes of cache a token takes."""


def model_of(config: StarCoderConfig, device: str = "cpu", dtype: torch.dtype = torch.float32) -> StarCoder:
    """Random weights that never write `<|endoftext|>`."""
    model = StarCoder(config, seed=1).eval().to(device, dtype)
    with torch.no_grad():
        model.transformer.wte.weight[EOD] = 0.0  # its logit is 0, never the highest
    return model


def prompts_of(config: StarCoderConfig, batch_size: int) -> Rows:
    generator = torch.Generator().manual_seed(0)
    prompts: Rows = torch.randint(1, config.vocab_size, (batch_size, PROMPT), generator=generator).tolist()
    return prompts


def here(model: StarCoder, decoding: Decoding = "eager") -> Contender:
    batches: dict[int, Batch] = {}  # kept, as a server keeps its own

    def complete(prompts: Rows, n: int) -> Rows:
        batch = batches.setdefault(len(prompts), Batch(model, len(prompts), decoding=decoding))
        rows: dict[int, list[int]] = {batch.add(prompt, Sampling(n)): [] for prompt in prompts}
        while batch:
            for growth in batch.step():
                rows[growth.handle].append(EOD if growth.token is None else growth.token)
        return list(rows.values())

    return complete


def transformers_of(model: StarCoder) -> Contender:
    weight = model.transformer.wte.weight
    theirs = GPTBigCodeForCausalLM(GPTBigCodeConfig(**to_transformers(model.config))).eval()
    theirs = theirs.to(weight.device, weight.dtype)
    theirs.load_state_dict(model.state_dict(), strict=False)
    return generating(theirs)


def generating(theirs: Any) -> Contender:
    def complete(prompts: Rows, n: int) -> Rows:
        tokens = torch.tensor(prompts, device=theirs.device)
        options = {"max_new_tokens": n, "min_new_tokens": n, "do_sample": False, "pad_token_id": EOD}
        rows: Rows = theirs.generate(tokens, attention_mask=torch.ones_like(tokens), **options)[:, PROMPT:].tolist()
        return rows

    return complete


@contextmanager
def converted(model: StarCoder) -> Iterator[Path]:
    """A folder with the model for transformers in `hf`, and for CTranslate2, where it is installed, in `ct2`."""
    with tempfile.TemporaryDirectory() as folder:
        save(model, Path(folder) / "hf", tokenizers.train(["def f(a):\n    return a\n"], vocab_size=280))
        if CTRANSLATE2:
            from ctranslate2.converters import TransformersConverter

            TransformersConverter(str(Path(folder) / "hf")).convert(str(Path(folder) / "ct2"))
        yield Path(folder)


def ctranslate2_of(folder: Path, compute_type: str = "float32") -> Contender:
    import ctranslate2

    generator = ctranslate2.Generator(
        str(folder), device="cpu", compute_type=compute_type, intra_threads=torch.get_num_threads(), inter_threads=1
    )
    names = json.loads((folder / "vocabulary.json").read_text())

    def complete(prompts: Rows, n: int) -> Rows:
        tokens = [[names[token] for token in prompt] for prompt in prompts]
        options = {"max_length": n, "min_length": n, "sampling_topk": 1, "include_prompt_in_result": False}
        return [result.sequences_ids[0] for result in generator.generate_batch(tokens, **options)]

    return complete


def ties(model: StarCoder, prompts: Rows, ours: Rows, theirs: Rows) -> int:
    """Number of rows that part ways at a tie; any other difference is an error."""
    parted = [(prompt, a, b) for prompt, a, b in zip(prompts, ours, theirs, strict=True) if a != b]
    for prompt, a, b in parted:
        first = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + a[:first]]))[0, -1]
        gap = abs(logits[a[first]] - logits[b[first]]).item()
        assert gap < TIE, f"token {first} differs although its logits are {gap} apart"
    return len(parted)


def rates(
    contenders: dict[str, Contender], prompts: Rows, n: int, rounds: int
) -> tuple[dict[str, list[float]], dict[str, Rows]]:
    """Tokens per second of each contender in each round, and what it wrote at last."""
    per_second: dict[str, list[float]] = {name: [] for name in contenders}
    written: dict[str, Rows] = {}
    for turn in range(rounds + 1):
        for name, complete in contenders.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            written[name] = complete(prompts, n if turn else 4)
            if turn:
                per_second[name].append(len(prompts) * n / (time.perf_counter() - start))
    return per_second, written


def contender(name: str, folder: Path) -> Contender:
    """One of those in the tables, given the folder that `converted` made."""
    engine, _, kind = name.partition(" ")
    if engine == "CTranslate2":
        return ctranslate2_of(folder / "ct2", kind or "float32")
    dtype = {"": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[kind]
    if engine == "transformers":
        return generating(GPTBigCodeForCausalLM.from_pretrained(folder / "hf", dtype=dtype).eval())
    return here(StarCoder.from_pretrained(folder / "hf", dtype).eval())


class Alone:
    """A contender in a process of its own: one whose threads have run slows down the others of its process."""

    def __init__(self, name: str, folder: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        context.Process(target=answer, args=(name, folder, theirs), daemon=True).start()

    def __call__(self, prompts: Rows, n: int) -> Rows:
        self.pipe.send((prompts, n))
        rows: Rows = self.pipe.recv()
        return rows


def answer(name: str, folder: Path, pipe: Connection) -> None:
    """Complete what comes through the pipe, until the parent ends."""
    complete = contender(name, folder)
    while True:
        pipe.send(complete(*pipe.recv()))


def speed(size: str, batch_sizes: list[int], new_tokens: int, rounds: int) -> None:
    model = model_of(SIZES[size])
    others = ["transformers", *["CTranslate2"] * CTRANSLATE2]
    names = [*others, "here", "transformers bf16", "here bf16", *EIGHTHS]
    with converted(model) as folder:
        contenders: dict[str, Contender] = {name: Alone(name, folder) for name in names}
        for batch_size in batch_sizes:
            prompts = prompts_of(model.config, batch_size)
            per_second, written = rates(contenders, prompts, new_tokens, rounds)
            better = [max(values) for values in zip(*(per_second[name] for name in others), strict=True)]
            parted = [ties(model, prompts, written["here"], written[name]) for name in others]
            medians = "   ".join(f"{name} {statistics.median(values):.1f}" for name, values in per_second.items())
            print(
                f"{size} batch {batch_size:>3}   tok/s: {medians}   here / better {ratio(per_second['here'], better)}"
                f"   bf16 {ratio(per_second['here bf16'], per_second['transformers bf16'])}"
                f"   int8 {ratio(*(per_second[name] for name in EIGHTHS[::-1])) if len(EIGHTHS) == 2 else '-'}"
                f"   ties {parted}",
                flush=True,
            )


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Median and range over the rounds."""
    values = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return f"{statistics.median(values):.2f} ({values[0]:.2f}-{values[-1]:.2f})"


def resident(field: str) -> float:
    """MB of this process: `VmRSS` now, `VmHWM` at most so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1e3


def memory_worker(name: str, folder: Path) -> None:
    """Print MB that a loaded model and decoding 32 rows by 64 tokens take, as `memory` starts it."""
    if name.startswith("CTranslate2"):
        import ctranslate2  # noqa: F401
    before = resident("VmRSS")
    complete = contender(name, folder)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of loading
    complete(prompts_of(SIZES["S"], 32), 64)
    print(resident("VmHWM") - before)


def memory(size: str) -> None:
    model = model_of(SIZES[size])
    names = ["transformers", *["CTranslate2"] * CTRANSLATE2, "here", "here bf16", *EIGHTHS]
    command = [sys.executable, "-m", "tests.benchmarks.bench_generation", "--memory-worker"]
    with converted(model) as folder:
        runs = [subprocess.run([*command, name, folder], check=True, capture_output=True, text=True) for name in names]
    megabytes = [f"{name} {float(run.stdout.split()[-1]):.0f}" for name, run in zip(names, runs, strict=True)]
    weights = sum(parameter.nbytes for parameter in model.parameters()) / 1e6
    print(f"{size} MB while 32 rows decode: {'   '.join(megabytes)}   (weights in fp32: {weights:.0f})", flush=True)


def one_head_or_each(config: StarCoderConfig, multi_query: bool, batch_size: int, context: int) -> Step:
    """A step of transformers' model, whose cache is full of random keys and values."""
    options = to_transformers(config) | {"multi_query": multi_query}
    model = GPTBigCodeForCausalLM(GPTBigCodeConfig(**options)).eval()
    cache, tokens = DynamicCache(), torch.ones(batch_size, 1, dtype=torch.long)
    for layer in range(config.n_layer):
        heads = 1 if multi_query else config.n_head
        cache.update(*torch.randn(2, batch_size, heads, context, config.head_size), layer)

    def step() -> float:
        model(tokens, past_key_values=cache, use_cache=True)
        layers = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return sum(tensor.nbytes for tensor in layers) / batch_size / layers[0].size(2)

    return step


def own_head(config: StarCoderConfig, batch_size: int, context: int, steps: int) -> Step:
    """A step of our model, likewise."""
    model = model_of(config)
    tokens = torch.ones(batch_size, 1, dtype=torch.long)
    cache = KVCache(config, 0, 0, tokens.device)
    cache.reserve(batch_size, context + steps)
    for _ in range(batch_size):
        cache.join(torch.randn(config.n_layer, context, 2 * config.head_size))

    def step() -> float:
        model.next_logits(tokens, cache)
        return cache.bytes / batch_size / (context + steps)

    return step


def heads(size: str, batch_size: int, rounds: int) -> None:
    """Compare the steps of the three."""
    config = SIZES[size]
    for context in CONTEXTS:
        steps = {
            "MHA": one_head_or_each(config, False, batch_size, context),
            "MQA": one_head_or_each(config, True, batch_size, context),
            "here": own_head(config, batch_size, context, rounds + 1),
        }
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        bytes_a_token: dict[str, float] = {}
        with torch.inference_mode():
            for _ in range(rounds + 1):
                for name, step in steps.items():
                    start = time.perf_counter()
                    bytes_a_token[name] = step()
                    seconds[name].append(time.perf_counter() - start)
        mha, mqa, ours = (statistics.median(values[1:]) for values in seconds.values())
        print(
            f"{size} batch {batch_size} context {context:>5}   ms a step: MHA {mha * 1e3:.1f}   MQA {mqa * 1e3:.1f}   "
            f"here {ours * 1e3:.1f}   MHA / MQA {mha / mqa:.2f}   MHA / here {mha / ours:.2f}   cache bytes a token: "
            + "   ".join(f"{name} {number:.0f}" for name, number in bytes_a_token.items())
            + f"   (2·D·L·4 = {2 * config.head_size * config.n_layer * 4})",
            flush=True,
        )


def preset(name: str, device: str, batch_sizes: list[int], new_tokens: int, rounds: int) -> None:
    """Rates of a preset in bf16, and the share of the bandwidth at which its weights are read."""
    config = StarCoderConfig.preset(name, dropout=0.0)
    model = model_of(config, device, torch.bfloat16)
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    bandwidth = next((value for key, value in BANDWIDTH.items() if key in card), None)
    read = sum(p.nbytes for p in model.parameters()) - model.transformer.wpe.weight.nbytes  # bytes a step
    limit = f"limit {bandwidth / 1e12:.2f} TB/s" if bandwidth else "its bandwidth is not known here"
    print(f"{name} in bf16 on {card}: {read / 1e9:.2f} GB a step, {limit}")
    for batch_size in batch_sizes:
        prompts = prompts_of(config, batch_size)
        contenders = {"transformers": transformers_of(model)}
        contenders |= {f"here {way}": here(model, way) for way in get_args(Decoding) if way != "auto"}
        for complete in contenders.values():
            complete(prompts, new_tokens)  # compiles and captures all that the timed rounds need
        for label, values in rates(contenders, prompts, new_tokens, rounds)[0].items():
            rate = statistics.median(values)
            share = f"   {rate / batch_size * read / bandwidth:6.1%} of the limit" if bandwidth else ""
            print(f"batch {batch_size:>3}   {label:<14} {rate:9.1f} tok/s{share}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--preset", help="a preset in bf16 instead of the three tables")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=("speed", "memory", "heads"), default=["speed", "memory", "heads"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--batch-sizes", type=int, nargs="+")
    parser.add_argument("--memory-worker", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_worker:
        memory_worker(arguments.memory_worker[0], Path(arguments.memory_worker[1]))
    elif arguments.preset or arguments.device == "cuda":
        name, sizes = arguments.preset or "starcoderbase-1b", arguments.batch_sizes or [1, 8, 64]
        preset(name, arguments.device, sizes, arguments.new_tokens, arguments.rounds)
    else:
        tables(arguments)


def tables(arguments: argparse.Namespace) -> None:
    print(f"greedy decoding, {arguments.new_tokens} new tokens, {torch.get_num_threads()} threads")
    if not CTRANSLATE2:
        print("CTranslate2 is not installed: left out")
    for size in arguments.sizes:
        if "speed" in arguments.only:
            speed(size, arguments.batch_sizes or [1, 8, 32], arguments.new_tokens, arguments.rounds)
        if "memory" in arguments.only:
            memory(size)
        if "heads" in arguments.only:
            for batch_size in (1, 8):
                heads(size, batch_size, 4 * arguments.rounds)


if __name__ == "__main__":
    main()
