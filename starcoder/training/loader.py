"""Batches for training: windows of token shards, permuted by fill-in-the-middle, in an order that any rank can resume.

What a step trains on is a function of (seed, epoch, position), not of ranks, workers, micro-batches, or how often a run
was resumed: step s of an epoch takes the G windows from s·G on in the epoch's order, G being the global batch. R ranks
take them in micro-batches of R·B windows, of which rank r has the B from r·B on.

Shapes: B micro-batch of one rank, T tokens.
"""

import atexit
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from starcoder.tokenizer import Tokenizer
from starcoder.training.fim import fim_permute, sample_rng
from starcoder.training.stream import Shards, window_order

Window = NDArray[np.int64]


class Windows(Dataset[Window]):
    """The windows of token shards by global index: (T+1,) ids as they are."""

    def __init__(self, shards: Shards, length: int) -> None:
        self._stream = shards.stream(length)
        self._n_windows = sum(shards.windows(length))

    def __len__(self) -> int:
        """Number of windows."""
        return self._n_windows

    def __getitem__(self, index: int) -> Window:
        """Window `index`."""
        return np.asarray(self._stream[index], dtype=np.int64)


@dataclass(frozen=True)
class FimWindows(Dataset[tuple[int, Window]]):
    """Windows after fill-in-the-middle, each with its global index; the draws are keyed by (seed, epoch, index)."""

    windows: Windows
    tokenizer: Tokenizer
    rate: float
    spm_rate: float
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Window]:
        """Index and (T+1,) ids of the window with the key (epoch, index)."""
        epoch, index = key
        rng = sample_rng(self.seed, epoch, index)
        ids = fim_permute(self.windows[index], rng, self.tokenizer, rate=self.rate, spm_rate=self.spm_rate)
        return index, ids.astype(np.int64)


@dataclass
class Position:
    """How far training is: the epoch, and how many of its windows the ranks were given together."""

    epoch: int = 0
    windows: int = 0


@dataclass(eq=False)
class TrainingLoader:
    """Micro-batches of one rank, (B, T+1) of windows, from `position` to the end of the epoch.

    Windows at the end that do not fill a step are left out. The loader has a length, without which Lightning fetches a
    batch ahead and loses it at every resume.

    Attributes:
        samples: windows, or other samples, by (epoch, index).
        chunk_windows: number of windows in each chunk.
        seed: seed of the order; None keeps the order of the shards.
        batch_size: windows of a micro-batch on one rank, B.
        accumulation: micro-batches of a step.
        rank: this process among those that split a batch.
        world_size: number of these processes.
        num_workers: processes that prepare batches; 0 prepares them in this one.
        position: where to go on; moved by every batch that is given out.
        collate: what makes a batch of samples; windows are stacked when it is not given.
        seconds_waited: time that training has spent waiting for batches.
    """

    samples: Dataset[Any]
    chunk_windows: Sequence[int]
    seed: int | None
    batch_size: int
    accumulation: int
    rank: int
    world_size: int
    num_workers: int
    position: Position
    collate: Callable[[list[Any]], Any] | None = None
    seconds_waited: float = 0.0

    @property
    def windows_per_batch(self) -> int:
        """Windows in one micro-batch of all ranks together, R·B."""
        return self.batch_size * self.world_size

    @property
    def windows_per_step(self) -> int:
        """The global batch, G."""
        return self.windows_per_batch * self.accumulation

    def __len__(self) -> int:
        """Number of micro-batches in an epoch."""
        return sum(self.chunk_windows) // self.windows_per_step * self.accumulation

    def __iter__(self) -> Iterator[Any]:
        """Go on from the position, read at the first `next`: Lightning makes iterators that it never uses."""
        if self.position.windows + self.windows_per_step > len(self) * self.windows_per_batch:
            self.position.epoch += 1
            self.position.windows = 0
        batches = iter(
            DataLoader(
                self.samples,
                batch_sampler=self._keys(self.position.epoch, self.position.windows),
                collate_fn=self.collate or _stack,
                num_workers=self.num_workers,
                worker_init_fn=outlive_signals,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),  # leaves the global one as a resumed run will find it
            )
        )
        while (batch := self._next(batches)) is not None:
            self.position.windows += self.windows_per_batch
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The position, which is the same on every rank."""
        return asdict(self.position)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the position in `state_dict`."""
        vars(self.position).update(state_dict)

    def _next(self, batches: Iterator[Any]) -> Any:
        start = time.perf_counter()
        batch = next(batches, None)
        self.seconds_waited += time.perf_counter() - start
        return batch

    def _keys(self, epoch: int, start: int) -> Iterator[list[tuple[int, int]]]:
        order = window_order(self.chunk_windows, self.seed, epoch, start)
        first, end = self.rank * self.batch_size, len(self) * self.windows_per_batch
        for _ in range((end - start) // self.windows_per_step * self.accumulation):
            batch = list(islice(order, self.windows_per_batch))
            yield [(epoch, index) for index in batch[first : first + self.batch_size]]


def outlive_signals(_worker: int) -> None:
    """Let a worker go on when its whole group is told to stop: training needs it to end its step and save."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """End workers that an error has left behind: they do not hear the SIGTERM after which Python waits for them."""
    children = multiprocessing.active_children()
    if children:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would tell the end of each as an error
    for child in children:
        child.kill()


def _stack(samples: list[tuple[int, Window]]) -> Tensor:
    return torch.from_numpy(np.stack([ids for _, ids in samples]))
