import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from starcoder.corpus.document import Document, write_documents
from starcoder.errors import UserError
from starcoder.pii.pretraining import EncoderDataModule
from tests.conftest import Tiny


def data(tiny: Tiny, **options: Any) -> EncoderDataModule:
    module = EncoderDataModule(tiny.corpus, tiny.tokenizer, **{"context_length": 32, "batch_size": 4} | options)
    module.setup("fit")
    return module


def test_batches_are_the_same_for_any_number_of_workers(tiny: Tiny) -> None:
    ours, theirs = ([*data(tiny, num_workers=n).train_dataloader()] for n in (0, 2))
    assert len(ours) == len(theirs) > 3
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_an_epoch_has_every_file_once_on_any_number_of_ranks(tiny: Tiny) -> None:
    whole = data(tiny).train_dataloader()
    order = [index for batch in whole._keys(0, 0) for _, index in batch]
    assert len(set(order)) == len(order) == len(whole) * 4
    parts = []
    for rank in range(2):
        half = data(tiny).train_dataloader()
        half.rank, half.world_size, half.batch_size = rank, 2, 2
        parts.append([[index for _, index in batch] for batch in half._keys(0, 0)])
    assert [index for two in zip(*parts, strict=True) for batch in two for index in batch] == order


def test_validation_is_the_same_every_time(tiny: Tiny) -> None:
    twice = [[*data(tiny).val_dataloader()] for _ in range(2)]
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(*twice, strict=True))
    assert data(tiny, validate=False).val_dataloader() == []
    assert sum(len(batch["input_ids"]) for batch in twice[0]) == 2


def test_what_cannot_be_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    def refused(match: str, corpus: Path = tiny.corpus, tokenizer: Path = tiny.tokenizer, **options: Any) -> None:
        with pytest.raises(UserError, match=match) as error:
            EncoderDataModule(corpus, tokenizer, **options).check("fit")
        assert "\n" not in str(error.value)

    refused("no train documents in .*: make them with `starcoder corpus build", corpus=tmp_path / "none")
    refused("cannot read .*tokenizer.json", tokenizer=tmp_path)
    refused("batch_size must be at least 1", batch_size=0)
    refused("context_length 4 is below 5", context_length=4)
    refused("max_characters is 1, below 2", max_characters=1)
    write_documents(tmp_path / "one", "train", [Document("r", "a", "python", "py", (), 1, "a")])
    refused("has 1 train documents, but a pair takes two", corpus=tmp_path / "one")
    shutil.copytree(tiny.corpus, tmp_path / "torn")
    torn = next((tmp_path / "torn").glob("train-*"))
    os.truncate(torn, torn.stat().st_size // 2)
    refused("is corrupt .*: build the corpus again", corpus=tmp_path / "torn")
    with pytest.raises(UserError, match="lower the batch size"):
        data(tiny, batch_size=10**6).train_dataloader()
