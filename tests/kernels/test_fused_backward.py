"""`hl_gauss_loss` and `categorical_loss` as users call them, by every implementation for the CPU: their gradients.

The numbers in names are groups of traps, as in `row_suite`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from isogon.kernels import (
    Impl,
    Projection,
    Reduction,
    Support,
    categorical_loss,
    hl_gauss_loss,
)
from isogon.kernels.backends import choose

from .fused_cases import FUSED, IMPLS, REDUCTIONS, SUPPORT, gradient_of, samples
from .row_cases import HALF, PROJECTIONS


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("impl", FUSED)
def test_5_scaled_losses_keep_small_gradients(impl: Impl, dtype: torch.dtype) -> None:
    """They are multiplied, by what a gradient scaler says, before they are rounded, and rounded once."""
    logits, target, weight = samples()
    half = logits.to(dtype).requires_grad_()
    exact = half.detach().double().requires_grad_()
    for reduction in REDUCTIONS:
        options: dict[str, Any] = {"weight": 1e-4 * weight, "reduction": reduction}
        got = gradient_of(hl_gauss_loss(half, target, SUPPORT, impl=impl, **options), half, 65536.0)
        wanted = gradient_of(hl_gauss_loss(exact, target.double(), SUPPORT, **options), exact, 65536.0)
        torch.testing.assert_close(got.double(), wanted, rtol=0.51 * torch.finfo(dtype).eps, atol=4e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("impl", FUSED)
def test_11_gradients_once_given_do_not_change(impl: Impl, reduction: Reduction) -> None:
    """Backward twice, with other upstream gradients the second time, which makes the gradient anew."""
    logits, target, weight = samples()
    logits = logits.requires_grad_()
    loss = hl_gauss_loss(logits, target, SUPPORT, weight=weight, reduction=reduction, impl=impl)
    for number, upstream in enumerate((0.5, 0.5, -3.0)):
        (gradient,) = torch.autograd.grad(loss, logits, torch.full(loss.shape, upstream), retain_graph=True)
        if number == 0:
            first, kept = gradient, gradient.clone()
        else:
            torch.testing.assert_close(gradient, kept * (upstream / 0.5), rtol=2e-6, atol=1e-9)
        assert torch.equal(first, kept)
    torch.autograd.backward(loss.sum())
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, 2 * kept, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("impl", FUSED)
def test_11_a_second_derivative_is_an_error_and_the_reference_has_it(impl: Impl, reduction: Reduction) -> None:
    logits, target, _ = samples(6)
    logits = logits.requires_grad_()
    probs = torch.softmax(logits.detach().flip(0), -1)
    for loss in (
        hl_gauss_loss(logits, target, SUPPORT, reduction=reduction, impl=impl),
        categorical_loss(logits, probs, reduction=reduction, impl=impl),
    ):
        (gradient,) = torch.autograd.grad(loss.sum(), logits, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.backward(gradient.square().sum())
    loss = hl_gauss_loss(logits, target, SUPPORT, reduction=reduction, impl="reference")
    (gradient,) = torch.autograd.grad(loss.sum(), logits, create_graph=True)
    torch.autograd.backward(gradient.square().sum())
    assert logits.grad is not None
    assert logits.grad.abs().max() > 0


@pytest.mark.parametrize("impl", IMPLS)
def test_11_only_logits_have_gradients(impl: Impl) -> None:
    logits, target, weight = samples()
    assert not hl_gauss_loss(logits, target, SUPPORT, impl=impl).requires_grad
    learnt = logits.clone().requires_grad_()
    with torch.no_grad():
        assert not hl_gauss_loss(learnt, target, SUPPORT, impl=impl).requires_grad
    with pytest.raises(ValueError, match="target requires a gradient"):
        hl_gauss_loss(learnt, target.clone().requires_grad_(), SUPPORT, impl=impl)
    with pytest.raises(ValueError, match="weight requires a gradient"):
        hl_gauss_loss(learnt, target, SUPPORT, weight=weight.clone().requires_grad_(), impl=impl)
    with pytest.raises(ValueError, match="probs requires a gradient"):
        categorical_loss(learnt, torch.softmax(learnt, -1), impl=impl)


@pytest.mark.parametrize("impl", FUSED)
def test_11_the_gradient_is_handed_over_and_not_copied(impl: Impl, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one that the forward pass wrote: the only memory that the loss needs."""
    logits, target, _ = samples()
    kernels: Any = choose(impl, logits)
    made, forward = [], kernels.forward

    def remember(*arguments: Any, **options: Any) -> Any:
        result = forward(*arguments, **options)
        made.append(result.gradient.data_ptr())
        return result

    monkeypatch.setattr(kernels, "forward", remember)
    for reduction in REDUCTIONS:
        learnt = logits.clone().requires_grad_()
        torch.autograd.backward(hl_gauss_loss(learnt, target, SUPPORT, reduction=reduction, impl=impl).sum())
        assert learnt.grad is not None
        assert learnt.grad.data_ptr() == made[-1]
    assert len(made) == len(REDUCTIONS)


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_13_the_gradient_written_by_hand_in_float64(reduction: Reduction, projection: Projection) -> None:
    """Against finite differences, and the loss against the reference."""
    logits, target, weight = (part.double() for part in samples(7, 9))
    support = Support(-5.0, 5.0, 9)

    def loss(x: torch.Tensor, impl: Impl = "torch") -> torch.Tensor:
        return hl_gauss_loss(x, target, support, projection=projection, weight=weight, reduction=reduction, impl=impl)

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))
    torch.testing.assert_close(loss(logits), loss(logits, "reference"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("changed", ["target", "weight", "logits"])
@pytest.mark.parametrize("impl", FUSED)
def test_11_what_a_second_look_needs_must_not_have_changed(impl: Impl, changed: str) -> None:
    """A gradient that is made in the backward pass would be another loss's."""
    logits, target, weight = samples()
    logits = logits.requires_grad_()
    loss = hl_gauss_loss(logits, target, SUPPORT, weight=weight, impl=impl)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    with torch.no_grad():
        {"target": target, "weight": weight, "logits": logits}[changed].mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, logits)
    assert first.isfinite().all()
