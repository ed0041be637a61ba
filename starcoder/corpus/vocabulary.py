"""The tokenizer's vocabulary, learned from a sample of a corpus (§5.3)."""

import heapq
import random
from pathlib import Path

from starcoder.corpus.document import read_documents
from starcoder.errors import UserError
from starcoder.tokenizer import train


def train_tokenizer(
    corpus: Path, output: Path, vocab_size: int = 49_152, sample_bytes: int = 200_000_000, seed: int = 1234
) -> None:
    """Train the tokenizer on a sample of the corpus and write it as a folder that transformers loads.

    Args:
        corpus: folder of the corpus; only its train split is read.
        output: folder to write the tokenizer's files to.
        vocab_size: number of tokens, the 19 sentinels and 256 bytes included.
        sample_bytes: about how much text to learn from, in bytes of UTF-8; a smaller corpus is used whole.
        seed: seed of the sample, in which every document has the same chance.

    Raises:
        UserError: when the corpus is empty, or the vocabulary too small or too large for it.
    """
    sample = _sample(corpus, sample_bytes, seed)
    characters = sum(map(len, sample))
    print(
        f"tokenizer: learning {vocab_size:,} tokens from {len(sample):,} documents, {characters / 1e6:.1f} M characters"
    )
    tokenizer = train(sample, vocab_size, progress=True)
    tokenizer.save(output)
    probe = random.Random(seed).sample(sample, min(len(sample), 500))
    ratio = sum(map(len, probe)) / max(1, sum(map(len, tokenizer.encode_batch(probe))))
    print(f"tokenizer: {ratio:.2f} characters per token on {len(probe)} documents, written to {output}")


def _sample(corpus: Path, sample_bytes: int, seed: int) -> list[str]:
    """Draw documents at random in one pass until `sample_bytes` are reached: each language keeps its share.

    Every document gets a random key, and those with the highest keys are kept.
    """
    rng, kept = random.Random(seed), 0
    heap: list[tuple[float, int, str]] = []
    for document in read_documents(corpus, "train"):
        size = len(document.content.encode())
        heapq.heappush(heap, (rng.random(), size, document.content))
        kept += size
        while heap and kept - heap[0][1] >= sample_bytes:
            kept -= heapq.heappop(heap)[1]
    if not kept:
        raise UserError(f"no text to train a tokenizer on: {corpus} gave none for a sample of {sample_bytes} bytes")
    return [content for _, _, content in heap]
