import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from starcoder.loss import linear_cross_entropy

Result = tuple[Tensor, Tensor | None, Tensor | None]


def inputs(
    n: int, c: int = 16, v: int = 301, dtype: torch.dtype = torch.float32, std: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states (N, C), weight (V, C), targets (N,)."""
    generator = torch.Generator().manual_seed(n)
    hidden = torch.randn(n, c, generator=generator).to(dtype).requires_grad_()
    weight = (std * torch.randn(v, c, generator=generator)).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(v, (n,), generator=generator)


def reference(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0) -> Result:
    """Value and gradients in fp64, all logits at once, from the very same (rounded) inputs."""
    hidden, weight = (x.detach().double().requires_grad_() for x in (hidden, weight))
    loss = F.cross_entropy(hidden @ weight.t(), targets)
    (scale * loss).backward()
    return loss.detach(), hidden.grad, weight.grad


def relative_error(a: Tensor | None, b: Tensor | None) -> float:
    assert a is not None
    assert b is not None
    return ((a.double() - b).norm() / b.norm()).item()


@settings(max_examples=60)
@given(
    n=st.integers(1, 70), chunk_size=st.integers(1, 80), ignored=st.floats(0, 0.9), scale=st.sampled_from([1.0, 3.0])
)
def test_value_and_gradients_equal_cross_entropy(n: int, chunk_size: int, ignored: float, scale: float) -> None:
    hidden, weight, targets = inputs(n)
    targets[1:][torch.rand(n - 1) < ignored] = -100
    loss = linear_cross_entropy(hidden, weight, targets, chunk_size=chunk_size)
    (scale * loss).backward()
    value, *gradients = reference(hidden, weight, targets, scale)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(value.item(), rel=1e-5)
    for x, gradient in zip((hidden, weight), gradients, strict=True):
        assert relative_error(x.grad, gradient) < 1e-5


def test_chunk_size_chosen_by_default_is_right_across_several_blocks() -> None:
    hidden, weight, targets = inputs(333, v=49_152)
    linear_cross_entropy(hidden, weight, targets).backward()
    _, *gradients = reference(hidden, weight, targets)
    for x, gradient in zip((hidden, weight), gradients, strict=True):
        assert relative_error(x.grad, gradient) < 1e-5


@pytest.mark.parametrize("chunk_size", [8, 500, 1000])
def test_bf16_value_and_gradients_are_right(chunk_size: int) -> None:
    hidden, weight, targets = inputs(777, c=64, v=5000, dtype=torch.bfloat16, std=0.2)
    loss = linear_cross_entropy(hidden, weight, targets, chunk_size=chunk_size)
    loss.backward()
    value, *gradients = reference(hidden, weight, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(value.item(), abs=1e-3)
    for x, gradient in zip((hidden, weight), gradients, strict=True):
        assert x.grad is not None
        assert x.grad.dtype == torch.bfloat16
        assert relative_error(x.grad, gradient) < 5e-3


def test_confident_and_hopeless_tokens() -> None:
    hidden = torch.tensor([[200.0], [200.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [0.0], [0.5]], requires_grad=True)
    loss = linear_cross_entropy(hidden, weight, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(100.0)
    assert hidden.grad is not None
    assert hidden.grad.flatten().tolist() == pytest.approx([0.0, 0.5])


def test_nothing_counts() -> None:
    hidden, weight, targets = inputs(5)
    loss = linear_cross_entropy(hidden, weight, torch.full_like(targets, -100))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad is not None
    assert weight.grad is not None
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_ignore_index_is_a_choice() -> None:
    hidden, weight, targets = inputs(40)
    targets[::3] = 7
    loss = linear_cross_entropy(hidden, weight, targets, chunk_size=16, ignore_index=7)
    assert loss.item() == pytest.approx(F.cross_entropy(hidden @ weight.t(), targets, ignore_index=7).item(), rel=1e-5)


def test_without_gradient_the_value_is_the_same() -> None:
    hidden, weight, targets = inputs(50)
    expected = linear_cross_entropy(hidden, weight, targets, chunk_size=16)
    with torch.no_grad():
        loss = linear_cross_entropy(hidden, weight, targets, chunk_size=16)
    assert not loss.requires_grad
    assert loss == expected


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_gets_no_gradient(frozen: int) -> None:
    hidden, weight, targets = inputs(50)
    tensors = [hidden, weight]
    tensors[frozen].requires_grad_(False)
    linear_cross_entropy(hidden, weight, targets, chunk_size=16).backward()
    expected = reference(hidden, weight, targets)[2 - frozen]
    assert tensors[frozen].grad is None
    assert relative_error(tensors[1 - frozen].grad, expected) < 1e-5


class LargestTensor(TorchDispatchMode):
    """Remembers the largest number of elements that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, Tensor):
                self.numel = max(self.numel, x.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [True, False])
def test_never_holds_all_logits(dtype: torch.dtype, grad: bool) -> None:
    n, c, v, chunk_size = 512, 4, 300, 32
    hidden, weight, targets = inputs(n, c, v, dtype)
    with LargestTensor() as largest, torch.set_grad_enabled(grad):
        loss = linear_cross_entropy(hidden, weight, targets, chunk_size=chunk_size)
        if grad:
            loss.backward()
    assert largest.numel == chunk_size * v


def test_autocast_runs_in_its_dtype_and_returns_fp32_gradients() -> None:
    hidden, weight, targets = inputs(100, std=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(hidden, weight, targets, chunk_size=32)
    loss.backward()
    value, *gradients = reference(hidden.bfloat16(), weight.bfloat16(), targets)
    assert loss.item() == pytest.approx(value.item(), abs=1e-3)
    for x, gradient in zip((hidden, weight), gradients, strict=True):
        assert x.grad is not None
        assert x.grad.dtype == torch.float32
        assert relative_error(x.grad, gradient) < 1e-2


def test_meta_and_fake_tensors() -> None:
    for mode in (torch.device("meta"), FakeTensorMode()):
        with mode:
            hidden, weight = (torch.empty(n, 16, requires_grad=True) for n in (100, 301))
            loss = linear_cross_entropy(hidden, weight, torch.zeros(100, dtype=torch.int64), chunk_size=32)
            loss.backward()
        assert loss.shape == ()
        assert weight.grad is not None
        assert weight.grad.shape == weight.shape


def test_inside_a_compiled_function() -> None:
    hidden, weight, targets = inputs(40)

    def loss(hidden: Tensor) -> Tensor:
        return linear_cross_entropy(2 * hidden, weight, targets, chunk_size=16)

    compiled = torch.compile(loss, backend="eager")(hidden)
    compiled.backward()
    value, gradient, _ = reference(2 * hidden, weight, targets)
    assert compiled.item() == pytest.approx(value.item(), rel=1e-5)
    assert gradient is not None
    assert relative_error(hidden.grad, 2 * gradient) < 1e-5


def test_a_second_backward_is_an_error_never_a_wrong_gradient() -> None:
    hidden, weight, targets = inputs(20)
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()
