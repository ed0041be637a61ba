"""One small, real chain of artefacts for all tests: documents of the standard library, a tokenizer, token shards."""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from starcoder import tokenizer as tokenizers
from starcoder.corpus.document import Document, write_documents
from starcoder.training.shards import tokenize

VOCAB_SIZE = 512


@dataclass(frozen=True)
class Tiny:
    """Folders of the small chain."""

    corpus: Path
    tokenizer: Path
    train: Path
    validation: Path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    root = tmp_path_factory.mktemp("tiny")
    chain = Tiny(root / "corpus", root / "tokenizer", root / "shards" / "train", root / "shards" / "validation")
    documents = [
        Document("cpython", path.name, "python", "py", ("PSF-2.0",), path.stat().st_size, path.read_text())
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-d]*.py"))
    ]
    chain.corpus.mkdir()
    for split, part in (("train", documents[2:]), ("validation", documents[:2])):
        write_documents(chain.corpus, split, part)
    tokenizers.train((document.content for document in documents), VOCAB_SIZE).save(chain.tokenizer)
    for split, folder in (("train", chain.train), ("validation", chain.validation)):
        tokenize(chain.corpus, chain.tokenizer, folder, split=split, num_workers=0)
    return chain
