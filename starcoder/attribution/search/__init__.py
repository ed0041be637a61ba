"""Search by similarity: BM25 over the documents of a corpus, in this process or on a cluster (paper §8)."""
