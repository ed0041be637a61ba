"""Products in eight bits are exact in what they sum, do not depend on the batch, and cost a model next to nothing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from starcoder.batch import Batch
from starcoder.cache import KVCache
from starcoder.decoding import Decoding
from starcoder.errors import UserError
from starcoder.linear import Linear
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.quantization import Int8Linear, impossible, quantize
from starcoder.sampling import Sampling

pytestmark = pytest.mark.skipif(impossible() is not None, reason=str(impossible()))
CONFIG = StarCoderConfig(vocab_size=300, context_length=64, n_layer=2, n_head=4, n_embd=64, dropout=0.0)


def model_of(seed: int = 0) -> StarCoder:
    return StarCoder(CONFIG, seed).eval()


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers (M, C) from -127 to 127 and the scale (M, 1) of each row, in fp64."""
    scale = rows.abs().amax(1, keepdim=True) / 127
    return (rows / scale).round().double(), scale.double()


@pytest.mark.parametrize("rows", [1, 7, 40])
@pytest.mark.parametrize(("n", "c"), [(48, 24), (37, 200)])
def test_a_product_is_that_of_rounded_numbers(rows: int, n: int, c: int) -> None:
    torch.manual_seed(rows)
    x, linear = torch.randn(rows, c) * torch.logspace(-3, 3, rows).unsqueeze(1), Linear(c, n)
    (left, left_scale), (right, right_scale) = rounded(x), rounded(linear.weight.detach())
    expected = left @ right.t() * left_scale * right_scale.t() + linear.bias.detach().double()
    torch.testing.assert_close(Int8Linear(linear)(x).double(), expected, rtol=1e-5, atol=1e-6)


def test_rows_do_not_depend_on_each_other() -> None:
    layer, x = Int8Linear(Linear(96, 130)), torch.randn(9, 96)
    assert torch.equal(layer(x)[4:6], layer(x[4:6]))
    assert torch.equal(layer(x.view(3, 3, 96)).view(9, -1), layer(x))


def test_rows_of_nothing() -> None:
    layer = Int8Linear(Linear(16, 8))
    assert torch.equal(layer(torch.zeros(2, 16)), layer.bias.expand(2, 8))
    zeros = Linear(16, 8)
    torch.nn.init.zeros_(zeros.weight)
    assert torch.equal(Int8Linear(zeros)(torch.randn(2, 16)), zeros.bias.expand(2, 8))


def test_a_model_is_nearly_the_same() -> None:
    tokens = torch.randint(300, (4, 64))
    with torch.inference_mode():
        exact, eighths = model_of()(tokens), quantize(model_of())(tokens)
    assert 0 < (exact - eighths).norm() / exact.norm() < 0.03


def test_a_trained_model_loses_next_to_nothing(tmp_path: Path) -> None:
    content = torch.tensor(list(Path(__file__).read_bytes()))
    windows = content[: len(content) // 65 * 65].view(-1, 65)  # (N, T+1), bytes as tokens
    model = model_of()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model.loss(windows[:, :-1], windows[:, 1:]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.save_pretrained(tmp_path / "model")
    with torch.inference_mode():
        exact, eighths = (
            StarCoder.from_pretrained(tmp_path / "model", dtype).eval().nats(windows[:, :-1], windows[:, 1:]).mean()
            for dtype in (torch.float32, torch.int8)
        )
    assert exact < 3.5  # the model has learnt something that it could lose
    assert 0 < abs(eighths - exact) / exact < 0.005


def test_it_takes_a_third_of_the_memory() -> None:
    def numbers(model: StarCoder) -> int:
        tensors = {tensor.data_ptr(): tensor.nbytes for tensor in model.parameters()}
        for module in model.modules():
            for value in vars(module).values():
                if isinstance(value, Tensor) and not value.is_mkldnn:
                    tensors[value.data_ptr()] = value.nbytes
                elif isinstance(value, Tensor):
                    tensors[id(value)] = value.numel()
        return sum(tensors.values())

    config = CONFIG.replace(n_embd=256)
    assert numbers(quantize(StarCoder(config))) < numbers(StarCoder(config)) / 3


@pytest.mark.parametrize("decoding", ["eager", "graph"])
def test_a_batch_writes_what_single_rows_write(decoding: Decoding) -> None:
    model = quantize(model_of())
    prompts = [[5, 6, 7], [9], [20, 21, 22, 23, 24]]

    def written(batch: Batch, prompts: list[list[int]]) -> list[list[int]]:
        rows: dict[int, list[int]] = {batch.add(prompt, Sampling(12)): [] for prompt in prompts}
        while batch:
            for handle, token, *_ in batch.step():
                rows[handle] += [token] if token is not None else []
        return list(rows.values())

    assert written(Batch(model, 3, decoding=decoding), prompts) == [written(Batch(model), [p])[0] for p in prompts]


def test_the_cache_gives_what_the_whole_gives() -> None:
    model, tokens = quantize(model_of()), torch.randint(300, (2, 10))
    with torch.inference_mode():
        cache = KVCache(CONFIG, 2, 10, tokens.device)
        steps = [model.next_logits(tokens[:, place : place + 1], cache) for place in range(10)]
        torch.testing.assert_close(torch.stack(steps, 1), model(tokens), rtol=0, atol=2e-2)


def test_what_cannot_be(tmp_path: Path) -> None:
    model = quantize(model_of())
    with pytest.raises(UserError, match="a model in int8 is not saved: save the one that it was made of"):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="int8 is for CPU: use bfloat16 on a GPU"):
        model.to("meta")
    with pytest.raises(UserError, match="int8 is for CPU: use bfloat16 on a GPU"):
        quantize(model_of().to("meta"))
