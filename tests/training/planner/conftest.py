import pytest
import torch.distributed as dist


@pytest.fixture(scope="module", autouse=True)
def no_process_group() -> None:
    """The planner makes fake groups of its own; what tests of training leave in this process would be in their way."""
    if dist.is_initialized():
        dist.destroy_process_group()
