"""Engines: what completes prompts. This kit's own, any transformers model, an OpenAI-compatible endpoint."""
