import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Document, read_documents, write_documents, write_shard
from starcoder.errors import UserError
from starcoder.pii.pairs import NO_TARGET, Collate, Pairs, Texts, frame, mask
from starcoder.pii.vocabulary import SPECIAL_TOKENS, save_vocabulary
from starcoder.tokenizer import SENTINELS, Tokenizer, load
from starcoder.training.fim import sample_rng
from starcoder.training.stream import chunk_order
from tests.conftest import VOCAB_SIZE, Tiny

RELEASED = Path(__file__).parents[2] / ".." / "shared" / "data" / "starcoder-tokenizer"
PAD, SEP, CLS, MASK = range(VOCAB_SIZE, VOCAB_SIZE + 4)


@pytest.fixture(scope="module")
def texts(tiny: Tiny) -> Texts:
    return Texts(tiny.corpus, "train")


@pytest.fixture(scope="module")
def tokenizer(tiny: Tiny) -> Tokenizer:
    return load(tiny.tokenizer)


def auto(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def reference(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("vocabulary")
    save_vocabulary(tokenizer, folder, 64)
    return auto(folder)


def test_special_tokens_follow_the_vocabulary(reference: Any) -> None:
    assert reference.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [PAD, SEP, CLS, MASK]
    ids = (reference.pad_token_id, reference.sep_token_id, reference.cls_token_id, reference.mask_token_id)
    assert ids == (PAD, SEP, CLS, MASK)
    assert len(reference) == VOCAB_SIZE + 4
    assert reference.model_max_length == 64
    assert reference("a", return_token_type_ids=True)["token_type_ids"] == [0, 0, 0]


@given(st.text() | st.lists(st.sampled_from([*SENTINELS, *SPECIAL_TOKENS, " x", "\n"])).map("".join))
def test_a_text_is_encoded_as_before(reference: Any, tokenizer: Tokenizer, text: str) -> None:
    """Also one that spells control tokens: that is text."""
    ids = reference(text, add_special_tokens=False)["input_ids"]
    assert ids == tokenizer.encode(text)
    assert reference.decode(ids) == text
    assert reference(text, truncation=False)["input_ids"] == [CLS, *ids, SEP]


def test_a_mask_is_there_for_who_asks(reference: Any) -> None:
    assert MASK in reference("a <mask>", split_special_tokens=False)["input_ids"]
    assert MASK not in reference("a <mask>")["input_ids"]


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released tokenizer is not here")
def test_the_released_tokenizer_gets_the_ids_of_the_paper(tmp_path: Path) -> None:
    released = load(RELEASED)
    save_vocabulary(released, tmp_path, 1024)
    extended = auto(tmp_path)
    assert extended.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [49152, 49153, 49154, 49155]
    assert len(extended) == 49_156
    text = Path(__file__).read_text()
    assert extended(text, add_special_tokens=False, truncation=False)["input_ids"] == released.encode(text)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(5, 64))
def test_a_pair_is_cut_as_transformers_cuts_it(reference: Any, first: int, second: int, length: int) -> None:
    a, b = (np.arange(100, 100 + n, dtype=np.int64) for n in (first, second))
    ids, types = frame(a, b, length, VOCAB_SIZE)
    texts = [reference.decode(part.tolist()) for part in (a, b)]
    again = [reference(text, add_special_tokens=False)["input_ids"] for text in texts]
    if again != [a.tolist(), b.tolist()]:  # these ids in a row are not how their text is encoded
        a, b = (np.array(part, dtype=np.int64) for part in again)
        ids, types = frame(a, b, length, VOCAB_SIZE)
    expected = reference(*texts, truncation="longest_first", max_length=length)
    assert (ids.tolist(), types.tolist()) == (expected["input_ids"], expected["token_type_ids"])


def within(share: float, expected: float, n: int) -> bool:
    """Whether a share of n draws is within five standard deviations."""
    return abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)


def test_masks_are_drawn_as_bert_draws_them() -> None:
    n, text = 400_000, 300
    ids = np.full(n, text)
    ids[::50] = CLS
    ids[1::50] = SEP
    ids[2::50] = PAD
    given_ids, targets = mask(ids, np.random.default_rng(0), VOCAB_SIZE)
    chosen = targets != NO_TARGET
    assert not chosen[ids >= VOCAB_SIZE].any()
    assert (given_ids[~chosen] == ids[~chosen]).all()
    assert (targets[chosen] == text).all()
    assert within(chosen.sum() / (ids == text).sum(), 0.15, (ids == text).sum())
    hidden, same = given_ids[chosen] == MASK, given_ids[chosen] == text
    ordinary = VOCAB_SIZE - len(SENTINELS)
    assert within(hidden.mean(), 0.8, chosen.sum())
    assert within(same.mean(), 0.1 + 0.1 / ordinary, chosen.sum())
    others = given_ids[chosen][~hidden & ~same]
    assert others.min() >= len(SENTINELS)
    assert others.max() < VOCAB_SIZE
    assert len(np.unique(others)) == ordinary - 1


def pairs(texts: Texts, tokenizer: Tokenizer, **options: Any) -> Pairs:
    return Pairs(texts, tokenizer, 64, 7, **options)


def restored(sample: Any) -> list[list[int]]:
    """A and B without masks."""
    ids = np.where(sample.targets == NO_TARGET, sample.ids, sample.targets)
    assert ids[0] == CLS
    assert ids[-1] == SEP
    border = int(np.flatnonzero(ids == SEP)[0])
    assert sample.types.tolist() == [0] * (border + 1) + [1] * (len(ids) - border - 1)
    return [ids[1:border].tolist(), ids[border + 1 : -1].tolist()]


def test_a_pair_is_of_one_file_or_of_two(texts: Texts, tokenizer: Tokenizer) -> None:
    contents = [texts[index][:10_000] for index in range(len(texts))]
    parts = [[tokenizer.encode(half) for half in (t[: len(t) // 2], t[len(t) // 2 :])] for t in contents]
    dataset, negatives, partners = pairs(texts, tokenizer), 0, Counter[int]()
    for epoch in range(10):
        for index in range(len(dataset)):
            sample = dataset[epoch, index]
            first, second = restored(sample)
            assert first == parts[index][0][: len(first)]
            owners = [i for i, (_, end) in enumerate(parts) if end[: len(second)] == second]
            assert (index not in owners) == sample.negative
            negatives += sample.negative
            partners.update(owners if sample.negative else [])
    n = 10 * len(dataset)
    assert within(negatives / n, 0.5, n)
    assert len(partners) == len(dataset)


def test_a_sample_is_a_function_of_seed_epoch_and_index(texts: Texts, tokenizer: Tokenizer) -> None:
    dataset = pairs(texts, tokenizer)

    def ids(epoch: int, index: int, of: Pairs = dataset) -> list[int]:
        return [*of[epoch, index].ids.tolist()]

    assert ids(0, 3) == ids(0, 3, pairs(Texts(*_place(texts)), tokenizer))
    assert ids(0, 3) != ids(1, 3)
    assert ids(0, 3) != ids(0, 3, Pairs(texts, tokenizer, 64, 8))


def _place(texts: Texts) -> tuple[Path, str]:
    return texts.groups[0][0].parent, "train"


def test_a_random_start_is_anywhere_in_the_file(texts: Texts, tokenizer: Tokenizer) -> None:
    dataset = pairs(texts, tokenizer, max_characters=40, random_start=True)
    for epoch in range(30):
        first, _ = restored(dataset[epoch, 2])
        assert tokenizer.decode(first) in texts[2]
    assert len({tokenizer.decode(restored(dataset[epoch, 2])[0]) for epoch in range(30)}) > 20


def many(folder: Path, shards: int, rows: int) -> Texts:
    """A corpus of that many shards, each of one group of rows."""
    folder.mkdir()
    for number in range(shards):
        documents = [Document("r", f"{number}-{i}", "python", "py", (), 1, f"{number} {i}") for i in range(rows)]
        write_shard(folder / f"train-{number:05d}-of-{shards:05d}.parquet", documents)
    return Texts(folder, "train")


@pytest.mark.parametrize("shards", [1, 16, 17, 40])
def test_the_other_file_is_one_of_those_in_memory(tmp_path: Path, tokenizer: Tokenizer, shards: int) -> None:
    texts = many(tmp_path / "corpus", shards, 3)
    dataset = pairs(texts, tokenizer)
    order = chunk_order(shards, 7, 0).tolist()
    for index in range(len(texts)):
        others = Counter(dataset.other(0, index, sample_rng(1, 0, draw)) for draw in range(400))
        assert index not in others
        assert len(others) == 3 * min(16, shards) - 1
        own = order.index(texts.group_of(index)) // 16
        if 16 * (own + 1) <= shards:
            assert {order.index(texts.group_of(other)) // 16 for other in others} == {own}


def test_texts_are_the_documents_in_their_order(tmp_path: Path, tiny: Tiny, texts: Texts) -> None:
    contents = [document.content for document in read_documents(tiny.corpus, "train")]
    assert [texts[index] for index in range(len(texts))] == contents
    shutil.copytree(tiny.corpus, tmp_path / "other")
    assert Texts(tmp_path / "other", "train").digest == texts.digest
    write_documents(tmp_path / "other", "train", list(read_documents(tiny.corpus, "train"))[1:])
    assert Texts(tmp_path / "other", "train").digest != texts.digest


def test_a_batch_is_padded_to_its_longest(texts: Texts, tokenizer: Tokenizer) -> None:
    dataset = Pairs(texts, tokenizer, 64, 7, max_characters=60)
    samples = [dataset[0, index] for index in range(4)]
    batch = Collate(PAD)(samples)
    longest = max(len(sample.ids) for sample in samples)
    assert batch["input_ids"].shape == (4, longest)
    for row, sample in enumerate(samples):
        n = len(sample.ids)
        assert batch["input_ids"][row].tolist() == [*sample.ids, *[PAD] * (longest - n)]
        assert batch["attention_mask"][row].tolist() == [1] * n + [0] * (longest - n)
        assert batch["token_type_ids"][row].tolist() == [*sample.types, *[0] * (longest - n)]
    labels = torch.full((4 * longest,), NO_TARGET).index_put((batch["masked"],), batch["targets"]).view(4, longest)
    for row, sample in enumerate(samples):
        assert labels[row, : len(sample.ids)].tolist() == sample.targets.tolist()
    assert batch["next_sentence_label"].tolist() == [int(sample.negative) for sample in samples]


def test_characters_that_the_vocabulary_cannot_spell_are_left_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_documents(tmp_path, "train", [Document("r", n, "python", "py", (), 1, "ab\U00040000cd" * 9) for n in "ab"])
    first, _ = restored(pairs(Texts(tmp_path, "train"), tokenizer)[0, 0])
    assert tokenizer.decode(first) == ("abcd" * 9)[: 4 * 9 // 2]


def test_an_empty_file_is_a_pair_too(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_documents(tmp_path, "train", [Document("r", name, "python", "py", (), 0, "") for name in "ab"])
    sample = pairs(Texts(tmp_path, "train"), tokenizer)[0, 0]
    assert sample.ids.tolist() == [CLS, SEP, SEP]
    assert len(Collate(PAD)([sample])["masked"]) == 0


def test_a_damaged_page_is_told(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.corpus, tmp_path / "corpus")
    path = next((tmp_path / "corpus").glob("train-*"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(UserError, match="is corrupt"):
        [Texts(tmp_path / "corpus", "train")[index] for index in range(1)]
