import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from starcoder.errors import UserError
from starcoder.executors import Execution
from starcoder.tokenizer import load, train
from starcoder.training.shards import tokenize
from starcoder.training.stream import SHUFFLED_CHUNKS, open_shards, window_order
from tests.conftest import Tiny

LENGTH = 33


@pytest.fixture
def small(tiny: Tiny, tmp_path: Path) -> Path:
    """Shards of five chunks, the last of them shorter, that a test may damage."""
    folder = tmp_path / "shards"
    tokenize(tiny.corpus, tiny.tokenizer, folder, split="validation", execution=Execution(workers=1), max_tokens=12_000)
    tokens = open_shards(folder).n_tokens
    tokenize(
        tiny.corpus,
        tiny.tokenizer,
        folder,
        split="validation",
        execution=Execution(workers=1),
        max_tokens=12_000,
        chunk_tokens=tokens // 5 + 1,
    )
    return folder


def windows_on_disk(folder: Path) -> NDArray[Any]:
    rows = []
    for name in sorted(path.name for path in folder.glob("*.bin")):
        tokens = np.fromfile(folder / name, "uint16", offset=12)
        rows.append(tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH))
    return np.concatenate(rows)


class TestWindows:
    def test_are_the_chunks_cut_from_the_front(self, small: Path) -> None:
        shards = open_shards(small)
        stream = shards.stream(LENGTH)
        expected = windows_on_disk(small)
        assert sum(shards.windows(LENGTH)) == len(stream) == len(expected)
        for i in np.random.default_rng(0).permutation(len(expected)).tolist():
            assert np.array_equal(stream[i], expected[i])

    def test_come_from_a_url_through_the_cache_alone(
        self, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for variable in ("HOME", "TMPDIR"):
            (tmp_path / variable).mkdir()
            monkeypatch.setenv(variable, str(tmp_path / variable))
        shards = open_shards(f"local:{small}", cache=tmp_path / "cache")
        stream = shards.stream(LENGTH)
        expected = windows_on_disk(small)
        for i in np.random.default_rng(0).permutation(len(expected)).tolist():
            assert np.array_equal(stream[i], expected[i])
        assert len(list((tmp_path / "cache").rglob("*.bin"))) == 5
        assert list((tmp_path / "HOME").iterdir()) == list((tmp_path / "TMPDIR").iterdir()) == []


class TestOrder:
    @given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 9), st.integers(0, 3), st.data())
    def test_visits_every_window_once_and_goes_on_anywhere(
        self, windows: list[int], seed: int, epoch: int, data: st.DataObject
    ) -> None:
        order = list(window_order(windows, seed, epoch))
        assert sorted(order) == list(range(sum(windows)))
        start = data.draw(st.integers(0, len(order)))
        assert list(window_order(windows, seed, epoch, start)) == order[start:]
        assert list(window_order(windows, None, epoch, start)) == list(range(start, len(order)))

    def test_differs_between_epochs_and_seeds(self) -> None:
        orders = [tuple(window_order([50, 50], seed, epoch)) for seed in range(5) for epoch in range(5)]
        assert len(set(orders)) == len(orders)

    def test_is_uniform_when_there_are_few_chunks(self) -> None:
        counts = np.zeros((4, 4))
        for epoch in range(4000):
            counts[range(4), list(window_order([1, 3], 0, epoch))] += 1
        assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(750))  # 16 cells at 5 sigma

    def test_needs_few_chunks_at_a_time(self) -> None:
        size, chunks = 10, 5 * SHUFFLED_CHUNKS
        order = np.array(list(window_order([size] * chunks, 0, 0))) // size
        for group in np.split(order, 5):
            assert len(set(group.tolist())) == SHUFFLED_CHUNKS
        assert order.tolist() != sorted(order.tolist())


class TestFailures:
    @pytest.mark.parametrize("name", ["metadata.json", "index.json", "chunk-0-3.bin"])
    def test_a_missing_file(self, small: Path, name: str) -> None:
        (small / name).unlink()
        self.fails(small, name if name != "metadata.json" else "no token shards")

    @pytest.mark.parametrize("name", ["metadata.json", "index.json", "chunk-0-3.bin"])
    def test_a_truncated_file(self, small: Path, name: str) -> None:
        (small / name).write_bytes((small / name).read_bytes()[:-2])
        self.fails(small, f"{name} is damaged")

    def test_a_flipped_bit(self, small: Path) -> None:
        content = bytearray((small / "chunk-0-2.bin").read_bytes())
        content[500] ^= 1
        (small / "chunk-0-2.bin").write_bytes(content)
        self.fails(small, "chunk-0-2.bin is damaged")

    @pytest.mark.parametrize("content", ["[]", "{}", '{"chunks": 3}', '{"chunks": [{}]}', "\xff"])
    def test_other_metadata(self, small: Path, content: str) -> None:
        (small / "metadata.json").write_text(content, encoding="latin-1")
        self.fails(small, "metadata.json is damaged")

    def test_files_of_different_shards(self, small: Path, tiny: Tiny) -> None:
        shutil.copy(tiny.train / "index.json", small / "index.json")
        self.fails(small, "contradict each other")

    def test_another_tokenizer(self, small: Path, tiny: Tiny) -> None:
        assert open_shards(small, load(tiny.tokenizer)).n_tokens > 0
        other = train(["def function(argument): return argument"], 280)
        with pytest.raises(UserError, match="another tokenizer"):
            open_shards(small, other)

    def test_a_url_without_shards(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot read local:.*metadata\.json"):
            open_shards(f"local:{tmp_path}/nowhere", cache=tmp_path / "cache")

    def fails(self, folder: Path, message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            open_shards(folder)
        assert "\n" not in str(caught.value)


def test_the_digest_of_the_cache_follows_the_content(small: Path, tiny: Tiny, tmp_path: Path) -> None:
    """litdata keeps the chunks of a URL under this name: other content at the same URL must not be taken from there."""
    stamps = {json.loads((folder / "index.json").read_text())["updated_at"] for folder in (small, tiny.train)}
    assert len(stamps) == 2
