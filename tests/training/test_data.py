import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from starcoder.errors import UserError
from starcoder.executors import Execution
from starcoder.tokenizer import load, train
from starcoder.training.data import TokenDataModule
from starcoder.training.fim import fim_permute, sample_rng
from starcoder.training.loader import Windows
from starcoder.training.shards import tokenize
from starcoder.training.stream import open_shards, window_order
from tests import nursery
from tests.conftest import VOCAB_SIZE, Tiny
from tests.training.recorder import fit

LENGTH = 421
BATCH = 4
SEED = 7
STEPS = 25


@pytest.fixture(scope="module")
def shards(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three chunks; a step takes 4 of their windows, and `STEPS` are between two and three epochs."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    tokenize(tiny.corpus, tiny.tokenizer, folder, split="validation", execution=Execution(workers=1), chunk_tokens=7000)
    assert 2 < STEPS / (len(windows_of(folder)) // BATCH) < 3
    assert len(windows_of(folder)) % BATCH
    assert len(open_shards(folder).metadata.chunks) == 3
    return folder


def windows_of(folder: Path) -> NDArray[Any]:
    chunks = [np.fromfile(path, "uint16", offset=12).astype(np.int64) for path in sorted(folder.glob("*.bin"))]
    return np.concatenate([chunk[: len(chunk) // LENGTH * LENGTH].reshape(-1, LENGTH) for chunk in chunks])


def data(tiny: Tiny, shards: Path | str, **changes: Any) -> TokenDataModule:
    options = {"train": shards, "tokenizer": tiny.tokenizer, "context_length": LENGTH - 1, "batch_size": BATCH}
    return TokenDataModule(**options | {"seed": SEED} | changes)


@pytest.fixture(scope="module")
def expected(tiny: Tiny, shards: Path) -> list[Tensor]:
    """The batches of 50 steps, from the definition: order of each epoch, and fill-in-the-middle by (epoch, index)."""
    windows, tokenizer = windows_of(shards), load(tiny.tokenizer)
    batches: list[Tensor] = []
    for epoch in range(5):
        order = list(window_order(open_shards(shards).windows(LENGTH), SEED, epoch))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = [
                fim_permute(windows[i], sample_rng(SEED, epoch, i), tokenizer) for i in order[start : start + BATCH]
            ]
            batches.append(torch.from_numpy(np.stack(rows)))
    return batches


def same(batches: list[Tensor], expected: list[Tensor]) -> bool:
    return len(batches) == len(expected) and all(map(torch.equal, batches, expected))


class TestTraining:
    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_batches_follow_from_seed_epoch_and_position(
        self, tiny: Tiny, shards: Path, expected: list[Tensor], workers: int
    ) -> None:
        batches = fit(data(tiny, shards, num_workers=workers), STEPS).batches
        assert batches[0].dtype == torch.int64
        assert batches[0].shape == (BATCH, LENGTH)
        assert same(batches, expected[:STEPS])
        assert len({tuple(batch.flatten().tolist()) for batch in batches}) == STEPS

    def test_without_shuffle_and_fim_they_are_the_shards(self, tiny: Tiny, shards: Path) -> None:
        batches = fit(data(tiny, shards, shuffle=False, fim_rate=0.0), max_epochs=1).batches
        windows = windows_of(shards)
        assert np.array_equal(torch.cat(batches).numpy(), windows[: len(windows) // BATCH * BATCH])

    def test_global_random_numbers_stay_as_they_are(self, tiny: Tiny, shards: Path) -> None:
        module = data(tiny, shards, num_workers=1)
        module.setup("fit")
        before = torch.get_rng_state()
        assert len(list(module.train_dataloader())) == len(module.train_dataloader())
        assert torch.equal(torch.get_rng_state(), before)

    def test_shards_at_a_url_give_the_same(
        self, tiny: Tiny, shards: Path, expected: list[Tensor], tmp_path: Path
    ) -> None:
        remote = data(tiny, f"local:{shards}", cache=tmp_path / "cache", num_workers=2)
        assert same(fit(remote, STEPS).batches, expected[:STEPS])


class TestResume:
    @pytest.mark.parametrize(
        ("stop", "workers", "workers_after"),
        [(1, 0, 2), (9, 2, 1), (10, 0, 0), (11, 1, 0), (19, 2, 2), (20, 0, 1), (24, 0, 0)],
    )
    def test_continues_bitwise(
        self,
        tiny: Tiny,
        shards: Path,
        expected: list[Tensor],
        tmp_path: Path,
        stop: int,
        workers: int,
        workers_after: int,
    ) -> None:
        first = fit(data(tiny, shards, num_workers=workers), stop, save=tmp_path / "c.ckpt").batches
        second = fit(data(tiny, shards, num_workers=workers_after), STEPS, resume=tmp_path / "c.ckpt").batches
        assert same(first + second, expected[:STEPS])

    @pytest.mark.parametrize("epochs", [1, 2])
    def test_after_whole_epochs(
        self, tiny: Tiny, shards: Path, expected: list[Tensor], tmp_path: Path, epochs: int
    ) -> None:
        first = fit(data(tiny, shards), max_epochs=epochs, save=tmp_path / "c.ckpt").batches
        second = fit(data(tiny, shards), max_epochs=3, resume=tmp_path / "c.ckpt").batches
        assert len(first) == epochs * (len(windows_of(shards)) // BATCH)
        assert same(first + second, expected[: len(first) // epochs * 3])

    @pytest.mark.parametrize("stop", [5, 6, 7, 12, 14])
    def test_with_validation_accumulation_and_short_epochs(
        self, tiny: Tiny, shards: Path, expected: list[Tensor], tmp_path: Path, stop: int
    ) -> None:
        options: dict[str, Any] = {"limit_train_batches": 6, "val_check_interval": 3, "accumulate_grad_batches": 2}
        first = fit(data(tiny, shards, validation=shards), stop, save=tmp_path / "c.ckpt", **options).batches
        resumed = fit(data(tiny, shards, validation=shards), 16, resume=tmp_path / "c.ckpt", **options).batches
        undisturbed = fit(data(tiny, shards, validation=shards), 16, **options).batches
        assert same(first + resumed, undisturbed)
        assert same(undisturbed, expected[: len(undisturbed)])

    def test_when_the_data_was_loaded_before_the_checkpoint(
        self, tiny: Tiny, shards: Path, expected: list[Tensor], tmp_path: Path
    ) -> None:
        fit(data(tiny, shards), 13, save=tmp_path / "c.ckpt")
        resumed = fit(data(tiny, shards), STEPS, resume=tmp_path / "c.ckpt", asks_for_steps=True)
        assert same(resumed.batches, expected[13:STEPS])

    def test_a_new_fit_starts_at_the_first_window(self, tiny: Tiny, shards: Path, expected: list[Tensor]) -> None:
        module = data(tiny, shards)
        fit(module, 3)
        assert same(fit(module, 3).batches, expected[:3])


@pytest.fixture(scope="module")
def ranks(tiny: Tiny, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Folder and records of two gloo ranks, with half of the batch each."""
    folder = tmp_path_factory.mktemp("ranks")
    settings = {"train": str(shards), "validation": str(shards), "tokenizer": str(tiny.tokenizer), "seed": SEED}
    settings |= {"context_length": LENGTH - 1, "batch_size": BATCH // 2, "num_workers": 1}
    nursery.run_module("tests.training.recorder", json.dumps(settings), STEPS, 13, folder)
    return folder, [torch.load(folder / f"rank-{rank}.pt") for rank in (0, 1)]


class TestRanks:
    def test_share_the_batches_of_one_process(self, ranks: Any, expected: list[Tensor]) -> None:
        _, records = ranks
        joined = [torch.cat(halves) for halves in zip(*(record["undisturbed"] for record in records), strict=True)]
        assert same(joined, expected[:STEPS])

    def test_resume_bitwise(self, ranks: Any) -> None:
        for record in ranks[1]:
            assert same(record["resumed"], record["undisturbed"][13:])

    def test_resume_on_one_process(self, ranks: Any, tiny: Tiny, shards: Path, expected: list[Tensor]) -> None:
        resumed = fit(data(tiny, shards), STEPS, resume=ranks[0] / "two-ranks.ckpt")
        assert same(resumed.batches, expected[13:STEPS])

    def test_validate_on_every_window(self, ranks: Any, shards: Path) -> None:
        seen = {tuple(row.tolist()) for record in ranks[1] for batch in record["validated"] for row in batch}
        assert {tuple(row.tolist()) for row in windows_of(shards)} <= seen


def test_an_error_while_workers_run_ends_the_process(tiny: Tiny, tmp_path: Path) -> None:
    """They do not hear the signal by which Python ends its children."""
    program = f"""
from lightning.pytorch import Trainer
from starcoder.training.data import TokenDataModule
from starcoder.training.loader import FimWindows
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy

def broken(self, key):
    raise RuntimeError("the shard is broken")

FimWindows.__getitem__ = broken
module = StarCoderModule("smoke", {{"vocab_size": {VOCAB_SIZE}, "context_length": 32}})
data = TokenDataModule({str(tiny.train)!r}, {str(tiny.tokenizer)!r}, context_length=32, num_workers=1)
Trainer(accelerator="cpu", strategy=ShardedStrategy(), max_steps=1, logger=False).fit(module, data)
"""
    result = nursery.end(nursery.begin(program, folder=tmp_path), timeout=90)
    assert result.returncode == 1
    assert "the shard is broken" in result.stderr
    assert "killed by signal" not in result.stderr


def ids_of_steps(
    tiny: Tiny, shards: Path, state: dict[str, Any], ranks: int, batch: int, accumulation: int, steps: int
) -> list[list[int]]:
    """Indices of the windows of each step, as all ranks together take them from `state` on; moves `state`."""
    of_ranks = []
    for rank in range(ranks):
        module = data(tiny, shards, batch_size=batch)
        module.setup("fit")
        whole = module.train_dataloader()
        loader = replace(
            whole, rank=rank, world_size=ranks, accumulation=accumulation, samples=Indices(whole.samples.windows)
        )
        loader.load_state_dict(state)
        batches: list[list[int]] = []
        while len(batches) < steps * accumulation:
            for ids in loader:
                batches.append(ids[:, 0].tolist())
                if len(batches) == steps * accumulation:
                    break
        of_ranks.append((batches, loader.state_dict()))
    assert all(after == of_ranks[0][1] for _, after in of_ranks)
    state.update(of_ranks[0][1])
    together = [list(chain(*parts)) for parts in zip(*(batches for batches, _ in of_ranks), strict=True)]
    return [list(chain(*together[n : n + accumulation])) for n in range(0, len(together), accumulation)]


class Indices(Dataset[tuple[int, Any]]):
    """In the place of windows, their index."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, Any]:
        return key[1], np.array([key[1]])


class TestOtherRanks:
    @pytest.mark.parametrize("layouts", [[(1, 4, 1), (4, 1, 1), (2, 1, 2)], [(2, 2, 1), (1, 1, 4), (4, 1, 1)]])
    def test_take_each_window_of_an_epoch_once_in_the_same_steps(
        self, tiny: Tiny, shards: Path, layouts: list[tuple[int, int, int]]
    ) -> None:
        """Ranks, micro-batch and micro-batches a step change twice; the run crosses the border of an epoch."""
        state: dict[str, Any] = {"epoch": 0, "windows": 0}
        steps = [ids for layout in layouts for ids in ids_of_steps(tiny, shards, state, *layout, 5)]
        windows = open_shards(shards).windows(LENGTH)
        per_epoch = sum(windows) // BATCH
        assert per_epoch < len(steps) == 15
        for epoch, start in enumerate(range(0, len(steps), per_epoch)):
            order = list(window_order(windows, SEED, epoch))
            for number, ids in enumerate(steps[start : start + per_epoch]):
                assert sorted(ids) == sorted(order[number * BATCH : (number + 1) * BATCH])
        first = list(chain(*steps[:per_epoch]))
        assert len(set(first)) == len(first) == per_epoch * BATCH

    @pytest.mark.parametrize("left", [3, 6])
    def test_another_global_batch_ends_the_epoch_on_every_rank_alike(self, tiny: Tiny, shards: Path, left: int) -> None:
        """What is left of the epoch when the global batch changes need not be whole steps: the rest is left out."""
        windows = sum(open_shards(shards).windows(LENGTH))
        state: dict[str, Any] = {"epoch": 0, "windows": windows // 4 * 4 - left}
        steps = ids_of_steps(tiny, shards, state, 2, 2, 1, 3)
        assert [len(ids) for ids in steps] == [4, 4, 4]
        assert state == {"epoch": 1, "windows": 4 * (3 - left // 4)}

    def test_micro_batches_follow_from_the_global_batch(self, tiny: Tiny, shards: Path) -> None:
        module = data(tiny, shards, batch_size=2, global_batch_size=4, validation=shards)
        fitted = fit(module, 3, val_check_interval=2, check_val_every_n_epoch=None, num_sanity_val_steps=0)
        assert fitted.trainer.accumulate_grad_batches == 2
        assert len(fitted.batches) == 6
        assert len(fitted.validated) == len(module.val_dataloader())  # once, after two steps of two

    def test_a_position_is_one_in_these_shards(self, tiny: Tiny, shards: Path, tmp_path: Path) -> None:
        fit(data(tiny, shards), 3, save=tmp_path / "c.ckpt")
        with pytest.raises(UserError, match="of a run on other token shards"):
            fit(data(tiny, tiny.train), 5, resume=tmp_path / "c.ckpt")


class TestValidation:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_all_windows_in_order_as_they_are(self, tiny: Tiny, shards: Path, workers: int) -> None:
        module = data(tiny, shards, validation=shards, num_workers=workers)
        batches = fit(module, max_epochs=1, num_sanity_val_steps=0).validated
        assert batches[0].dtype == torch.int64
        assert np.array_equal(torch.cat(batches).numpy(), windows_of(shards))

    def test_is_left_out_without_shards(self, tiny: Tiny, shards: Path) -> None:
        assert fit(data(tiny, shards), max_epochs=1).validated == []


class TestFailures:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"context_length": 0}, "context_length must be at least 1, but is 0"),
            ({"batch_size": -1, "fim_rate": 1.5}, "batch_size .* -1; fim_rate must lie between 0 and 1"),
            ({"fim_spm_rate": -0.1}, "fim_spm_rate"),
            ({"seed": -1}, "seed"),
            ({"global_batch_size": 0}, "global_batch_size must be at least 1"),
            ({"global_batch_size": 6}, "global_batch_size 6 is no multiple of batch_size 4 on 1 devices"),
            ({"num_workers": -1}, "num_workers"),
            ({"context_length": 7000}, "no chunk .* holds a window of context_length \\+ 1 = 7,001"),
            ({"batch_size": 10_000}, "a step takes 10000; lower the batch size"),
            ({"train": "nowhere"}, "no token shards in nowhere"),
            ({"validation": "nowhere"}, "no token shards in nowhere"),
            ({"tokenizer": "nowhere"}, "nowhere/tokenizer.json"),
        ],
    )
    def test_one_line(self, tiny: Tiny, shards: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            fit(data(tiny, shards, **changes), 1)
        assert "\n" not in str(caught.value)

    def test_shards_of_another_tokenizer(self, tiny: Tiny, shards: Path, tmp_path: Path) -> None:
        train(["def function(argument): return argument"], 280).save(tmp_path)
        with pytest.raises(UserError, match="another tokenizer"):
            fit(data(tiny, shards, tokenizer=tmp_path), 1)

    def test_what_the_model_compares_with(self, tiny: Tiny, shards: Path) -> None:
        module = data(tiny, shards)
        assert module.vocab_size == load(tiny.tokenizer).vocab_size
        assert module.context_length == LENGTH - 1
