"""Training (paper §5.5-5.6): token shards, fill-in-the-middle, data and Lightning modules."""
