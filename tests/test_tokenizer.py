import json
import pickle
import random
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from starcoder.errors import UserError
from starcoder.tokenizer import EOD, SENTINELS, Sentinel, Tokenizer, load, train

RELEASED = Path(__file__).parents[1] / "../shared/data/starcoder-tokenizer"
STDLIB = Path(sysconfig.get_path("stdlib"))
PLANES_4_TO_7 = (0x40000, 0x7FFFF)

unicode_text = st.one_of(
    st.text(),
    st.text(st.characters(categories=["Cn", "Co", "Cc", "Cf", "No", "Nl", "Zs"])),
    st.text(st.characters(min_codepoint=0x10000)),
    st.text(st.characters(max_codepoint=0xFF)),
    st.text("ab'sdlrev \n\t\r 0189²٣.<|>_é"),
)


def standard_library(*packages: str) -> list[str]:
    return [path.read_text() for package in packages for path in sorted((STDLIB / package).glob("*.py"))]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(standard_library("email", "json", "asyncio"), 2000)


@pytest.fixture(scope="module")
def released() -> Tokenizer:
    if not RELEASED.is_dir():
        pytest.skip("the released StarCoder tokenizer is not on this machine")
    return load(RELEASED)


def reference(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.backend.encode(text, add_special_tokens=False).ids)


def vocabulary_pieces(tokenizer: Tokenizer) -> list[str]:
    pieces = (tokenizer.decode([i]) for i in range(len(SENTINELS), tokenizer.vocab_size))
    return [piece for piece in pieces if "\ufffd" not in piece]


class TestLossless:
    @settings(max_examples=500)
    @given(text=unicode_text)
    def test_every_string_comes_back(self, tokenizer: Tokenizer, text: str) -> None:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert all(len(SENTINELS) <= i < tokenizer.vocab_size for i in ids)

    def test_every_code_point_comes_back(self, tokenizer: Tokenizer) -> None:
        text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
        assert tokenizer.decode(tokenizer.encode(text)) == text

    @given(raw=st.binary())
    def test_bytes_that_are_no_text_come_back(self, tokenizer: Tokenizer, raw: bytes) -> None:
        text = raw.decode("utf-8", "surrogateescape")
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids, errors="surrogateescape") == text
        assert tokenizer.decode(ids, errors="replace") == raw.decode("utf-8", "replace")

    @pytest.mark.parametrize("text", ["\ud800", "ok \udfff", "\udc80\udd00"])
    def test_other_lone_surrogates_are_refused(self, tokenizer: Tokenizer, text: str) -> None:
        with pytest.raises(UserError, match=r"lone surrogate U\+D"):
            tokenizer.encode(text)

    def test_split_character_decodes_by_halves(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.encode("漢")
        assert len(ids) > 1
        halves = [tokenizer.decode(part, errors="surrogateescape") for part in (ids[:1], ids[1:])]
        assert "".join(halves).encode("utf-8", "surrogateescape").decode() == "漢"


class TestSentinels:
    def test_ids(self, tokenizer: Tokenizer) -> None:
        assert len(SENTINELS) == 19
        assert [tokenizer.backend.token_to_id(sentinel) for sentinel in SENTINELS] == list(range(19))
        assert SENTINELS[Sentinel.EOD] == "<|endoftext|>"
        assert SENTINELS[Sentinel.FIM_SUFFIX] == "<fim_suffix>"
        assert SENTINELS[Sentinel.REPONAME] == "<reponame>"

    @pytest.mark.parametrize("sentinel", SENTINELS)
    def test_text_cannot_inject_control_tokens(self, tokenizer: Tokenizer, sentinel: str) -> None:
        for text in (sentinel, f"x = '{sentinel}'\n", f"<{sentinel}>" * 3, f"{sentinel}\udcff"):
            ids = tokenizer.encode(text)
            assert min(ids) >= len(SENTINELS)
            assert tokenizer.decode(ids, errors="surrogateescape") == text

    def test_prompt_carries_control_tokens(self, tokenizer: Tokenizer) -> None:
        prompt = "<fim_prefix>def f(<fim_suffix>\n<fim_middle>"
        ids = tokenizer.encode_prompt(prompt)
        expected = [1, *tokenizer.encode("def f("), 3, *tokenizer.encode("\n"), 2]
        assert ids == expected
        assert tokenizer.decode(ids) == prompt
        assert tokenizer.encode_prompt("") == []
        assert tokenizer.encode_prompt("<fim_prefix") == tokenizer.encode("<fim_prefix")

    def test_training_does_not_learn_them(self) -> None:
        texts = standard_library("json")
        assert train([f"<fim_prefix>{text}<|endoftext|>" for text in texts], 600).digest == train(texts, 600).digest


class TestSameIdsAsReference:
    """tiktoken's ids are those of `tokenizers` and of transformers."""

    def test_transformers_on_real_code(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        tokenizer.save(tmp_path)
        self.compare_with_transformers(tokenizer, tmp_path)

    def test_released_vocabulary(self, released: Tokenizer, tmp_path: Path) -> None:
        self.compare_with_transformers(released, RELEASED)
        released.save(tmp_path)
        self.compare_with_transformers(released, tmp_path)

    @staticmethod
    def compare_with_transformers(tokenizer: Tokenizer, folder: Path) -> None:
        auto = AutoTokenizer.from_pretrained(folder)
        texts = standard_library("xml/dom", "http", "concurrent/futures", "encodings")
        assert auto(texts).input_ids == tokenizer.encode_batch(texts)
        prompt = "<fim_prefix>a  12<fim_suffix> don't , b .\n<fim_middle>"
        assert auto(prompt).input_ids == tokenizer.encode_prompt(prompt)
        assert auto.decode(tokenizer.encode_prompt(prompt)) == prompt
        assert len(auto) == tokenizer.vocab_size
        assert auto.eos_token_id == auto.bos_token_id == auto.unk_token_id == EOD
        assert set(auto(prompt)) == {"input_ids", "attention_mask"}  # token types would be embedded by gpt_bigcode

    @pytest.mark.parametrize("name", ["tokenizer", "released"])
    def test_words_made_of_vocabulary_pieces(self, name: str, request: pytest.FixtureRequest) -> None:
        tokenizer = request.getfixturevalue(name)
        pieces, rng = vocabulary_pieces(tokenizer), random.Random(0)
        for _ in range(10_000):
            palette = rng.choices(pieces, k=rng.randint(1, 12))
            text = "".join(rng.choices(palette, k=rng.randint(1, 30)))
            for candidate in (text, re.sub(r"\s+", "", text)):
                assert tokenizer.encode(candidate) == reference(tokenizer, candidate)

    @settings(max_examples=500)
    @given(text=st.text("ab'sdlrevtm \n\t\r\u3000\x1c01²٣Ⅷ.<|>_éß漢"))
    def test_word_borders(self, tokenizer: Tokenizer, text: str) -> None:
        assert tokenizer.encode(text) == reference(tokenizer, text)

    @pytest.mark.parametrize("unit", [" ", "\n", "\t ", "a", "#", "7"])
    def test_long_runs(self, tokenizer: Tokenizer, unit: str) -> None:
        text = unit * 50_000 + "x"
        assert tokenizer.encode(text) == reference(tokenizer, text)

    def test_blanks_beyond_the_limit_of_the_regex_engine(self, tokenizer: Tokenizer) -> None:
        below = "x" + " " * 499_998 + "x"
        assert tokenizer.encode(below) == reference(tokenizer, below)
        above = "x" + " \n" * 550_000 + "x"
        assert tokenizer.decode(tokenizer.encode(above)) == above

    def test_digits_stand_alone(self, tokenizer: Tokenizer) -> None:
        assert [tokenizer.decode([i]) for i in tokenizer.encode("  12 = a3")] == ["  ", "1", "2", " =", " a", "3"]
        assert not [piece for piece in vocabulary_pieces(tokenizer) if len(piece) > 1 and re.search(r"\d", piece)]

    def test_released_ids(self, released: Tokenizer) -> None:
        assert released.vocab_size == 49_152
        assert released.encode("  12 x = 345\n") == [261, 35, 36, 816, 280, 225, 37, 38, 39, 203]
        assert released.encode("def f(x):\n    return x*2 ") == [589, 296, 26, 106, 711, 284, 442, 816, 28, 36, 225]

    def test_released_vocabulary_refuses_what_it_would_lose(self, released: Tokenizer) -> None:
        for code in PLANES_4_TO_7:
            assert released.backend.decode(reference(released, chr(code))) != chr(code)
            with pytest.raises(UserError, match="byte 0xF1"):
                released.encode("x" + chr(code))
        with pytest.raises(UserError, match="byte 0xFF"):
            released.encode("\udcff")
        text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x40000), *range(0x80000, 0x110000)]))
        assert released.decode(released.encode(text)) == text


class TestFiles:
    def test_round_trip(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").write_text("stays")
        tokenizer.save(tmp_path)
        first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        again = load(tmp_path)
        again.save(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
        assert set(first) == {
            "merges.txt",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
        }
        config = json.loads(first["tokenizer_config.json"])
        assert config["model_input_names"] == ["input_ids", "attention_mask"]  # older transformers add token types
        assert (again.digest, again.vocab_size) == (tokenizer.digest, 2000)
        text = STDLIB.joinpath("this.py").read_text()
        assert again.encode(text) == tokenizer.encode(text)

    def test_vocabulary_and_merges_rebuild_the_tokenizer(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        tokenizer.save(tmp_path)
        bpe = tokenizers.models.BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
        assert [token.id for token in bpe.tokenize("import")] == tokenizer.encode("import")

    def test_what_transformers_saves_loads_again(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        tokenizer.save(tmp_path / "ours")
        AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
        assert load(tmp_path / "theirs").digest == tokenizer.digest

    def test_crosses_process_borders(self, tokenizer: Tokenizer) -> None:
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert copy.digest == tokenizer.digest
        assert copy.encode("def f(<fim_pad>)") == tokenizer.encode("def f(<fim_pad>)")

    def test_digest_tells_vocabularies_apart(self, tokenizer: Tokenizer) -> None:
        assert train(standard_library("email", "json", "asyncio"), 1999).digest != tokenizer.digest

    @pytest.mark.parametrize("folder", ["nowhere", "empty"])
    def test_missing(self, folder: str, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(UserError, match="cannot read"):
            load(tmp_path / folder)

    @pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe", b'{"model": 1}'])
    def test_damaged(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            load(tmp_path)

    def test_torn(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        tokenizer.save(tmp_path)
        path = tmp_path / "tokenizer.json"
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(UserError, match="damaged"):
            load(tmp_path)


def _other_spelling(state: dict[str, Any]) -> None:
    state["added_tokens"][1]["content"] = "<fim-prefix>"


def _swap_merges(state: dict[str, Any]) -> None:
    merges = state["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]


def _unlearned(state: dict[str, Any]) -> None:
    """`#$` wins from `$%` before `#` can meet it, so that the listed merges never reach `#$%`; joining by rank does."""
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    for left, right in (("#", "$"), ("$", "%"), ("#", "$%")):
        merges.append([left, right])
        vocab[left + right] = len(vocab)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "other sentinels": (_other_spelling, "sentinels"),
    "no sentinels": (lambda state: state["added_tokens"].clear(), "sentinels"),
    "one more special token": (
        lambda state: state["added_tokens"].append({**state["added_tokens"][0], "id": 2000, "content": "<pad>"}),
        "sentinels",
    ),
    "whole numbers": (
        lambda state: state["pre_tokenizer"]["pretokenizers"][0].update(individual_digits=False),
        "digits",
    ),
    "prefix space": (lambda state: state["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), "prefix"),
    "no words": (lambda state: state.update(pre_tokenizer=None), "digits"),
    "normaliser": (lambda state: state.update(normalizer={"type": "NFC"}), "normaliser"),
    "dropout": (lambda state: state["model"].update(dropout=0.1), "dropout"),
    "order of merges": (_swap_merges, "order of the merges"),
    "unlearned": (_unlearned, "never make token"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_kind_of_tokenizer_is_refused(change: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    edit, message = CHANGES[change]
    state = json.loads(tokenizer.backend.to_str())
    edit(state)
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


class TestTraining:
    def test_exact_size_and_order(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.vocab_size == 2000
        symbols = (tokenizer.decode([i], "surrogateescape").encode("utf-8", "surrogateescape") for i in range(19, 275))
        assert sorted(symbols) == [bytes([byte]) for byte in range(256)]

    def test_deterministic(self, tokenizer: Tokenizer) -> None:
        assert train(standard_library("email", "json", "asyncio"), 2000).digest == tokenizer.digest

    def test_too_small_a_vocabulary(self) -> None:
        with pytest.raises(UserError, match="sentinels and bytes take 275"):
            train(["text"], 274)
        assert train([], 275).decode(train([], 275).encode("any — text")) == "any — text"

    def test_too_little_text(self) -> None:
        with pytest.raises(UserError, match="only 280 of 5000"):
            train(["aaaa bbb"], 5000)


def test_starts_without_torch() -> None:
    code = "import sys, starcoder.tokenizer; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("text", ["", "x = 1\n", "<|endoftext|> a <fim_prefix>", "é漢😀", "\udc80 x", " " * 600_000])
def test_encode_array_gives_the_ids_of_encode(text: str) -> None:
    tokenizer = train(["def function(argument):\n    return argument\n"], 290)
    assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)
