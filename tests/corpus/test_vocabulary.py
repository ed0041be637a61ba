import re
import sysconfig
from pathlib import Path

import pytest

from starcoder.corpus.document import Document, write_documents
from starcoder.corpus.vocabulary import train_tokenizer
from starcoder.errors import UserError
from starcoder.tokenizer import load, train


def standard_library(*packages: str) -> list[str]:
    folders = [Path(sysconfig.get_path("stdlib")) / package for package in packages]
    return [path.read_text() for folder in folders for path in sorted(folder.glob("*.py"))]


def corpus(folder: Path, contents: list[str]) -> Path:
    folder.mkdir()
    documents = [Document("r", f"{i}.py", "python", "py", ("MIT",), 0, text) for i, text in enumerate(contents)]
    write_documents(folder, "train", documents)
    write_documents(folder, "validation", documents[:0])
    return folder


def test_a_sample_is_a_function_of_the_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = corpus(tmp_path / "corpus", standard_library("email", "json", "asyncio", "http"))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_tokenizer(source, tmp_path / name, vocab_size=600, sample_bytes=200_000, seed=seed)
    digests = [load(tmp_path / name).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]
    out = capsys.readouterr().out
    assert re.search(r"0\.2 M characters", out)
    assert 1.5 < float(re.findall(r"([\d.]+) characters per token", out)[0]) < 5


def test_a_small_corpus_is_used_whole(tmp_path: Path) -> None:
    texts = standard_library("json")
    train_tokenizer(corpus(tmp_path / "corpus", texts), tmp_path / "out", vocab_size=600)
    assert load(tmp_path / "out").digest == train(texts, 600).digest


@pytest.mark.parametrize("sample_bytes", [0, 1000])
def test_without_text_there_is_no_tokenizer(sample_bytes: int, tmp_path: Path) -> None:
    source = corpus(tmp_path / "corpus", ["", ""] if sample_bytes else ["text"])
    with pytest.raises(UserError, match="no text"):
        train_tokenizer(source, tmp_path / "out", 300, sample_bytes)
    assert not (tmp_path / "out").exists()
