"""StarEncoder's vocabulary (paper §4.2): StarCoder's tokens as they are, and after them four of its own."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, processors
from tokenizers import Tokenizer as Backend

from starcoder.storage import atomic_file
from starcoder.tokenizer import SENTINELS, Tokenizer

SPECIAL_TOKENS = ("<pad>", "<sep>", "<cls>", "<mask>")
"""Ids V, V+1, V+2 and V+3 after the V tokens of StarCoder's tokenizer; 49152-49155 of 49,156 in the paper's run."""


def save_vocabulary(tokenizer: Tokenizer, folder: Path, context_length: int) -> None:
    """Write the files that `AutoTokenizer.from_pretrained(folder)` reads, whatever its age.

    It encodes a text as `tokenizer` does, between <cls> and <sep>. A special token that is spelled out in a text is
    text: `<mask>` is an element of SVG. Who wants a mask says `tokenizer(text, split_special_tokens=False)`.

    Args:
        tokenizer: StarCoder's.
        folder: where the files go; others stay.
        context_length: most tokens of a sequence.
    """
    backend = Backend.from_str(tokenizer.backend.to_str())
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    ids = {token: tokenizer.vocab_size + place for place, token in enumerate(SPECIAL_TOKENS)}
    backend.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>",
        pair="<cls> $A <sep> $B:1 <sep>:1",
        special_tokens=[(token, ids[token]) for token in ("<cls>", "<sep>")],
    )
    state = json.loads(backend.to_str())
    state["model"]["merges"] = [" ".join(pair) for pair in state["model"]["merges"]]  # as old readers know it
    special: dict[str, Any] = {f"{token[1:-1]}_token": token for token in SPECIAL_TOKENS}
    special["additional_special_tokens"] = list(SENTINELS)
    config = special | {
        "clean_up_tokenization_spaces": False,  # older transformers drop spaces when they decode
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "model_max_length": context_length,
        "split_special_tokens": True,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    files = {"special_tokens_map.json": special, "tokenizer_config.json": config, "tokenizer.json": state}
    for name, content in files.items():
        with atomic_file(folder / name) as partial:
            partial.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
