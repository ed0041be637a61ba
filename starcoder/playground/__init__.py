"""The playground: a local page to complete and infill code, and to trace where it comes from (paper §8)."""
