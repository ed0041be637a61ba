"""Small corpora of made-up code, every function of which is somebody's alone."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from starcoder.corpus.document import Document, write_documents
from starcoder.corpus.summary import seal

_WORDS = ("buffer", "cursor", "header", "index", "ledger", "matrix", "packet", "parser", "quota", "signal", "tenant")


def function(name: str) -> str:
    """Code of some twenty lines that depends on the name alone."""
    random = Random(name)

    def word() -> str:
        return f"{random.choice(_WORDS)}_{random.randrange(10**4)}"

    a, b, c = word(), word(), word()
    lines = [f"def {word()}({a}, {b}={random.randrange(999)}):", f'    """{word()} {word()} of {word()}."""']
    for _ in range(random.randrange(12, 20)):
        lines.append(f"    {word()} = {random.choice((a, b, c))}.{word()}({b} + {random.randrange(10**5)}, '{word()}')")
    return "\n".join([*lines, f"    return {a}", ""])


def file(repository: str, path: str, copies: int = 1, license: str = "MIT") -> Document:
    """A module of three functions, after imports that many others have."""
    content = "import os\nimport sys\nfrom pathlib import Path\n\n\n"
    content += "\n\n".join(function(f"{repository}/{path}/{n}") for n in range(3))
    size = len(content)
    return Document(
        repository, path, "python", "py", (license,), size, content, source="test", copies=copies, commit="c0ffee"
    )


def files(owner: str, repositories: int, each: int) -> list[Document]:
    """Modules of some repositories of an owner."""
    return [file(f"{owner}/lib{n}", f"src/{m}.py") for n in range(repositories) for m in range(each)]


def write_corpus(folder: Path, train: Sequence[Document], validation: Sequence[Document] = (), count: int = 3) -> Path:
    """Write a finished corpus of so many training shards."""
    for split, documents in (("train", train), ("validation", validation), ("rejected", ())):
        write_documents(folder, split, documents, count if split == "train" else 1)
    seal(folder, {"options": {}, "redactor": "none"}, {})
    return folder
