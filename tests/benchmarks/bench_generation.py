"""Greedy decoding with a cache against transformers' `generate`: the same weights, the same tokens, turn by turn.

A model of 6 × 512 (42 M parameters, V = 49152, fp32) completes random prompts of 32 tokens. Ratio: median over the
rounds of their time divided by ours. Run by `make bench`, or
`python tests/benchmarks/bench_generation.py [--rounds N] [--new-tokens N] [--batch-sizes N …]`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from starcoder.generation import Sampling, generate_tokens
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.folder import to_transformers
from starcoder.tokenizer import EOD

CONFIG = StarCoderConfig(context_length=1024, n_layer=6, n_head=8, n_embd=512, dropout=0.0)
PROMPT_LENGTH = 32
GOALS = {1: 2.0, 8: 1.5, 32: 1.2}
TIE = 1e-3


def models() -> tuple[StarCoder, GPTBigCodeForCausalLM]:
    """Our model and transformers' with the same weights, neither of which ever writes `<|endoftext|>`."""
    ours = StarCoder(CONFIG, seed=1).eval()
    with torch.no_grad():
        ours.transformer.wte.weight[EOD] = 0.0  # its logit is 0, never the highest
    theirs = GPTBigCodeForCausalLM(GPTBigCodeConfig(**to_transformers(CONFIG))).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    return ours, theirs


def timed(function: Callable[[], list[list[int]]]) -> tuple[float, list[list[int]]]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def check_equal(model: StarCoder, prompts: Tensor, ours: list[list[int]], theirs: list[list[int]]) -> int:
    """Number of rows that part ways at a tie; any other difference is an error."""
    ties = 0
    for prompt, a, b in zip(prompts.tolist(), ours, theirs, strict=True):
        if a == b:
            continue
        first = next(i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
        with torch.inference_mode():
            logits = model(torch.tensor([prompt + a[:first]]))[0, -1]
        gap = abs(logits[a[first]] - logits[b[first]]).item()
        assert gap < TIE, f"token {first} differs although its logits are {gap} apart"
        ties += 1
    return ties


def compare(batch_size: int, new_tokens: int, rounds: int) -> None:
    ours, theirs = models()
    prompts = torch.randint(
        1, CONFIG.vocab_size, (batch_size, PROMPT_LENGTH), generator=torch.Generator().manual_seed(0)
    )
    mask = torch.ones_like(prompts)

    def run_ours(n: int = new_tokens) -> list[list[int]]:
        return generate_tokens(ours, prompts.tolist(), Sampling(max_new_tokens=n))

    def run_theirs(n: int = new_tokens) -> list[list[int]]:
        options = {"max_new_tokens": n, "do_sample": False, "pad_token_id": EOD}
        return theirs.generate(prompts, attention_mask=mask, **options)[:, PROMPT_LENGTH:].tolist()

    run_ours(4), run_theirs(4)
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        (time_theirs, out_theirs), (time_ours, out_ours) = timed(run_theirs), timed(run_ours)
        times.append((time_theirs, time_ours))
    ties = check_equal(ours, prompts, out_ours, out_theirs)
    per_second = [batch_size * new_tokens / statistics.median(column) for column in zip(*times, strict=True)]
    ratios = sorted(theirs / ours for theirs, ours in times)
    goal = f"goal {GOALS[batch_size]}" if batch_size in GOALS else ""
    print(
        f"batch {batch_size:>3}   transformers {per_second[0]:8.1f} tok/s   here {per_second[1]:8.1f} tok/s   "
        f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) {goal}   "
        f"{batch_size - ties} of {batch_size} rows equal, {ties} part at a tie",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=list(GOALS))
    arguments = parser.parse_args()
    print(f"greedy decoding, {arguments.new_tokens} new tokens, {torch.get_num_threads()} threads")
    for batch_size in arguments.batch_sizes:
        compare(batch_size, arguments.new_tokens, arguments.rounds)


if __name__ == "__main__":
    main()
