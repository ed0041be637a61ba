"""Tokenizing a corpus into shards against the tokenizer alone, both on the same number of processes.

Run by `make bench`, or `python -m tests.benchmarks.bench_shards [processes] [rounds]`. Shards include everything that a
user waits for: starting the processes, reading parquet, metadata, encoding, hashing and writing.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from starcoder.corpus.document import Document, read_documents, write_documents
from starcoder.tokenizer import Tokenizer, load, train
from starcoder.training.shards import tokenize
from starcoder.training.stream import import_litdata, open_shards

CHARACTERS = 56_000_000
VOCAB_SIZE = 4096


def main(processes: int = 2, rounds: int = 5) -> None:
    import_litdata()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_documents(root / "corpus", "train", list(installed_code(root / "corpus")))
        train((d.content for d in list(read_documents(root / "corpus", "train"))[::8]), VOCAB_SIZE).save(root / "tok")
        alone, shards = [], []
        for _ in range(rounds):
            alone.append(tokenizer_alone(root, processes))
            start = time.perf_counter()
            tokenize(root / "corpus", root / "tok", root / "shards", num_workers=processes)
            shards.append(time.perf_counter() - start)
        tokens = open_shards(root / "shards").n_tokens
    ratios = sorted(a / s for a, s in zip(alone, shards, strict=True))
    print(f"{tokens / 1e6:.1f} M tokens, {processes} processes, {rounds} rounds, medians")
    print(f"tokenizer alone  {median(alone):6.2f} s  {tokens / median(alone) / 1e6:.2f} M tokens/s")
    print(f"into shards      {median(shards):6.2f} s  {tokens / median(shards) / 1e6:.2f} M tokens/s")
    print(f"shards / alone   {median(ratios):.3f}  (range {ratios[0]:.3f} … {ratios[-1]:.3f})")


def installed_code(folder: Path) -> Iterator[Document]:
    """Source files of the installed packages, as many as there are or `CHARACTERS` in all."""
    folder.mkdir()
    packages = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    left = CHARACTERS
    for path in sorted(packages.rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        name = path.relative_to(packages)
        yield Document(name.parts[0], name.as_posix(), "python", "py", ("MIT",), len(text.encode()), text)
        left -= len(text)
        if left < 0:
            return


def tokenizer_alone(root: Path, processes: int) -> float:
    """Seconds until every process has encoded its share of the texts, held in memory before the clock starts."""
    context = get_context("spawn")
    ready, go, done = (context.Barrier(processes + 1) for _ in range(3))
    workers = [
        context.Process(target=encode_share, args=(root, i, processes, ready, go, done)) for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    ready.wait()
    start = time.perf_counter()
    go.wait()
    done.wait()
    seconds = time.perf_counter() - start
    for worker in workers:
        worker.join()
    return seconds


def encode_share(root: Path, index: int, processes: int, ready: object, go: object, done: object) -> None:
    tokenizer: Tokenizer = load(root / "tok")
    texts = [document.content for document in read_documents(root / "corpus", "train")][index::processes]
    ready.wait()
    go.wait()
    for i in range(0, len(texts), 100):
        tokenizer.encode_batch(texts[i : i + 100])
    done.wait()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
