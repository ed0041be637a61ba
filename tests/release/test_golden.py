import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import golden
from starcoder.release.folder import save
from starcoder.release.verify import verify
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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", 5),
        ("text", None),
        ("ids", []),
        ("ids", [VOCAB_SIZE]),
        ("ids", [-1, 3]),
        ("ids", "abc"),
        ("ids", [1.0]),
        ("positions", []),
        ("positions", [9999, 9999, 9999]),
        ("positions", [-3, -2, -1]),
        ("positions", None),
        ("top_ids", [[1, 2, 3, 4, VOCAB_SIZE]] * 3),
        ("top_ids", [[1], [2, 3], [4]]),
        ("top_ids", [[]] * 3),
        ("top_ids", [[1]]),
        ("top_ids", 7),
        ("top_logits", [[None] * 5] * 3),
        ("top_logits", [[float("nan")] * 5] * 3),
        ("top_logits", [[10**400] * 5] * 3),
        ("top_logits", [[1.0] * 4] * 3),
        ("top_logits", ["abcde"] * 3),
    ],
)
def test_what_no_model_can_have_answered_is_refused(tiny: Tiny, tmp_path: Path, field: str, value: object) -> None:
    folder = written(tiny, tmp_path / "model")
    content = json.loads((folder / golden.FILE).read_text())
    content["prompts"][1][field] = value
    (folder / golden.FILE).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"golden\.json is damaged: {field} of prompt 1 cannot be"):
        verify(folder, readers="transformers")


def test_no_prompts_are_no_answers(tmp_path: Path) -> None:
    (tmp_path / golden.FILE).write_text('{"prompts": []}')
    with pytest.raises(UserError, match=r"golden\.json is damaged: it has no prompts"):
        golden.read(tmp_path)
