"""Responsible release (paper §9): checkpoints as folders that the rest of the world loads unchanged."""
