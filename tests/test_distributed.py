"""What processes agree on: two gloo ranks of one small program."""

import json
from typing import Any

import pytest
import torch

from starcoder.distributed import mean_over_ranks, raise_together
from starcoder.errors import UserError
from tests import nursery

PROGRAM = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from starcoder.distributed import mean_over_ranks, raise_together
from starcoder.errors import UserError
from tests.training.ranks import finish, fork

def work(rank):
    dist.init_process_group("gloo")
    raise_together([])
    told = {"mean": mean_over_ranks(torch.tensor([1.0 + 2 * rank, float("nan") if rank else 0.0])).isnan().tolist()}
    told["value"] = mean_over_ranks(torch.tensor(1.0 + 2 * rank)).item()
    try:
        raise_together(["rank 1 has no disk"] if rank else [])
    except UserError as error:
        told["raised"] = str(error)
    except SystemExit as stop:
        told["left"] = stop.code
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()

finish(fork(2, work))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    nursery.run(PROGRAM, folder, timeout=60)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_the_mean_is_that_of_all_and_what_is_no_number_reaches_all(told: list[dict[str, Any]]) -> None:
    assert [rank["value"] for rank in told] == [2.0, 2.0]
    assert [rank["mean"] for rank in told] == [[False, True]] * 2


def test_the_problem_of_any_rank_ends_all_and_rank_0_tells_it(told: list[dict[str, Any]]) -> None:
    assert (told[0].get("raised"), told[1].get("left")) == ("rank 1 has no disk", 2)


def test_a_process_alone_needs_no_group() -> None:
    assert mean_over_ranks(torch.tensor(3.0)) == 3
    raise_together([])
    with pytest.raises(UserError, match="mine"):
        raise_together(["mine"])
