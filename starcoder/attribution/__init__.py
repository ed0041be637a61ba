"""Attribution (paper §8): from a piece of code back to the files, repositories and licences that it stands in.

    text ─┬► membership: is it known? ───────────────────────────────────────┐
          └► search: what is like it? ─► spans: what is word for word, where? ┴─► verdict: whose is it, what is owed?

An index is made of a corpus once, and answers until the corpus changes:

    index, manifest, parts               `trace index`: one folder, a part a shard, whole or not at all
    corpus                               its documents, found again by shard and row

A text is traced in it, by `tracer`, into the shapes of `trace`:

    squeezed, lexer, hashing             the views of a text: without superfluous white space, as tokens, as numbers
    membership, windows                  a Bloom filter of every fiftieth window of 50 characters, and its chains
    search/                              BM25 over tokens and 3-grams, a shard at a time, in a folder or on a cluster
    spans, suffixes                      maximal verbatim spans in what search proposes, or in the whole corpus
    surprise, boilerplate                what a span weighs: surprise × rarity; licence headers and the like nothing

What comes of it is judged and told:

    verdict, obligations                 nothing, similar, partial or verbatim; what each licence asks for
    calibration                          `trace calibrate`: how often people's own code comes to each level
    query, report                        `trace query`, `generate --trace`: as text, JSON, exit code
    overlap, service                     `trace serve`: the membership test, as editors ask for it

`starcoder/playground/` shows traces in the browser, `starcoder/evaluation/memorisation.py` counts them by benchmark.
"""
