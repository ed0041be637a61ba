"""litgpt's side of `bench_litgpt`, run by the Python of an environment that has litgpt and lacks the kit.

The model is built and trained as `litgpt.pretrain` does it: through Fabric, with its initial values, its tying of the
embeddings and its chunked cross-entropy; AdamW is fused, which litgpt asks for on CUDA alone.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[int], tuple[float, float]]  # from the batch's index to wall seconds and loss


def serve(build: Callable[[], tuple[dict[str, Any], Step]]) -> None:
    """Answer lines of stdin, each the index of a batch, by lines of JSON; the first one tells about the side."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries and their child processes print is no answer
    about, step = build()
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        seconds, loss = step(int(line))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB
        print(json.dumps({"seconds": seconds, "loss": loss, "peak": peak}), file=answers, flush=True)


def build(job: dict[str, Any]) -> tuple[dict[str, Any], Step]:
    """The model and its training step; `job` is what `bench_litgpt.litgpt_job` gives."""
    from importlib.metadata import version

    from lightning import Fabric  # only here, since `serve` works in an environment without litgpt too
    from litgpt import GPT, Config
    from litgpt.pretrain import initialize_weights
    from litgpt.utils import chunked_cross_entropy

    fabric = Fabric(accelerator="cpu", devices=1, precision=job["precision"])
    fabric.seed_everything(1)
    config = Config(**job["config"])
    with fabric.init_module(empty_init=True):
        plain = GPT(config)
    initialize_weights(fabric, plain, config.n_layer, config.n_embd)
    plain.transformer.wte.weight = plain.lm_head.weight
    about = {
        "litgpt": version("litgpt"),
        "torch": torch.__version__,
        "n_params": sum(parameter.numel() for parameter in plain.parameters()),
    }
    model = fabric.setup(torch.compile(plain) if job["compile"] else plain)
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True))

    def step(index: int) -> tuple[float, float]:
        tokens, targets = batch(index, config.padded_vocab_size, *job["batch"])
        start = time.perf_counter()
        loss = chunked_cross_entropy(model(tokens), targets)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start, loss.item()

    return about, step


def batch(index: int, vocab_size: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """The same numbers as `bench_training_step.batch`."""
    generator = torch.Generator().manual_seed(index)
    window = torch.randint(vocab_size, (rows, length + 1), generator=generator)
    return window[:, :-1].contiguous(), window[:, 1:].contiguous()


if __name__ == "__main__":
    serve(lambda: build(json.loads(sys.argv[1])))
