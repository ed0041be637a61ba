"""The linear layer equals PyTorch's, whatever path a shape takes, and so do its gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from starcoder.linear import Linear, linear

SHAPES = [(1, 24), (1, 1, 24), (3, 24), (2, 5, 24), (32, 24), (0, 24), (24,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [1, 37, 64, 192, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_path_gives_the_same(shape: tuple[int, ...], n: int, dtype: torch.dtype) -> None:
    x, weight, bias = (torch.randn(size).to(dtype) for size in (shape, (n, 24), (n,)))
    torch.testing.assert_close(linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-5, rtol=0)
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight), atol=1e-5, rtol=0)


def gradients(layer: torch.nn.Linear, x: Tensor) -> list[Tensor]:
    """Of a loss whose gradient is neither constant nor contiguous, with respect to input, weight and bias."""
    y = layer(x)
    return list(torch.autograd.grad((y.transpose(0, -1) ** 3).sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_gradients(shape: tuple[int, ...], bias: bool) -> None:
    ours, theirs = Linear(24, 40, bias=bias), torch.nn.Linear(24, 40, bias=bias)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(shape, requires_grad=True)
    for our, their in zip(gradients(ours, x), gradients(theirs, x), strict=True):
        torch.testing.assert_close(our, their, atol=1e-5, rtol=1e-5)


def test_the_gradient_has_a_gradient() -> None:
    x, weight = (torch.randn(12, 9, requires_grad=True) for _ in range(2))

    def twice(product: object) -> Tensor:
        assert callable(product)
        (first,) = torch.autograd.grad((product(x, weight) ** 3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first**2).sum(), weight)
        assert isinstance(second, Tensor)
        return second

    torch.testing.assert_close(twice(linear), twice(F.linear), atol=1e-2, rtol=1e-4)


def test_flops_are_counted() -> None:
    counts = []
    for layer in (Linear(24, 40), torch.nn.Linear(24, 40)):
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(10, 24, requires_grad=True)).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts == [6 * 10 * 24 * 40] * 2


def test_autocast_decides_about_the_dtype() -> None:
    layer, x = Linear(24, 40), torch.randn(10, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
