"""Programs besides this kit that read a release, each made to answer the same prompts.

A reader that answers otherwise is a `Difference`; one that is not installed, or cannot read this model, is `Skipped`.

Shapes: T tokens of a prompt, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from starcoder.errors import UserError
from starcoder.generation import generate_tokens
from starcoder.model import StarCoder
from starcoder.release import gguf as ggufs
from starcoder.release.folder import read_weights
from starcoder.sampling import Sampling
from starcoder.tokenizer import EOD, Tokenizer

TOLERANCE = 1e-4
"""Largest difference of logits, as a share of the largest logit."""
TIE = 5e-3
"""How near to the likeliest token, by that measure, another may be that llama.cpp takes instead.

It computes GELU from a table of half-precision numbers, and keeps keys and values in half precision.
"""
GREEDY_TOKENS = 64
CTRANSLATE2_EPSILON = 1e-5
"""What CTranslate2 adds to the variance in every layer norm, whatever the model's configuration says."""


class Difference(UserError):  # noqa: N818  # nobody has erred
    """Two readers of one release disagree: that is no mistake in the command."""

    code = 1


class Skipped(Exception):  # noqa: N818  # nothing is wrong
    """A reader says why it has not read the release."""


@dataclass(frozen=True)
class Reference:
    """What this kit makes of a release.

    Args:
        folder: the release.
        model: its model, in fp32.
        tokenizer: its tokenizer.
        texts: prompts, in which a sentinel's spelling is the control token.
    """

    folder: Path
    model: StarCoder
    tokenizer: Tokenizer
    texts: Sequence[str]

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Token ids of the prompts."""
        return [self.tokenizer.encode_prompt(text) for text in self.texts]

    def fitting(self, share: float = 1.0) -> list[list[int]]:
        """The prompts' beginnings that fill no more than a share of the model's context."""
        return [ids[: int(share * self.model.config.context_length)] for ids in self.prompts]

    @torch.inference_mode()
    def logits(self, ids: list[int]) -> Tensor:
        """Logits (T, V) at every position of a prompt."""
        out: Tensor = self.model(torch.tensor([ids]))[0]
        return out

    @cached_property
    def completions(self) -> list[list[int]]:
        """The likeliest token after each `fitting(0.5)` prompt, again and again; the end of the document counts."""
        sampling = Sampling(max_new_tokens=GREEDY_TOKENS)
        completions = generate_tokens(self.model, self.fitting(0.5), sampling)
        room = [self.room(ids) for ids in self.fitting(0.5)]
        return [ids if len(ids) == n else [*ids, EOD] for ids, n in zip(completions, room, strict=True)]

    def room(self, ids: list[int]) -> int:
        """How many tokens may follow a prompt."""
        return min(GREEDY_TOKENS, self.model.config.context_length - len(ids))


def transformers(reference: Reference) -> str:
    """The Auto classes of transformers: ids and logits."""
    _require("transformers")
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it without types
    theirs = AutoModelForCausalLM.from_pretrained(reference.folder, dtype=torch.float32)
    vocabulary = AutoTokenizer.from_pretrained(reference.folder)
    _compare_ids("transformers", reference, lambda text: vocabulary(text)["input_ids"])

    @torch.inference_mode()
    def logits(ids: list[int]) -> Tensor:
        out: Tensor = theirs(torch.tensor([ids])).logits[0]
        return out

    difference = _compare_logits("transformers", reference, logits)
    return f"transformers loads {reference.folder}: same token ids, logits equal within {difference:.1e}"


def ctranslate2(reference: Reference) -> str:
    """CTranslate2, by its own converter, which reads through transformers: logits."""
    _require("ctranslate2", "transformers")
    if (epsilon := reference.model.config.layer_norm_epsilon) != CTRANSLATE2_EPSILON:
        raise Skipped(f"it has layer_norm_epsilon {CTRANSLATE2_EPSILON} alone, the model {epsilon}")
    import numpy as np
    from ctranslate2 import Generator
    from ctranslate2.converters import TransformersConverter

    with TemporaryDirectory() as folder:
        TransformersConverter(str(reference.folder)).convert(folder, force=True)
        generator = Generator(folder, device="cpu", compute_type="float32")

        def logits(ids: list[int]) -> Tensor:
            return torch.from_numpy(np.array(generator.forward_batch([ids])))[0]

        difference = _compare_logits("CTranslate2", reference, logits)
    return f"CTranslate2 loads {reference.folder}: logits equal within {difference:.1e}"


def llama_cpp(reference: Reference) -> str:
    """llama.cpp inside cyllama, which has no working access to logits: ids, and greedy tokens.

    It reads the release's GGUF files or, where there is none, one that is made of it for a moment.
    """
    _require("cyllama")
    if lines := [_llama_cpp(reference, file, file) for file in sorted(reference.folder.glob("*.gguf"))]:
        return "\n".join(lines)
    try:
        ggufs.check(reference.model.config)
    except UserError as error:
        raise Skipped(str(error)) from None
    with TemporaryDirectory() as folder:
        file, config = Path(folder, "model.gguf"), reference.model.config
        ggufs.write(file, config, read_weights(reference.folder, config), reference.tokenizer)
        return _llama_cpp(reference, file, reference.folder)


def _llama_cpp(reference: Reference, file: Path, shown: Path) -> str:
    with _opened(file) as (tokenize, greedy):
        _compare_ids(f"llama.cpp, reading {shown},", reference, tokenize)
        told = []
        for number, (ids, expected) in enumerate(zip(reference.fitting(0.5), reference.completions, strict=True)):
            told.append(_same_tokens(reference, number, expected, greedy(ids, len(expected))))
    equal, total = sum(told), sum(map(len, reference.completions))
    tie = "" if equal == total else ", then near ties"
    return f"llama.cpp loads {shown}: same token ids, the same {equal} of {total} greedy tokens{tie}"


def _same_tokens(reference: Reference, number: int, expected: list[int], found: list[int]) -> int:
    """How many tokens agree, before one that is as likely for us, give or take `TIE`."""
    pairs = zip(expected, found, strict=True)
    same = next((n for n, (ours, theirs) in enumerate(pairs) if ours != theirs), len(expected))
    if same < len(expected):
        logits = reference.logits([*reference.fitting(0.5)[number], *expected[:same]])[-1]  # (V,)
        ours, theirs = expected[same], found[same]
        short = ((logits[ours] - logits[theirs]) / logits.abs().max()).item()
        if short > TIE:
            raise Difference(
                f"{reference.folder}: llama.cpp's greedy token {same} after prompt {number} is {theirs} instead of "
                f"{ours}, whose logit is larger by {short:.1e} of the largest"
            )
    return same


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Callable[[str], list[int]], Callable[[list[int], int], list[int]]]]:
    """What cuts a text into ids, and what takes the likeliest token again and again, in llama.cpp."""
    from cyllama.llama import llama_cpp as engine

    engine.disable_logging()
    on_cpu = engine.LlamaModelParams()
    on_cpu.n_gpu_layers = 0
    try:
        model = engine.LlamaModel(str(file), on_cpu)
    except Exception as error:
        raise Difference(f"llama.cpp does not load {file}: {error}") from None
    vocabulary = model.get_vocab()

    def greedy(ids: list[int], n: int) -> list[int]:
        options = engine.LlamaContextParams()
        options.n_ctx = options.n_batch = len(ids) + n
        context, sampler = engine.LlamaContext(model, options), engine.LlamaSampler(engine.LlamaSamplerChainParams())
        sampler.add_greedy()
        tokens: list[int] = []
        context.decode(engine.llama_batch_get_one(ids, 0))
        while len(tokens) < n:
            tokens.append(sampler.sample(context, -1))
            context.decode(engine.llama_batch_get_one(tokens[-1:], len(ids) + len(tokens) - 1))
        return tokens

    yield lambda text: list(vocabulary.tokenize(text, False, True)), greedy


READERS: dict[str, Callable[[Reference], str]] = {
    "transformers": transformers,
    "ctranslate2": ctranslate2,
    "llama.cpp": llama_cpp,
}


def _require(*packages: str) -> None:
    if missing := [name for name in packages if find_spec(name) is None]:
        raise Skipped(f"not installed: pip install {' '.join(missing)}")


def _compare_ids(reader: str, reference: Reference, tokenize: Callable[[str], list[int]]) -> None:
    for number, (text, ours) in enumerate(zip(reference.texts, reference.prompts, strict=True)):
        if (theirs := tokenize(text)) != ours:
            place = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if len({*pair}) > 1), "the end")
            raise Difference(f"{reference.folder}: {reader} tokenizes differently, first at {place} of prompt {number}")


def _compare_logits(reader: str, reference: Reference, logits: Callable[[list[int]], Tensor]) -> float:
    return max(
        check_logits(reader, reference, number, reference.logits(ids), logits(ids))
        for number, ids in enumerate(reference.fitting())
    )


def check_logits(reader: str, reference: Reference, number: int, ours: Any, theirs: Any) -> float:
    """The largest difference of logits (T, V) of a prompt, as a share of the largest logit.

    Raises:
        Difference: when it is above `TOLERANCE`.
    """
    if ours.shape != theirs.shape:
        raise Difference(f"{reference.folder}: {reader} gives logits {tuple(theirs.shape)}, we {tuple(ours.shape)}")
    gaps = (ours - theirs).abs() / theirs.nan_to_num().abs().max()
    worst = gaps.max().item()
    if not worst <= TOLERANCE:  # a difference that is no number is one
        position, column = divmod(int(gaps.nan_to_num(torch.inf).argmax()), gaps.shape[1])
        raise Difference(
            f"{reference.folder}: logits differ from {reader}'s by {worst:.1e} of the largest, "
            f"most at position {position}, column {column} of prompt {number}"
        )
    return float(worst)
