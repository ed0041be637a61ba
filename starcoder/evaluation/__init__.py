"""Evaluation (paper §6): the paper's benchmarks, run in a sandbox, and reported beside the paper's numbers."""
