"""The linear layer equals PyTorch's, whatever path a shape takes."""

import pytest
import torch
import torch.nn.functional as F

from starcoder import linear as linear_module
from starcoder.linear import Linear, thin_linear


@pytest.mark.parametrize("shape", [(1, 24), (1, 1, 24), (3, 24), (2, 5, 24), (32, 24)])
@pytest.mark.parametrize("n", [1, 37, 64, 192, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_path_gives_the_same(shape: tuple[int, ...], n: int, dtype: torch.dtype) -> None:
    x, weight, bias = (torch.randn(size).to(dtype) for size in (shape, (n, 24), (n,)))
    torch.testing.assert_close(thin_linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-5, rtol=0)
    torch.testing.assert_close(thin_linear(x, weight), F.linear(x, weight), atol=1e-5, rtol=0)


def test_only_a_single_row_without_gradient_is_multiplied_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    monkeypatch.setattr(linear_module, "thin_linear", lambda *args: rows.append(args[0].shape) or F.linear(*args))
    layer, one, two = Linear(24, 64), torch.randn(1, 1, 24), torch.randn(1, 2, 24)
    layer(one).sum().backward()
    assert layer.weight.grad is not None
    assert rows == []
    with torch.inference_mode():
        assert torch.equal(layer(two), F.linear(two, layer.weight, layer.bias))
        assert torch.equal(layer(one), F.linear(one, layer.weight, layer.bias))
    assert rows == [(1, 1, 24)]
