"""Proof that a release means the same to whoever reads it as it does to us, and as it did when it was written."""

from pathlib import Path

import torch

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder
from starcoder.release import golden as goldens
from starcoder.release.folder import local_folder
from starcoder.release.readers import READERS, Difference, Reference, Skipped, check_logits


def verify(folder: str | Path, readers: str | None = None, revision: str | None = None) -> None:
    """Load a release with this kit and every reader that is installed; compare token ids, and logits or greedy tokens.

    One line a reader. Each has the model in memory beside this kit's, in fp32.

    Args:
        folder: what `starcoder export` wrote, or a Hub repository of it.
        readers: those to ask, separated by commas: transformers, ctranslate2, llama.cpp; all when not given.
        revision: branch, tag or commit of the repository; main when not given.

    Raises:
        UserError: when there is no release, or nothing to compare it with.
        Difference: when two answers differ; the command then exits with 1.
    """
    names = [name.strip() for name in readers.split(",")] if readers else list(READERS)
    if unknown := [name for name in names if name not in READERS]:
        raise UserError(f"no reader {', '.join(unknown)}; there are {', '.join(READERS)}")
    place = local_folder(folder, "*.gguf", revision=revision)
    model, vocabulary = StarCoder.from_pretrained(place, dtype=torch.float32).eval(), tokenizers.load(place)
    reference = Reference(place, model, vocabulary, goldens.PROMPTS)
    asked = [_kit(reference), *(_ask(name, reference) for name in names)]
    if not any(asked):
        raise UserError(f"nothing to compare {place} with: it has no {goldens.FILE}; pip install transformers")


def _ask(name: str, reference: Reference) -> bool:
    try:
        print(READERS[name](reference), flush=True)
    except Skipped as reason:
        print(f"{name} is skipped: {reason}", flush=True)
        return False
    return True


def _kit(reference: Reference) -> bool:
    """Compare this kit with what it said when the release was written; whether that is known."""
    known = goldens.read(reference.folder)
    if not known:
        print(f"this kit loads {reference.folder}: there is no {goldens.FILE} to compare with", flush=True)
        return False
    if changed := goldens.changed(reference.folder):
        raise Difference(f"{reference.folder}: {', '.join(changed)} is not as it was when {goldens.FILE} was written")
    differences = []
    for number, golden in enumerate(known):
        if reference.tokenizer.encode_prompt(golden.text) != golden.ids:
            raise Difference(f"{reference.folder}: we tokenize prompt {number} otherwise than {goldens.FILE} says")
        logits = reference.logits(golden.ids[: max(golden.positions) + 1])[golden.positions]  # (N, V)
        told = torch.tensor(golden.top_logits)  # (N, K)
        for ours in (logits.gather(-1, torch.tensor(golden.top_ids)), logits.topk(told.size(1)).values):
            differences.append(check_logits(goldens.FILE, reference, number, ours, told))
    print(
        f"this kit loads {reference.folder}: same token ids as {goldens.FILE}, logits equal within "
        f"{max(differences):.1e}",
        flush=True,
    )
    return True
