import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import gguf as ggufs
from starcoder.release.weights import in_memory
from starcoder.tokenizer import SENTINELS, Tokenizer
from tests.conftest import VOCAB_SIZE, Tiny

gguf = pytest.importorskip("gguf")
CONFIG = StarCoderConfig.preset("smoke", n_layer=2, n_head=2, n_embd=32, vocab_size=VOCAB_SIZE + 7, context_length=64)
PIECES = [
    *("a", "Z", "def", " ", "  ", "\n", "\t", "\r\n", "1", "2024", "é", "北京", "'s", "'LL", "_", "->", "(", '"', "\\"),
    *("\u00a0", "٣", "½", "²", "🙂", "!?", "<fim_prefix>", "\u2028", "x" * 20, " " * 9, "\x00", "ſ", "e\u0301"),
]


def write(tiny: Tiny, path: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> tuple[StarCoder, Tokenizer]:
    model, tokenizer = StarCoder(CONFIG.replace(**changes), seed=3), tokenizers.load(tiny.tokenizer)
    ggufs.write(path, model.config, in_memory(model.state_dict()), tokenizer, dtype)
    return model, tokenizer


def numbers(tensor: Any) -> Tensor:
    raw = torch.from_numpy(tensor.data.copy())
    if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
        raw = raw.view(torch.bfloat16)
    return raw.float()


@pytest.mark.parametrize(("dtype", "file_type"), [(torch.float32, 0), (torch.float16, 1), (torch.bfloat16, 32)])
def test_the_file_holds_every_weight_once(tiny: Tiny, tmp_path: Path, dtype: torch.dtype, file_type: int) -> None:
    model, _ = write(tiny, tmp_path / "model.gguf", dtype)
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.fields["general.file_type"].contents() == file_type  # as llama.h numbers them
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    state = model.state_dict()
    assert len(tensors) == len(state)
    for ours, theirs in {
        "wte.weight": "token_embd.weight",
        "wpe.weight": "position_embd.weight",
        "ln_f.bias": "output_norm.bias",
        "h.1.ln_1.weight": "blk.1.attn_norm.weight",
        "h.0.attn.c_attn.weight": "blk.0.attn_qkv.weight",
        "h.1.attn.c_proj.bias": "blk.1.attn_output.bias",
        "h.0.mlp.c_fc.weight": "blk.0.ffn_up.weight",
        "h.1.mlp.c_proj.weight": "blk.1.ffn_down.weight",
    }.items():
        tensor = state[f"transformer.{ours}"]
        expected = tensor.to(dtype).float() if tensor.ndim > 1 and "wpe" not in ours else tensor
        assert torch.equal(numbers(tensors[theirs]).view_as(expected), expected), ours


def test_the_file_holds_the_shape_and_the_vocabulary(tiny: Tiny, tmp_path: Path) -> None:
    write(tiny, tmp_path / "model.gguf", layer_norm_epsilon=1e-4)
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    content = {name: field.contents() for name, field in fields.items()}
    assert content["general.architecture"] == "starcoder"
    assert content["starcoder.attention.head_count_kv"] == 1
    assert content["starcoder.attention.layer_norm_epsilon"] == pytest.approx(1e-4)
    assert content["starcoder.feed_forward_length"] == 128
    tokens, kinds = content["tokenizer.ggml.tokens"], content["tokenizer.ggml.token_type"]
    assert tokens[: len(SENTINELS)] == list(SENTINELS)
    assert len(tokens) == len(kinds) == VOCAB_SIZE + 7
    assert [kinds.count(kind) for kind in (3, 1, 5)] == [len(SENTINELS), VOCAB_SIZE - len(SENTINELS), 7]
    assert len(content["tokenizer.ggml.merges"]) == VOCAB_SIZE - tokenizers.SMALLEST_VOCABULARY
    assert not content["tokenizer.ggml.add_bos_token"]
    ids = {name: content[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown")}
    assert ids == dict.fromkeys(ids, 0)
    assert SENTINELS[0] == "<|endoftext|>"
    for name, spelling in (("pre", "prefix"), ("suf", "suffix"), ("mid", "middle"), ("pad", "pad")):
        assert SENTINELS[content[f"tokenizer.ggml.fim_{name}_token_id"]] == f"<fim_{spelling}>"


def test_llama_cpp_cuts_text_as_we_do(tiny: Tiny, tmp_path: Path) -> None:
    engine = pytest.importorskip("cyllama.llama.llama_cpp")
    engine.disable_logging()
    _, tokenizer = write(tiny, tmp_path / "model.gguf")
    model = engine.LlamaModel(str(tmp_path / "model.gguf"), engine.LlamaModelParams())
    vocabulary = model.get_vocab()
    rng = random.Random(0)
    sources = [path.read_text() for path in sorted(Path(torch.__file__).parent.glob("*.py"))[:20]]
    for text in [*("".join(rng.choices(PIECES, k=rng.randint(1, 25))) for _ in range(3000)), *sources]:
        if "\x00" in text:  # ends a text in C
            continue
        assert list(vocabulary.tokenize(text, False, False)) == tokenizer.encode(text), text
        assert list(vocabulary.tokenize(text, False, True)) == tokenizer.encode_prompt(text), text
    assert [vocabulary.fim_prefix(), vocabulary.fim_middle(), vocabulary.fim_suffix()] == [1, 2, 3]
    assert vocabulary.is_eog(0)


def test_what_would_be_misread_is_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"n_inner = 4 · n_embd = 128, but this model's is 96"):
        write(tiny, tmp_path / "model.gguf", n_inner=96)
    assert not (tmp_path / "model.gguf").exists()
    monkeypatch.setattr(ggufs, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install 'starcoder-kit"):
        ggufs.check(CONFIG)


def test_numbers_too_large_for_half_precision_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    model, tokenizer = StarCoder(CONFIG), tokenizers.load(tiny.tokenizer)
    state = model.state_dict()
    state["transformer.h.1.mlp.c_fc.weight"][3, 4] = 1e5
    for value, dtype in ((1e5, torch.float16), (float("nan"), torch.float32), (float("-inf"), torch.bfloat16)):
        state["transformer.h.1.mlp.c_fc.weight"][3, 4] = value
        with pytest.raises(UserError, match=r"h\.1\.mlp\.c_fc\.weight holds values that are no finite numbers"):
            ggufs.write(tmp_path / "model.gguf", model.config, in_memory(state), tokenizer, dtype)
