"""Tokenizing a corpus into shards beside the tokenizer alone, both in two processes, taking turns in one run.

Run by `make bench`, or `python -m tests.benchmarks.bench_shards [--processes N] [--rounds N]`. The time for shards is
all that a user waits for: starting processes, reading parquet, metadata, encoding, hashing and writing. The tokenizer
alone runs twice: on texts that its processes hold from the start, and on texts that are sent to them, as a reader must.
"""

import argparse
import contextlib
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import psutil

from starcoder.corpus.document import Document, write_documents
from starcoder.executors import Execution
from starcoder.tokenizer import Tokenizer, load, train
from starcoder.training.shards import tokenize
from starcoder.training.stream import open_shards

CHARACTERS = 56_000_000
BATCH_CHARACTERS = 2**20
CORPUS_SHARDS = 8
VOCAB_SIZE = 4096

tokenizer: Tokenizer
batches: list[list[str]] = []


def main() -> None:
    global tokenizer  # noqa: PLW0603  # forked processes inherit it
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        documents = installed_code()
        write_documents(root / "corpus", "train", documents, CORPUS_SHARDS)
        train((document.content for document in documents[::8]), VOCAB_SIZE).save(root / "tokenizer")
        tokenizer = load(root / "tokenizer")
        fill_batches(documents)
        pool = get_context("fork").Pool  # the processes have tokenizer and texts at once

        def held(processes: int) -> None:
            with pool(processes) as workers:
                list(workers.imap_unordered(encode_held, range(len(batches))))

        def sent(processes: int) -> None:
            with pool(processes) as workers:
                list(workers.imap_unordered(encode, batches))

        def shards(processes: int) -> None:
            execution = Execution(workers=processes)
            tokenize(root / "corpus", root / "tokenizer", root / "shards", execution=execution)

        rounds = [[timed(run, arguments.processes) for run in (held, sent, shards)] for _ in range(arguments.rounds)]
        tokens = open_shards(root / "shards").n_tokens
    show(["tokenizer alone, texts held", "tokenizer alone, texts sent", "into shards"], rounds, tokens)


def installed_code() -> list[Document]:
    """Source files of the installed packages, about `CHARACTERS` in all."""
    packages = Path(sysconfig.get_path("purelib"))
    documents: list[Document] = []
    left = CHARACTERS
    for path in sorted(packages.rglob("*.py")):
        text = path.read_text(encoding="utf-8", errors="replace")
        name = path.relative_to(packages)
        documents.append(Document(name.parts[0], name.as_posix(), "python", "py", (), len(text.encode()), text))
        left -= len(text)
        if left < 0:
            break
    return documents


def fill_batches(documents: list[Document]) -> None:
    filled = BATCH_CHARACTERS
    for document in documents:
        if filled >= BATCH_CHARACTERS:
            batches.append([])
            filled = 0
        batches[-1].append(document.content)
        filled += len(document.content)


def encode(texts: list[str]) -> int:
    return sum(map(len, tokenizer.encode_batch(texts)))


def encode_held(index: int) -> int:
    return encode(batches[index])


def timed(run: Callable[[int], None], processes: int) -> tuple[float, float]:
    """Wall-clock and CPU seconds of this process and those that it started."""
    start, before = time.perf_counter(), cpu_seconds()
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        run(processes)
    return time.perf_counter() - start, cpu_seconds() - before


def cpu_seconds() -> float:
    """Of this process, its children that have ended, and the fork server, which stays, with those that it has had."""
    this = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (this, *this.children()))


def show(names: list[str], rounds: list[list[tuple[float, float]]], tokens: int) -> None:
    """Print medians over the rounds, and the median share of each contender's speed that shards reach."""
    print(
        f"{tokens / 1e6:.1f} M tokens, {len(rounds)} rounds        wall s  Mtok/s  shards reach   CPU s  shards reach"
    )
    for i, name in enumerate(names):
        wall, cpu = (statistics.median(row[i][clock] for row in rounds) for clock in (0, 1))
        share = [statistics.median(row[i][clock] / row[-1][clock] for row in rounds) for clock in (0, 1)]
        print(f"{name:<30} {wall:7.2f} {tokens / wall / 1e6:7.2f} {share[0]:13.3f} {cpu:7.2f} {share[1]:13.3f}")


if __name__ == "__main__":
    main()
