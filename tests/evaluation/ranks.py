"""Metrics filled by two gloo ranks; run as a program, with an empty folder, it prints what they compute as JSON."""

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist

from starcoder.evaluation.metrics import Accuracy, EditSimilarity, ExactMatch, MajorityAtK, PassAtK, WeightedMean

SAMPLES = [(0, "7"), (0, "8"), (2, "7"), (2, "9"), (2, "7"), (3, "9"), (3, "9")]
PARTS = {0: SAMPLES[:3], 1: SAMPLES[3:]}


def fill(samples: list[tuple[int, str]]) -> list[Any]:
    """One metric of each kind with these samples: problem and answer, of which 7 is right."""
    right, texts, vote = [PassAtK(5, k=(1, 2)), Accuracy(5)], [ExactMatch(5), EditSimilarity(5)], MajorityAtK(5, k=2)
    weighted = WeightedMean(5, ("nats",))
    for problem, answer in samples:
        at = torch.tensor([problem])
        for metric in right:
            metric.update(at, torch.tensor([answer == "7"]))
        for metric in texts:
            metric.update(at, [answer], ["7"])
        vote.update(at, [answer], [answer == "7"])
        weighted.update(at, torch.tensor([[float(answer)]]), torch.tensor([[1.0 + problem]]))
    return [*right, *texts, vote, weighted]


def told(metrics: list[Any]) -> list[Any]:
    return [metric.compute() for metric in metrics]


def main(folder: str) -> None:
    """The ranks share the samples (problem 2 is with both), both have all of them, and rank 1 has none."""
    child = os.fork()
    rank = int(child == 0)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = [told(fill(PARTS[rank])), told(fill(SAMPLES)), told(fill([] if rank else SAMPLES))]
    if rank:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
