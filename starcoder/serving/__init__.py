"""An OpenAI-compatible endpoint for completion and infilling (paper §9): `starcoder serve`."""
