"""`starcoder copies`: how often a model writes training data down word for word, or personal data (the card's §9)."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.evaluation.engines.local import weights_digest
from starcoder.generation import Prompt, check_vocabulary, sample_tokens
from starcoder.model import StarCoder
from starcoder.pii.detectors import open_detector
from starcoder.pii.entity import Detector
from starcoder.pii.redaction import redactable
from starcoder.release.folder import local_folder
from starcoder.release.verbatim import find_copies
from starcoder.sampling import Sampling
from starcoder.storage import atomic_file
from starcoder.tokenizer import Tokenizer
from starcoder.training.stream import Shards, open_shards


def measure_copies(
    model: str,
    shards: list[Path] | Path,
    output: Path,
    samples: int = 1000,
    max_new_tokens: int = 256,
    temperature: float = 0.8,
    top_p: float = 0.95,
    n_tokens: int = 50,
    seed: int = 0,
    pii_model: str | None = None,
) -> None:
    """Count the completions that hold verbatim training data, and personal data, for `starcoder card --measured`.

    Each completion begins a new document, without a prompt: what is measured is what the model says by itself. A prompt
    that stands in the training data would draw more copies. Temperature and top_p are those with which the paper draws
    many completions of one prompt; the lower the temperature, the more of them are the same few.

    Args:
        model: folder of a model and its tokenizer, or a Hub repository.
        shards: folders of the token shards that the model was trained on.
        output: JSON file to write: the count, and every copy with its text and where it stands.
        samples: number of completions.
        max_new_tokens: longest completion in tokens.
        temperature: what logits are divided by; 0 takes the likeliest token, and makes all completions one.
        top_p: choose among the fewest likeliest tokens whose probabilities sum to this.
        n_tokens: a copy has at least so many tokens in a row that stand so in one document.
        seed: seed of the random choices.
        pii_model: folder or Hub repository of a NER model that finds names and passwords in completions, besides the
            e-mails, keys and IP addresses that rules find.

    Raises:
        UserError: when model or shards are missing or do not belong together, or a number cannot be.
    """
    folders = [shards] if isinstance(shards, Path) else shards
    _check(samples, n_tokens, folders, output)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed)
    folder = local_folder(model)
    tokenizer = tokenizers.load(folder)
    data = [_open(location, tokenizer) for location in folders]
    network = StarCoder.from_pretrained(folder)
    check_vocabulary(network, tokenizer)
    longest = _longest(network, max_new_tokens, n_tokens)
    weights = weights_digest(network)
    detector = open_detector(pii_model)
    completions = _sample(network, tokenizer, samples, sampling)
    personal = _personal(detector, [tokenizer.decode(completion) for completion in completions])
    copies = find_copies(completions, data, n_tokens)
    sampled = (
        f"completions of at most {longest} tokens that begin a new document, without a prompt, at temperature "
        f"{temperature:g}, top_p {top_p:g} and seed {seed}"
    )
    content = {
        "weights": weights,
        "shards": {each.location: each.digest for each in data},
        "verbatim": {
            "samples": samples,
            "matches": len(copies),
            "method": f"{sampled}; {_copying(n_tokens, weights, data)}",
        },
        "pii": {
            "samples": samples,
            "matches": personal.total(),
            "labels": personal,
            "method": f"{sampled}; {_revealing(personal, detector, weights)}",
        },
        "longest": max((copy.tokens for copy in copies), default=0),
        "copies": [asdict(copy) | {"text": tokenizer.decode(copy.of(completions))} for copy in copies],
    }
    with atomic_file(output) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")  # ASCII: a text may end within a character
    longest_copy = f"; the longest copy has {content['longest']:,}" if copies else ""
    print(f"{len(copies):,} of {samples:,} completions copy {n_tokens} tokens or more{longest_copy}")
    print(f"{personal.total():,} of {samples:,} completions hold personal data ({_listed(personal)})")
    print(f"wrote {output}")


def _check(samples: int, n_tokens: int, folders: list[Path], output: Path) -> None:
    for option, number in (("samples", samples), ("n_tokens", n_tokens)):
        if number < 1:
            raise UserError(f"--{option} is {number}, below 1")
    if not folders:
        raise UserError("--shards names no folder")
    if output.is_dir():
        raise UserError(f"--output {output} is a folder: name a file")


def _longest(model: StarCoder, max_new_tokens: int, n_tokens: int) -> int:
    """Most tokens of a completion, which must have room for a copy."""
    longest = min(max_new_tokens, model.config.context_length - 1)
    if n_tokens > longest:
        raise UserError(f"no completion has {n_tokens} tokens: max_new_tokens and the context allow {longest}")
    return longest


def _copying(n_tokens: int, weights: str, data: list[Shards]) -> str:
    """What counts as a copy of which model from what."""
    return (
        f"a match has {n_tokens} tokens or more in a row that stand so in one document of the training data; weights "
        f"{weights[:12]}, token shards " + ", ".join(f"{each.digest[:12]} of {each.n_tokens:,} tokens" for each in data)
    )


def _revealing(personal: Counter[str], detector: Detector, weights: str) -> str:
    """What counts as personal data, how much there is of it, who has found it, and in whose words."""
    return (
        "a match has something that `starcoder pii redact` would replace, by the label that stands first in it: "
        f"{_listed(personal)}; detector {detector.name}, weights {weights[:12]}"
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {label}" for label, count in sorted(counts.items())) or "nothing"


def _open(location: Path, tokenizer: Tokenizer) -> Shards:
    if not location.is_dir():
        raise UserError(f"{location} is no folder of token shards; those behind a URL must be fetched first")
    shards = open_shards(location, tokenizer)
    if not shards.n_tokens:
        raise UserError(f"the shards {location} hold no tokens")
    return shards


def _personal(detector: Detector, texts: list[str]) -> Counter[str]:
    """The completions with something that redaction would replace, counted by the label of the first of it."""
    found = (redactable(text, entities) for text, entities in zip(texts, detector.detect_all(texts), strict=True))
    return Counter(replacements[0][0].label for replacements in found if replacements)


def _sample(model: StarCoder, tokenizer: Tokenizer, samples: int, sampling: Sampling) -> list[list[int]]:
    """The completions of nothing, each with random numbers of its own."""
    prompt = Prompt((), [(sampling.seed, number) for number in range(samples)])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = sample_tokens(model.to(device), [prompt], sampling, tokenizer.vocab_size)
    ended = tqdm(found, "completions", total=samples, disable=None)
    return [sample.ids for sample in sorted(ended, key=lambda sample: sample.sample)]
