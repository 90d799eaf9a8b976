"""16: the fused losses under `torch.compile`, without a graph break, against themselves in eager mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from isogon.kernels import HLGaussStats, Impl, Reduction, Support, categorical_loss, hl_gauss_loss

from .fused_cases import FUSED, IMPLS, REDUCTIONS, SUPPORT, gradient_of, pairs, samples

# Torch's own compiler uses what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def check_compiled(
    function: Callable[..., Any], logits: torch.Tensor, *others: torch.Tensor, backend: str = "aot_eager"
) -> None:
    """Losses, stats and gradients of logits are the same."""
    found = []
    for each in (function, torch.compile(function, fullgraph=True, backend=backend)):
        x = logits.clone().requires_grad_()
        result = each(x, *others)
        loss, stats = result if isinstance(result, tuple) else (result, None)
        upstream = torch.linspace(-1, 2, 40) if loss.dim() else 0.7
        found.append((loss.detach(), gradient_of(loss, x, upstream), stats))
    (loss, gradient, stats), (compiled_loss, compiled_gradient, compiled_stats) = found
    assert compiled_loss.dtype == loss.dtype
    assert compiled_gradient.dtype == gradient.dtype
    torch.testing.assert_close(compiled_loss, loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(compiled_gradient, gradient, rtol=1e-6, atol=1e-7)
    if stats is not None:
        for name in HLGaussStats.__dataclass_fields__:
            part = getattr(compiled_stats, name)
            assert not part.requires_grad
            torch.testing.assert_close(part, getattr(stats, name), rtol=1e-6, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_16_reductions_of_weighted_samples(reduction: Reduction, impl: Impl) -> None:
    """Samples of weight 0 hold poison."""
    logits, target, weight = samples()
    logits[weight == 0, 3] = math.nan
    target[weight == 0] = 0
    check_compiled(
        lambda x, y, w: hl_gauss_loss(x, y, SUPPORT, weight=w, reduction=reduction, impl=impl), logits, target, weight
    )


@pytest.mark.parametrize("impl", FUSED)
def test_16_stats_and_chosen_actions(impl: Impl) -> None:
    _, target, weight = samples()
    logits, row, action = pairs()
    check_compiled(
        lambda x, y, w, r, a: hl_gauss_loss(
            x, y, SUPPORT, row=r, action=a, weight=w, impl=impl, return_stats=True, projection="two_hot"
        ),
        logits, target, weight, row, action,
    )  # fmt: skip


@pytest.mark.parametrize("impl", FUSED)
def test_16_distributions_and_the_bellman_update(impl: Impl) -> None:
    logits, reward, weight = samples()
    probs = torch.softmax(logits.flip(0), -1)
    discount = torch.linspace(0, 1, 40)
    symexp = Support(-6.0, 6.0, 51, transform="symexp")

    def loss(x: torch.Tensor, p: torch.Tensor, r: torch.Tensor, d: torch.Tensor, w: torch.Tensor) -> Any:
        plain = categorical_loss(x, p, weight=w, impl=impl)
        moved, stats = categorical_loss(
            x,
            p,
            support=SUPPORT,
            reward=r,
            discount=d,
            weight=w,
            reduction="weighted_mean",
            return_stats=True,
            impl=impl,
        )
        expanded = categorical_loss(x, p, support=symexp, reward=r, discount=d, reduction="sum", impl=impl)
        return plain + moved + expanded, stats

    check_compiled(loss, logits, probs, reward, discount, weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_16_other_dtypes(dtype: torch.dtype) -> None:
    """float64 by the reference and by the operators, half precision by the operators."""
    logits, target, weight = samples()
    for impl in ("auto", "torch"):
        check_compiled(
            lambda x, y, w, impl=impl: hl_gauss_loss(x, y, SUPPORT, weight=w, reduction="none", impl=impl),
            logits.to(dtype), target, weight,
        )  # fmt: skip


def test_16_inductor_with_sizes_that_vary() -> None:
    """Compiled once for batches of any size, amid other operations."""
    logits, target, _ = samples()

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return hl_gauss_loss(2 * x.relu(), y + 1, SUPPORT)

    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for n in (40, 33, 17):
            one, other = (logits[:n].clone().requires_grad_() for _ in range(2))
            got, wanted = compiled(one, target[:n].clone()), loss(other, target[:n])
            torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(gradient_of(got, one), gradient_of(wanted, other), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("impl", FUSED)
def test_16_bad_values_are_still_refused(impl: Impl) -> None:
    """When the compiled function runs; what is out of range would be read from somewhere else."""
    logits, row, action = pairs()
    target = torch.zeros(40)
    compiled = torch.compile(
        lambda x, y, r, a: hl_gauss_loss(x, y, SUPPORT, row=r, action=a, impl=impl, out_of_range="error"),
        fullgraph=True,
        backend="aot_eager",
    )
    assert compiled(logits, target, row, action).isfinite()
    for place, wrong in ((row, 9), (action, 5)):
        before = int(place[30])
        place[30] = wrong
        with pytest.raises(ValueError, match="row and action have 1 of 40 pairs out of"):
            compiled(logits, target, row, action)
        place[30] = before
    target[30] = math.nan
    with pytest.raises(ValueError, match="target has 1 NaN of"):
        compiled(logits, target, row, action)
    target[30] = 11
    with pytest.raises(ValueError, match="outside"):
        compiled(logits, target, row, action)
