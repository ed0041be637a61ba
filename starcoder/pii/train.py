"""`starcoder pii train`: StarPII on labelled texts (paper §4.2), or on what is planted into the code of a corpus."""

import json
import logging
import math
import shutil
import warnings
from functools import lru_cache
from pathlib import Path
from random import Random

import torch
from lightning import seed_everything
from lightning.pytorch.utilities import rank_zero_only

from starcoder.errors import UserError
from starcoder.pii.benchmark import measure, numbers, table
from starcoder.pii.encoder import load_encoder
from starcoder.pii.examples import Example, read_examples
from starcoder.pii.finetuning import Epochs, Tuning, finetune
from starcoder.pii.ner import NerDetector, find_device, read_tokenizer
from starcoder.pii.pretrained import quiet
from starcoder.pii.pseudo import filtered
from starcoder.pii.tagger import new_classifier, small_encoder
from starcoder.release.folder import local_folder
from starcoder.storage import atomic_folder, check_replaceable

SCORES = "scores.json"
"""How good a model is; a folder without this file is none of ours."""
_HELD_OUT = 10  # one example in so many
_LARGEST_SEED = 2**32 - 1
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


def train(
    data: Path | None = None,
    test: Path | None = None,
    corpus: Path = Path("build/smoke/corpus"),
    count: int = 3000,
    encoder: str | None = None,
    tokenizer: Path = Path("build/smoke/tokenizer"),
    pseudo_labels: list[Path] | None = None,
    output: Path = Path("build/pii/starpii"),
    minutes: float | None = 14.0,
    device: str = "auto",
    devices: int = 1,
    tuning: Tuning = Tuning(),  # noqa: B008 - frozen
    seed: int = 1234,
) -> None:
    """Train a tagger of tokens, write its folder, and print how good it is on examples held out.

    Args:
        data: labelled texts, in parquet or JSON lines with the columns of bigcode/bigcode-pii-dataset; without them,
            people and secrets that nobody owns are planted into the code of `corpus`, anew in every other epoch.
        test: labelled texts to measure it with; when not given, the tenth of `data` that is held out from training and
            chooses the weights, or what is planted into other code.
        corpus: folder of a corpus, for what is planted.
        count: examples to plant for an epoch; a tenth as many to measure with.
        encoder: folder or Hub repository of a pretrained encoder, such as bigcode/starencoder, which takes the values
            of recipes/pii/starpii.yaml; without one, a small encoder is trained together with the tagger.
        tokenizer: folder of the tokenizer for that small one.
        pseudo_labels: labels that a model gave with a score; what is sure enough of them is trained on first.
        output: folder to write, which `starcoder pii scan --model` and transformers read; a run that is stopped leaves
            none, and cannot go on.
        minutes: most time to train; with pseudo-labels, half of it on them.
        device: `cpu`, `cuda`, or `auto`, a GPU when there is one.
        devices: processes that train together, a GPU each.
        tuning: how it is trained.
        seed: what planting, order and dropout are a function of.

    Raises:
        UserError: a file, the encoder or the corpus cannot be read, or a number cannot be.
    """
    _check(minutes, devices, count, tuning, seed)
    if data is None and tuning.eval_every:
        raise UserError("tuning.eval_every chooses weights by a tenth of labelled texts: name them by --data")
    check_replaceable(output.resolve(), SCORES)
    place = _device(device, devices)
    _quiet()
    seed_everything(seed, verbose=False)
    pseudo = _pseudo(pseudo_labels or [])
    epochs, held_out = _planted(corpus, count, seed) if data is None else _labelled(data, seed)
    measured = held_out if test is None else read_examples(test)
    if not measured:
        raise UserError(f"{test} has no examples to measure the model with")
    base = tokenizer if encoder is None else local_folder(encoder)
    detector = _detector(base, encoder is None, tuning)
    stages: list[Epochs] = [lambda _: pseudo, epochs] if pseudo else [epochs]
    _announce(detector, len(stages), place, minutes)
    for stage in stages:
        share = minutes / len(stages) if minutes else None
        finetune(detector, stage, held_out, tuning, share, place.type, devices, seed)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]  # the others have trained the same weights
        detector.model.to(place)  # the trainer has left it on the CPU
        _finish(detector, measured, base, output)


def _finish(detector: NerDetector, examples: list[Example], base: Path, output: Path) -> None:
    """Measure the model, write its folder, and say so."""
    result = measure(detector, examples)
    with atomic_folder(output, SCORES) as partial:
        save(detector, base, partial)
        (partial / SCORES).write_text(json.dumps(numbers(result.total), indent=2) + "\n")
    print(f"{len(examples)} examples that it has not seen, precision/recall/F1 in per cent:")
    print("\n".join(table([result])))
    print(f"written: {output}")


def save(detector: NerDetector, base: Path, folder: Path) -> None:
    """Write the model and the tokenizer of `base` as a folder that transformers reads."""
    with quiet():
        detector.model.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


@rank_zero_only
def _announce(detector: NerDetector, stages: int, place: torch.device, minutes: float | None) -> None:
    """Say what is going to take so long."""
    parameters = sum(parameter.numel() for parameter in detector.model.parameters())
    duration = f", {minutes:g} minutes at most" if minutes else ""
    first = ", on pseudo-labels first" if stages > 1 else ""
    print(f"training a tagger of {parameters:,} parameters on {place.type}{first}{duration}", flush=True)


def _check(minutes: float | None, devices: int, count: int, tuning: Tuning, seed: int) -> None:
    wrong = {
        f"minutes is {minutes}, no length of time": minutes is not None and not 0 < minutes < math.inf,
        f"devices is {devices}, below 1": devices < 1,
        f"count is {count}, below {_HELD_OUT}": count < _HELD_OUT,
        f"seed is {seed}, not between 0 and {_LARGEST_SEED}": not 0 <= seed <= _LARGEST_SEED,
        f"{tuning.batch_size} samples cannot be shared out to {devices} devices": tuning.batch_size % max(1, devices),
    }
    if any(wrong.values()):
        raise UserError("; ".join(problem for problem, holds in wrong.items() if holds))


def _device(device: str, devices: int) -> torch.device:
    """Where to train: on the first devices of a kind.

    Raises:
        UserError: there is no such device, it is not the first, or there are not as many.
    """
    place = find_device(device)
    if place.index:
        raise UserError(f"training takes the first devices: set CUDA_VISIBLE_DEVICES={place.index} and name cuda")
    if place.type == "cuda" and devices > (here := torch.cuda.device_count()):
        raise UserError(f"devices is {devices}, but {here} GPUs are here")
    return place


def _pseudo(files: list[Path]) -> list[Example]:
    """What is sure enough of the labels of some files.

    Raises:
        UserError: a file cannot be read, or nothing of all is sure enough.
    """
    found = [example for file in files for example in filtered(read_examples(file))]
    if files and not found:
        raise UserError(f"no text of {', '.join(map(str, files))} has labels that are sure enough to train on")
    return found


def _detector(base: Path, small: bool, tuning: Tuning) -> NerDetector:
    """A detector with a new classifier on the encoder of a folder, or a small one with the tokenizer of that folder."""
    try:
        backend = read_tokenizer(base)
        bert = small_encoder(backend.get_vocab_size()) if small else load_encoder(base)
        detector = NerDetector(new_classifier(bert, tuning.chunk), backend)
    except UserError as error:
        raise UserError(str(error) if str(base) in str(error) else f"{base}: {error}") from None
    if tuning.chunk > detector.window:
        raise UserError(f"tuning.chunk is {tuning.chunk}, but {base} sees {detector.window} tokens at once")
    return detector


def _planted(corpus: Path, count: int, seed: int) -> tuple[Epochs, list[Example]]:
    """Examples that are planted anew for every other epoch, and others to measure with."""
    from starcoder.pii.plant.generate import generate

    @lru_cache(maxsize=1)
    def planted(number: int) -> list[Example]:
        return list(generate(corpus, "train", count, seed + number))

    held_out = list(generate(corpus, "test", count // _HELD_OUT, seed))
    return lambda epoch: planted(epoch // 2), held_out


def _labelled(data: Path, seed: int) -> tuple[Epochs, list[Example]]:
    """The examples of a file, and a tenth of them that is held out."""
    examples = read_examples(data)
    Random(seed).shuffle(examples)
    held_out, rest = examples[::_HELD_OUT], [e for i, e in enumerate(examples) if i % _HELD_OUT]
    if not rest:
        raise UserError(f"{data} has {len(examples)} examples, too few to train on")
    return lambda _: rest, held_out


def _quiet() -> None:
    """Leave out what Lightning and transformers say of every run."""
    for name in ("lightning.pytorch", "lightning.fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for harmless in ("The '(train|val)_dataloader' does not have many workers", ".*LeafSpec"):
        warnings.filterwarnings("ignore", message=harmless)
