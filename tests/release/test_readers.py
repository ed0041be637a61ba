"""A small model, trained until its greedy text is not one token for ever, says the same in every program."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from starcoder import tokenizer as tokenizers
from starcoder.generation import generate_tokens
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import gguf as ggufs
from starcoder.release import golden, readers
from starcoder.release.folder import save
from starcoder.release.readers import Difference, Reference, Skipped
from starcoder.release.weights import in_memory
from starcoder.sampling import Sampling
from tests.conftest import VOCAB_SIZE, Tiny

PROMPTS = [
    "def read(self, size):\n",
    "import os\n\nclass ",
    "    # If the",
    "x = [1, 2, 30]\nfor é in",
    "<filename>a.py\n",
]
N = 80


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with its own vocabulary and unused rows, which has learned some files by heart."""
    tokenizer = tokenizers.load(tiny.tokenizer)
    text = "".join(path.read_text() for path in sorted(Path(torch.__file__).parent.glob("[a-f]*.py")))[:30_000]
    ids = torch.tensor(tokenizer.encode(text))
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 64, "vocab_size": VOCAB_SIZE + 5}
    model = StarCoder(StarCoderConfig.preset("smoke", activation="gelu_pytorch_tanh", **shape))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(400):
        starts = torch.randint(len(ids) - 65, (8, 1))
        batch = ids[starts + torch.arange(65)]  # (B, T+1)
        optimizer.zero_grad()
        model.loss(batch[:, :-1], batch[:, 1:]).backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("trained") / "model"
    save(model, folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def reference(trained: Path) -> Reference:
    model, tokenizer = StarCoder.from_pretrained(trained).eval(), tokenizers.load(trained)
    return Reference(trained, model, tokenizer, PROMPTS)


def in_transformers(reference: Reference) -> Callable[[list[int]], list[int]]:
    theirs = AutoModelForCausalLM.from_pretrained(reference.folder)

    def greedy(ids: list[int]) -> list[int]:
        tokens = torch.tensor([ids])
        options = {"max_new_tokens": N, "do_sample": False, "pad_token_id": 0}
        out = theirs.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
        return [token for token in out[0, len(ids) :].tolist() if token]

    return greedy


def in_ctranslate2(reference: Reference, folder: Path) -> Callable[[list[int]], list[int]]:
    ctranslate2 = pytest.importorskip("ctranslate2")
    ctranslate2.converters.TransformersConverter(str(reference.folder)).convert(str(folder))
    generator = ctranslate2.Generator(str(folder), device="cpu", compute_type="float32")
    symbol = reference.tokenizer.backend.id_to_token

    def greedy(ids: list[int]) -> list[int]:
        options: dict[str, Any] = {"max_length": N, "sampling_topk": 1, "include_prompt_in_result": False}
        found: list[int] = generator.generate_batch([[symbol(i) for i in ids]], **options)[0].sequences_ids[0]
        return [token for token in found if token]

    return greedy


def test_greedy_text_is_the_same_everywhere(reference: Reference, tmp_path: Path) -> None:
    ours = generate_tokens(reference.model, reference.prompts, Sampling(max_new_tokens=N))
    assert sum(map(len, ours)) >= 3 * N, "the completions end too early"
    assert all(len(set(ids)) > 9 for ids in ours if len(ids) == N), "the completions repeat a word for ever"
    for greedy in (in_transformers(reference), in_ctranslate2(reference, tmp_path / "ctranslate2")):
        assert [greedy(ids) for ids in reference.prompts] == ours
    pytest.importorskip("cyllama")
    file, config = tmp_path / "model.gguf", reference.model.config
    ggufs.write(file, config, in_memory(reference.model.state_dict()), reference.tokenizer)
    with readers._opened(file) as (_, llama):
        assert [llama(ids, N)[: len(expected)] for ids, expected in zip(reference.prompts, ours, strict=True)] == ours


@pytest.mark.parametrize("name", list(readers.READERS))
def test_every_reader_agrees(reference: Reference, name: str) -> None:
    pytest.importorskip({"llama.cpp": "cyllama"}.get(name, name))
    line = readers.READERS[name](reference)
    assert str(reference.folder) in line
    if name == "llama.cpp":
        total = sum(map(len, reference.completions))
        assert total >= 200
        assert f"the same {total} of {total} greedy tokens" in line


@pytest.mark.parametrize("name", list(readers.READERS))
def test_every_reader_notices_other_weights(reference: Reference, name: str) -> None:
    pytest.importorskip({"llama.cpp": "cyllama"}.get(name, name))
    other = StarCoder.from_pretrained(reference.folder).eval()
    with torch.no_grad():
        other.transformer.h[1].attn.c_attn.weight[-16:] *= 0.5  # the value head
    changed = Reference(reference.folder, other, reference.tokenizer, PROMPTS)
    with pytest.raises(Difference, match=r"(differ from|greedy token \d+ after prompt \d).* by \d\.\d"):
        readers.READERS[name](changed)


@pytest.mark.parametrize("name", ["transformers", "llama.cpp"])
def test_every_tokenizer_is_compared(reference: Reference, name: str) -> None:
    pytest.importorskip({"llama.cpp": "cyllama"}.get(name, name))
    other = tokenizers.train(["other text than the first " * 50], tokenizers.SMALLEST_VOCABULARY + 9)
    changed = Reference(reference.folder, reference.model, reference.tokenizer, PROMPTS)
    vars(changed)["prompts"] = [other.encode_prompt(text) for text in PROMPTS]
    with pytest.raises(Difference, match=r"tokenizes differently, first at \d+ of prompt 0"):
        readers.READERS[name](changed)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gguf_file_of_the_release_is_read_itself(reference: Reference, tmp_path: Path, dtype: torch.dtype) -> None:
    pytest.importorskip("cyllama")
    save(reference.model, tmp_path / "model", reference.tokenizer)
    file = tmp_path / "model" / "model.gguf"
    weights = in_memory(reference.model.state_dict())
    ggufs.write(file, reference.model.config, weights, reference.tokenizer, dtype)
    released = Reference(tmp_path / "model", reference.model, reference.tokenizer, golden.PROMPTS)
    assert f"llama.cpp loads {file}" in readers.llama_cpp(released)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(Difference, match="does not load"):
        readers.llama_cpp(released)


def test_models_that_a_reader_cannot_express_are_skipped(reference: Reference) -> None:
    narrow = StarCoder(reference.model.config.replace(n_inner=100, layer_norm_epsilon=1e-6))
    odd = Reference(reference.folder, narrow, reference.tokenizer, PROMPTS)
    for name, reason in (("ctranslate2", "layer_norm_epsilon"), ("llama.cpp", "n_inner")):
        pytest.importorskip({"llama.cpp": "cyllama"}.get(name, name))
        with pytest.raises(Skipped, match=reason):
            readers.READERS[name](odd)


def test_a_difference_is_told_by_its_place(reference: Reference) -> None:
    ours = torch.tensor(np.random.default_rng(0).normal(size=(7, 11)))
    assert readers.check_logits("X", reference, 2, ours, ours) == 0
    for wrong in (ours[4, 9] + 0.1, torch.tensor(torch.nan)):
        theirs = ours.clone()
        theirs[4, 9] = wrong
        with pytest.raises(Difference, match=r"X's by .* position 4, column 9 of prompt 2"):
            readers.check_logits("X", reference, 2, ours, theirs)
    with pytest.raises(Difference, match=r"\(7, 11\)"):
        readers.check_logits("X", reference, 2, ours, ours[:, :10])
