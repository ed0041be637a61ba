from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import golden
from starcoder.release.folder import save
from tests.conftest import VOCAB_SIZE, Tiny

SHAPE = {"n_layer": 3, "n_head": 2, "n_embd": 32, "vocab_size": VOCAB_SIZE, "init_std": 0.3}


def written(tiny: Tiny, folder: Path, dtype: torch.dtype = torch.float32, context_length: int = 128) -> Path:
    model = StarCoder(StarCoderConfig.preset("smoke", context_length=context_length, **SHAPE)).to(dtype)
    save(model, folder, tokenizers.load(tiny.tokenizer))
    golden.write(folder, tokenizers.load(tiny.tokenizer))
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("context_length", [128, 20])
def test_it_holds_what_transformers_answers(
    tiny: Tiny, tmp_path: Path, dtype: torch.dtype, context_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "_ROWS", 100)
    folder = written(tiny, tmp_path / "model", dtype, context_length)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    vocabulary = AutoTokenizer.from_pretrained(folder)
    found = golden.read(folder)
    assert [prompt.text for prompt in found] == list(golden.PROMPTS)
    for prompt in found:
        assert vocabulary(prompt.text)["input_ids"] == prompt.ids
        end = min(len(prompt.ids), context_length)
        assert prompt.positions == [end - 3, end - 2, end - 1]
        with torch.inference_mode():
            top = theirs(torch.tensor([prompt.ids[:end]])).logits[0, -3:].topk(5)
        assert top.indices.tolist() == prompt.top_ids
        torch.testing.assert_close(torch.tensor(prompt.top_logits), top.values, atol=1e-5, rtol=1e-5)


def test_a_prompt_holds_control_tokens(tiny: Tiny, tmp_path: Path) -> None:
    last = golden.read(written(tiny, tmp_path / "model"))[-1]
    assert (last.ids[0], last.ids[-1]) == (tokenizers.FIM_PREFIX, tokenizers.FIM_MIDDLE)


@pytest.mark.parametrize("content", ["{", "[]", '{"prompts": [{"text": "x"}]}', '{"prompts": 3}'])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    assert golden.read(tmp_path) == []
    (tmp_path / golden.FILE).write_text(content)
    with pytest.raises(UserError, match=r"golden\.json is damaged"):
        golden.read(tmp_path)
