"""The whole paper in five minutes: corpus, tokenizer, shards, StarCoderBase, StarCoder and a report, on a laptop."""
