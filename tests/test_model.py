"""The decoder against transformers' `GPTBigCodeForCausalLM`, and its numbers against the paper's."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM

from starcoder import model as model_module
from starcoder.cache import KVCache
from starcoder.errors import UserError
from starcoder.model import (
    PRESETS,
    StarCoder,
    StarCoderConfig,
    cached_attention,
    causal_attention,
    takes_flash_attn,
)
from starcoder.release.folder import to_transformers

SMALL = StarCoderConfig(
    vocab_size=97, context_length=40, n_layer=3, n_head=4, n_embd=32, n_inner=56, dropout=0.0, init_std=0.1
)
N_PARAMS = {
    "starcoderbase": 15_517_456_384,
    "starcoderbase-7b": 7_327_263_232,
    "starcoderbase-3b": 3_043_311_104,
    "starcoderbase-1b": 1_137_207_296,
    "santacoder": 1_124_886_528,
    "tiny-starcoder": 164_144_128,
}


def on_meta(config: StarCoderConfig) -> StarCoder:
    with torch.device("meta"):
        return StarCoder(config)


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter, biases and layer norms included, values that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
            parameter.copy_(offset + 0.2 * torch.randn(parameter.shape, generator=generator))


def pair(**changes: Any) -> tuple[StarCoder, GPTBigCodeForCausalLM]:
    """Our model and transformers' with the same random weights."""
    config = SMALL.replace(**changes)
    theirs = GPTBigCodeForCausalLM(GPTBigCodeConfig(**to_transformers(config), attn_implementation="eager")).eval()
    randomise(theirs)
    ours = StarCoder(config).eval()
    ours.load_state_dict({name: p for name, p in theirs.state_dict().items() if name != "lm_head.weight"})
    return ours, theirs


def random_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(SMALL.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("length", [1, 17, 40])
def test_logits_and_gradients_equal_transformers(activation: str, batch_size: int, length: int) -> None:
    ours, theirs = pair(activation=activation)
    tokens, targets = random_tokens(batch_size, length), random_tokens(batch_size, length, seed=1)

    logits = theirs(tokens).logits
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    ours.loss(tokens, targets).backward()

    torch.testing.assert_close(ours(tokens), logits, atol=1e-5, rtol=0)
    expected = dict(theirs.named_parameters())
    assert expected.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-5, rtol=0, msg=name)


def test_the_two_gelus_differ() -> None:
    erf, tanh = (pair(activation=name)[0](random_tokens(1, 9)) for name in ("gelu", "gelu_pytorch_tanh"))
    assert 1e-6 < (erf - tanh).abs().max() < 1e-2


@pytest.mark.parametrize("name", PRESETS)
def test_number_of_parameters(name: str) -> None:
    config = StarCoderConfig.preset(name)
    assert config.n_params == sum(parameter.numel() for parameter in on_meta(config).parameters())
    assert config.n_params == N_PARAMS.get(name, config.n_params)


def test_number_of_parameters_with_another_inner_size() -> None:
    assert SMALL.n_params == sum(parameter.numel() for parameter in StarCoder(SMALL).parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_flops_against_the_counter_of_torch(name: str) -> None:
    config = StarCoderConfig.preset(name, dropout=0.0)
    length = config.context_length
    model, tokens = on_meta(config), torch.zeros(1, length, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    assert config.flops_per_token(length) == pytest.approx(counter.get_total_flops() / length, rel=0.01)


def test_initial_weights_have_the_papers_scale() -> None:
    config = StarCoderConfig(vocab_size=3000, context_length=300, n_layer=2, n_head=4, n_embd=256)
    assert config.std == 1 / 16
    for name, parameter in StarCoder(config, seed=5).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "ln_" in name:
            assert (parameter == 1).all(), name
        else:
            std = config.std / 2 if "c_proj" in name else config.std  # √(2 · 2 layers) = 2
            assert parameter.std().item() == pytest.approx(std, rel=0.02), name
            assert abs(parameter.mean().item()) < 5 * std / parameter.numel() ** 0.5, name


def test_initial_weights_depend_on_seed_and_name_alone() -> None:
    torch.manual_seed(1)
    one = dict(StarCoder(SMALL, seed=3).named_parameters())
    random_state = torch.get_rng_state()
    deeper = dict(StarCoder(SMALL.replace(n_layer=5), seed=3).named_parameters())
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, parameter in one.items():
        assert "c_proj" in name or torch.equal(parameter, deeper[name]), name

    matrices = [name for name, parameter in one.items() if parameter.ndim == 2]
    other = dict(StarCoder(SMALL, seed=4).named_parameters())
    assert not any(torch.equal(one[name], other[name]) for name in matrices)
    first = [one[name].flatten()[:8] for name in matrices]
    assert all(not torch.allclose(a, b) for i, a in enumerate(first) for b in first[:i])


def test_initial_weights_do_not_depend_on_the_default_dtype_or_on_meta_first() -> None:
    expected = StarCoder(SMALL, seed=3).state_dict()
    torch.set_default_dtype(torch.bfloat16)
    try:
        low = StarCoder(SMALL, seed=3).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    late = on_meta(SMALL)
    assert all(parameter.is_meta for parameter in late.parameters())
    late.to_empty(device="cpu").init_weights(3)
    for name, tensor in expected.items():
        assert torch.equal(low[name], tensor.bfloat16()), name
        assert torch.equal(late.state_dict()[name], tensor), name


@settings(max_examples=20)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 3))
def test_a_sequence_in_pieces_gives_the_logits_of_the_whole(pieces: list[int], batch_size: int) -> None:
    model, _ = pair()
    tokens = random_tokens(batch_size, sum(pieces))
    cache = KVCache(model.config, batch_size, tokens.size(1), model.transformer.wte.weight.device)
    with torch.inference_mode():
        logits = torch.cat([model(piece, cache) for piece in tokens.split(pieces, dim=1)], dim=1)
        torch.testing.assert_close(logits, model(tokens), atol=1e-5, rtol=0)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 3), st.booleans())
def test_ragged_sequences_share_a_cache(lengths: list[int], steps: int, together: bool) -> None:
    model, _ = pair()
    n = len(lengths)
    tokens = random_tokens(n, max(lengths) + steps)
    cache = KVCache(model.config, n, max(lengths) + steps, model.transformer.wte.weight.device)
    more = torch.stack([row[length : length + steps] for row, length in zip(tokens, lengths, strict=True)])
    with torch.inference_mode():
        model(tokens[:, : max(lengths)], cache)
        cache.shorten(lengths)
        logits = torch.cat([model(piece, cache) for piece in more.split(steps if together else 1, dim=1)], dim=1)
        for row, length in enumerate(lengths):
            alone = model(tokens[row : row + 1, : length + steps])[0, length:]
            torch.testing.assert_close(logits[row], alone, atol=1e-5, rtol=0)


def test_sequences_join_and_leave_a_cache() -> None:
    model, _ = pair()
    tokens = random_tokens(4, 12)
    device = model.transformer.wte.weight.device
    lengths = [8, 3, 5, 1]
    with torch.inference_mode():
        prompts = KVCache(model.config, 4, 8, device)
        model(tokens[:, :8], prompts)
        prompts.shorten(lengths)
        cache = KVCache(model.config, 0, 0, device)
        for row in (0, 1, 2):
            cache.join(prompts.sequence(row))
        cache.leave(0)  # row 2 takes its place
        cache.join(prompts.sequence(3))
        rows = [2, 1, 3]
        assert cache.lengths == [lengths[row] for row in rows]
        for step in range(4):
            cache.reserve(3, max(cache.lengths) + 1)
            more = torch.stack([tokens[row, lengths[row] + step] for row in rows]).unsqueeze(1)
            logits = model(more, cache)[:, 0]
            for place, row in enumerate(rows):
                whole = model(tokens[row : row + 1, : lengths[row] + step + 1])[0, -1]
                torch.testing.assert_close(logits[place], whole, atol=1e-5, rtol=0)


def reference_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention with K and V (B, S, D) repeated for each head of q (B, H, T, D); mask (B, T, S)."""
    k, v = (x.unsqueeze(1).repeat(1, q.size(1), 1, 1) for x in (k, v))
    scores = (q @ k.transpose(2, 3) / q.size(3) ** 0.5).masked_fill(~mask.unsqueeze(1), -torch.inf)
    return scores.softmax(-1) @ v


def test_both_attentions_equal_repeated_keys_and_values() -> None:
    q, k, v = torch.randn(2, 5, 7, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    causal = torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 7, 7)
    expected = reference_attention(q, k, v, causal)
    torch.testing.assert_close(causal_attention(q, k.unsqueeze(1), v.unsqueeze(1)), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(cached_attention(q, k, v, causal), expected, atol=1e-6, rtol=0)
    last = reference_attention(q[:, :, -1:], k, v, causal[:, -1:])
    torch.testing.assert_close(cached_attention(q[:, :, -1:], k, v, None), last, atol=1e-6, rtol=0)


def test_keys_and_values_are_never_materialised_for_each_head(monkeypatch: pytest.MonkeyPatch) -> None:
    strides = []

    def spy(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        strides.extend([k.stride(1), v.stride(1)])
        return attention(q, k, v, **options)

    attention = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    StarCoder(SMALL)(random_tokens(2, 9))
    assert strides == [0, 0] * SMALL.n_layer


def test_flash_attn_runs_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not takes_flash_attn("cpu", torch.bfloat16)
    monkeypatch.setattr(model_module, "flash_attn_func", None)
    assert not takes_flash_attn("cuda", torch.bfloat16)
    monkeypatch.setattr(model_module, "flash_attn_func", object())
    assert takes_flash_attn("cuda", torch.bfloat16)
    assert takes_flash_attn("cuda", torch.float16)
    assert not takes_flash_attn("cuda", torch.float32)
    assert not takes_flash_attn("cpu", torch.float16)


def test_flash_attn_4_alone_is_no_flash_attn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules lie in the folder of the same name."""
    folder = ModuleType("flash_attn")
    folder.__spec__ = ModuleSpec("flash_attn", None)
    monkeypatch.setitem(sys.modules, "flash_attn", folder)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert model_module._flash_attn_func() is None
    folder.flash_attn_func = len
    assert model_module._flash_attn_func() is len


def test_flash_attn_is_called_in_its_own_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = torch.randn(2, 5, 7, 8), torch.randn(2, 1, 7, 8), torch.randn(2, 1, 7, 8)
    expected = causal_attention(q, k, v)

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, dropout_p: float, causal: bool) -> Tensor:
        assert (q.shape, k.shape, v.shape) == ((2, 7, 5, 8), (2, 7, 1, 8), (2, 7, 1, 8))
        assert (dropout_p, causal) == (0.25, True)
        mask = torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 7, 7)
        return reference_attention(q.transpose(1, 2), k[:, :, 0], v[:, :, 0], mask).transpose(1, 2)

    monkeypatch.setattr(model_module, "flash_attn_func", flash_attn_func)
    monkeypatch.setattr(model_module, "takes_flash_attn", lambda device, dtype: True)
    torch.testing.assert_close(causal_attention(q, k, v, dropout=0.25), expected, atol=1e-6, rtol=0)


def test_dropout_acts_on_embeddings_attention_and_residuals_and_only_in_training() -> None:
    model, tokens = StarCoder(SMALL.replace(dropout=0.5)), random_tokens(1, 20)
    plain = StarCoder(SMALL)(tokens)
    assert torch.equal(model.eval()(tokens), plain)
    assert not torch.allclose(model.train()(tokens), plain)
    drops = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert len(drops) == 1 + SMALL.n_layer
    for drop in drops:
        drop.p = 0.0
    assert not torch.allclose(model(tokens), plain)  # the attention weights' own
    for block in model.transformer.h:
        block.attn.dropout = 0.0
    assert torch.equal(model(tokens), plain)


def test_loss_is_the_cross_entropy_of_the_logits() -> None:
    model, _ = pair()
    tokens, targets = random_tokens(3, 11), random_tokens(3, 11, seed=1)
    expected = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(model.loss(tokens, targets), expected, atol=1e-6, rtol=0)


def test_every_problem_of_a_configuration_is_named() -> None:
    wrong: dict[str, Any] = {"vocab_size": 0, "context_length": -1, "n_layer": 2.5, "n_inner": 0, "dropout": 1.0}
    wrong |= {"activation": "relu", "layer_norm_epsilon": 0.0, "init_std": -1.0}
    with pytest.raises(UserError) as error:
        StarCoderConfig(**wrong)
    message = str(error.value)
    assert "\n" not in message
    assert all(name in message for name in wrong)
    assert "n_head" not in message
    assert "n_embd" not in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 100, "n_head": 48}, "n_embd 100 is no multiple of n_head 48"),
        ({"n_embd": "64"}, "n_embd is '64'"),
        ({"dropout": None}, "dropout is None"),
        ({"layers": 3}, "no layers"),
    ],
)
def test_a_bad_change_to_a_preset(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        StarCoderConfig.preset("smoke", **changes)


def test_an_unknown_preset() -> None:
    with pytest.raises(UserError, match="no preset 'starcoder-20b'; there are starcoderbase, "):
        StarCoderConfig.preset("starcoder-20b")


def test_a_sequence_longer_than_the_context() -> None:
    model = StarCoder(SMALL)
    model(random_tokens(1, 40))
    with pytest.raises(UserError, match="41 tokens do not fit the model's context of 40"):
        model(random_tokens(1, 41))
    cache = KVCache(SMALL, 1, 50, model.transformer.wte.weight.device)
    model(random_tokens(1, 40), cache)
    with pytest.raises(UserError, match="41 tokens do not fit"):
        model(random_tokens(1, 1), cache)
