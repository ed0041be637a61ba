"""Copies are found where a plain search finds them, whatever the blocks and the hashes; the card states their rate."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from starcoder import tokenizer as tokenizers
from starcoder.cli import main
from starcoder.corpus.document import Document, write_documents
from starcoder.errors import UserError
from starcoder.executors import Execution
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import verbatim
from starcoder.release.card import write_card
from starcoder.release.copies import measure_copies
from starcoder.release.folder import save
from starcoder.release.verbatim import find_copies, window_hashes
from starcoder.tokenizer import EOD
from starcoder.training.chunks import ChunkWriter
from starcoder.training.shards import tokenize
from starcoder.training.stream import Shards, ShardsMetadata, open_shards
from tests.conftest import VOCAB_SIZE, Tiny

Ids = list[int]

CONTENT = "# ada@engine.org\ndef area(width, height):\n    return width * height\n\n\nprint(area(3, 4), area(30, 40))\n"
LEAST = 20


def stored(folder: Path, documents: Sequence[Ids], chunk_tokens: int, dtype: str = "uint16") -> Shards:
    folder.mkdir()
    writer = ChunkWriter(folder, np.dtype(dtype), chunk_tokens)
    for document in documents:
        writer.append(np.array([*document, EOD], dtype))
    return Shards(str(folder), ShardsMetadata("", 0, dtype, 0, [], {}, {}, writer.finish()), folder)


def stream(location: str) -> NDArray[Any]:
    paths = sorted(Path(location).glob("*.bin"), key=lambda path: int(path.stem.split("-")[-1]))
    return np.concatenate([np.fromfile(path, "uint16", offset=12) for path in paths])


def longest(completion: Ids, document: Ids) -> int:
    """The length of the longest common stretch, by trying every pair of places."""
    lengths = [0]
    for i in range(len(completion)):
        for j in range(len(document)):
            end = 0
            while completion[i + end : i + end + 1] == document[j + end : j + end + 1] != []:
                end += 1
            lengths.append(end)
    return max(lengths)


ids = st.lists(st.integers(1, 2), max_size=9)


@settings(max_examples=200)
@given(
    completions=st.lists(ids, min_size=1, max_size=4),
    folders=st.lists(st.lists(ids, min_size=1, max_size=4), min_size=1, max_size=2),
    n=st.integers(1, 6),
    chunk_tokens=st.integers(1, 12),
    block=st.integers(1, 12),
    colliding=st.booleans(),
)
def test_what_is_found_is_what_a_plain_search_finds(
    completions: list[Ids], folders: list[list[Ids]], n: int, chunk_tokens: int, block: int, colliding: bool
) -> None:
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(verbatim, "_BLOCK", block)
        if colliding:
            patch.setattr(verbatim, "window_hashes", lambda ids, n: np.zeros(max(0, len(ids) - n + 1), np.uint64))
        data = [stored(Path(root, str(number)), folder, chunk_tokens) for number, folder in enumerate(folders)]
        copies = find_copies(completions, data, n)
        lengths = [max(longest(each, text) for folder in folders for text in folder) for each in completions]
        assert {copy.completion: copy.tokens for copy in copies} == {
            number: length for number, length in enumerate(lengths) if length >= n
        }
        for copy in copies:
            there = stream(copy.shards)[copy.position : copy.position + copy.tokens]
            assert copy.of(completions) == there.tolist()


def test_no_copy_spans_two_documents(tmp_path: Path) -> None:
    data = [stored(tmp_path / "shards", [[1, 2, 3], [4, 5, 6, 7]], 100)]
    assert find_copies([[1, 2, 3, 4, 5, 6]], data, 4) == []
    (copy,) = find_copies([[1, 2, 3, 4, 5, 6]], data, 3)
    assert (copy.start, copy.tokens, copy.position) == (0, 3, 0)
    assert [copy.position for copy in find_copies([[9, 4, 5, 6, 7]], data, 4)] == [4]


def test_large_vocabularies_have_tokens_like_any_other(tmp_path: Path) -> None:
    document = [0xD800, 0xDFFF, 0xDC80, 70_000, 1_000_000]
    data = [stored(tmp_path / "shards", [[5, *document]], 4, "uint32")]
    assert [copy.tokens for copy in find_copies([document, [*document[::-1]]], data, 5)] == [5]


@given(st.lists(st.integers(0, 2**16 - 1), max_size=40), st.integers(1, 20))
def test_a_hash_is_the_polynomial_of_its_tokens(ids: Ids, n: int) -> None:
    base = verbatim._BASE
    expected = [
        sum(token * base ** (n - 1 - place) for place, token in enumerate(ids[start : start + n])) % 2**64
        for start in range(len(ids) - n + 1)
    ]
    assert window_hashes(np.array(ids, "uint16"), n).tolist() == expected


@pytest.fixture(scope="module")
def shards(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token shards of some documents of which one is learned by heart."""
    root = tmp_path_factory.mktemp("copies")
    document = Document("owner/name", "area.py", "python", "py", ("MIT",), len(CONTENT), CONTENT)
    (root / "corpus").mkdir()
    write_documents(root / "corpus", "train", [document])
    tokenize(root / "corpus", tiny.tokenizer, root / "shards", execution=Execution(workers=1))
    return root / "shards"


def written(tiny: Tiny, folder: Path, learned: NDArray[Any] | None = None) -> Path:
    """A small model, which has learned the given tokens if any."""
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 64, "vocab_size": VOCAB_SIZE, "context_length": 64}
    model = StarCoder(StarCoderConfig.preset("smoke", **shape))
    model.init_weights(0)
    if learned is not None:
        tokens = torch.tensor([[EOD, *learned.tolist()]])[:, :65]
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
            optimizer.step()
    save(model.eval(), folder, tokenizers.load(tiny.tokenizer))
    return folder


@pytest.fixture(scope="module")
def parrot(tiny: Tiny, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tiny, tmp_path_factory.mktemp("models") / "parrot", stream(str(shards)))


def measured(model: Path, shards: Path, output: Path, **options: Any) -> dict[str, Any]:
    measure_copies(str(model), [shards], output, **{"samples": 8, "n_tokens": LEAST, "max_new_tokens": 60} | options)
    content: dict[str, Any] = json.loads(output.read_text())
    return content


def test_a_model_that_has_learned_a_document_copies_it(
    parrot: Path, tiny: Tiny, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = measured(parrot, shards, tmp_path / "copies.json")
    assert content["verbatim"]["matches"] == 8 == len(content["copies"])
    assert "8 of 8 completions copy 20 tokens or more" in capsys.readouterr().out
    assert content["shards"] == {str(shards): open_shards(shards).digest}
    assert (content["pii"]["matches"], content["pii"]["labels"]) == (8, {"EMAIL": 8})
    assert content["longest"] == max(copy["tokens"] for copy in content["copies"]) >= 50
    tokenizer = tokenizers.load(tiny.tokenizer)
    for copy in content["copies"]:
        there = stream(copy["shards"])[copy["position"] : copy["position"] + copy["tokens"]]
        assert copy["text"] == tokenizer.decode(there.tolist())
    untrained = measured(written(tiny, tmp_path / "untrained"), shards, tmp_path / "none.json")
    assert (untrained["verbatim"]["matches"], untrained["longest"], untrained["copies"]) == (0, 0, [])
    assert untrained["pii"]["matches"] == 0


def test_more_samples_do_not_change_the_first(parrot: Path, shards: Path, tmp_path: Path) -> None:
    few, many = (
        measured(parrot, shards, tmp_path / f"{samples}.json", samples=samples, temperature=1.5, top_p=1.0, n_tokens=5)
        for samples in (3, 40)
    )
    assert len({copy["tokens"] for copy in many["copies"]}) > 1
    assert few["copies"] == [copy for copy in many["copies"] if copy["completion"] < 3]


def test_the_card_states_the_rate_and_refuses_that_of_another_model(
    parrot: Path, tiny: Tiny, shards: Path, tmp_path: Path
) -> None:
    model, output = Path(shutil.copytree(parrot, tmp_path / "model")), tmp_path / "copies.json"
    options = ["--samples", "8", "--n_tokens", str(LEAST), "--max_new_tokens", "60", "--output", str(output)]
    main(["copies", str(model), "--shards+", str(shards), *options])
    main(["card", str(model), "--license", "mit", "--measured+", str(output)])
    card = (model / "README.md").read_text()
    rate = (
        "Copied training code: 8 of 8 completions, 100.00% (completions of at most 60 tokens that begin a new document"
    )
    assert rate in card
    assert "at temperature 0.8, top_p 0.95 and seed 0; a match has 20 tokens or more in a row" in card
    assert "Personal data in completions: 8 of 8 completions, 100.00% (completions of at most 60 tokens" in card
    assert "by the label that stands first in it: 8 EMAIL; detector regex" in card
    with pytest.raises(UserError, match="about other weights"):
        write_card(written(tiny, tmp_path / "other"), license="mit", measured=[output])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"samples": 0}, "--samples is 0, below 1"),
        ({"n_tokens": 0}, "--n_tokens is 0, below 1"),
        ({"n_tokens": 61}, "no completion has 61 tokens: max_new_tokens and the context allow 60"),
        ({"n_tokens": 64, "max_new_tokens": 500}, "allow 63"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"shards": []}, "--shards names no folder"),
        ({"shards": [Path("s3:/bucket/shards")]}, "behind a URL"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    parrot: Path, shards: Path, tmp_path: Path, options: dict[str, Any], part: str
) -> None:
    given = {"model": str(parrot), "shards": [shards], "n_tokens": LEAST, "max_new_tokens": 60}
    with pytest.raises(UserError, match=part) as error:
        measure_copies(output=tmp_path / "copies.json", **given | options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_folders_that_do_not_belong_together_are_refused(parrot: Path, shards: Path, tmp_path: Path) -> None:
    bare, other, empty = (tmp_path / name for name in ("bare", "other", "empty"))
    shutil.copytree(parrot, bare, ignore=shutil.ignore_patterns("tokenizer.json"))
    shutil.copytree(shards, other)
    metadata = json.loads((shards / "metadata.json").read_text())
    (other / "metadata.json").write_text(json.dumps(metadata | {"tokenizer": "0" * 64}))
    empty.mkdir()
    (empty / "metadata.json").write_text(json.dumps(metadata | {"chunks": []}))
    (empty / "index.json").write_text('{"chunks": []}')
    for model, data, output, part in (
        (bare, shards, "copies.json", "tokenizer.json"),
        (parrot, other, "copies.json", "made with another tokenizer"),
        (parrot, empty, "copies.json", "hold no tokens"),
        (parrot, parrot, "copies.json", "no token shards in"),
        (parrot, shards, "", "is a folder: name a file"),
    ):
        with pytest.raises(UserError, match=part) as error:
            measured(model, data, tmp_path / output)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "copies.json").exists()
