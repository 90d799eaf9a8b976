"""The Triton row kernels against float64: on the GPU where there is one, in Triton's interpreter elsewhere."""

from __future__ import annotations

import importlib
import math
from typing import Any

import pytest
import torch
from tests.kernels.row_checks import assert_as_good, distributions, draw, gradient_tolerance, scalars

from isogon.kernels import (
    Projection,
    Support,
    categorical_loss,
    hl_gauss_loss,
    project_categorical,
    symexp,
    symlog,
)
from isogon.kernels.rows import DistributionTargets, RowStats, ScalarTargets

# The interpreter computes in NumPy, which warns of infinities and NaN that are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
pytest.importorskip("triton", reason="triton is not installed: it is made for Linux on x86-64 and Arm")
rows: Any = importlib.import_module("isogon.kernels.rows_triton")
PROJECTIONS: tuple[Projection, ...] = ("hl_gauss", "two_hot", "one_hot")
HALF = (torch.bfloat16, torch.float16)


def check_scalars(samples: tuple[torch.Tensor, ...], support: Support, projection: Projection) -> None:
    """Loss, gradient and stats of every sample: logits, target and weight."""
    logits, target, weight = samples

    def plain(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, RowStats]:
        x = x.detach().requires_grad_()
        _, stats = hl_gauss_loss(x, y, support, projection=projection, weight=weight.to(y), return_stats=True)
        loss = hl_gauss_loss(x, y, support, projection=projection, weight=weight.to(y), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        mean = (stats.value - (support.first_centre + support.last_centre) / 2) / support.width
        return stats.loss, gradient, RowStats(mean, stats.entropy, stats.logsumexp)

    loss, gradient, stats = plain(logits.double(), target.double())
    plain_loss, plain_gradient, plain_stats = plain(logits, target)
    result = rows.forward(logits, None, scalars(target, support, projection), weight, 1.0, gradient=True, stats=True)
    assert (result.loss.dtype, result.gradient.dtype) == (torch.float32, logits.dtype)
    assert_as_good("loss", result.loss, loss, plain_loss, 1e-5)
    tolerance = gradient_tolerance(logits.dtype, gradient)
    assert_as_good("gradient", result.gradient, gradient, plain_gradient, tolerance)
    assert_as_good("mean", result.stats.mean, stats.mean, plain_stats.mean, 1e-7 * support.bins)
    assert_as_good("entropy", result.stats.entropy, stats.entropy, plain_stats.entropy, 1e-6)
    assert_as_good("logsumexp", result.stats.logsumexp, stats.logsumexp, plain_stats.logsumexp, 2e-6)
    assert result.stats.target_mean is None
    alone = rows.forward(logits, None, scalars(target, support, projection), weight, 1.0, gradient=False, stats=False)
    assert alone.gradient is None
    assert alone.stats is None
    assert torch.equal(alone.loss, result.loss)


@pytest.mark.parametrize("bins", [2, 3, 31, 51, 101, 127, 128, 129, 255, 601, 1001, 1025, 4096, 5000])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_loss_gradient_and_stats(device: str, projection: Projection, bins: int) -> None:
    support = Support(-10.0, 10.0, bins, anchor="atoms" if projection == "two_hot" else "edges")
    check_scalars(draw(17 if bins < 1000 else 3, bins, device), support, projection)


@pytest.mark.parametrize("bins", [5, 51, 255])
@pytest.mark.parametrize("ratio", [1e-40, 1e-4, 0.01, 0.1, 2.0, 20.0])
def test_narrow_and_wide_gaussians(device: str, ratio: float, bins: int) -> None:
    check_scalars(draw(9, bins, device), Support(-10.0, 10.0, bins, ratio), "hl_gauss")


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("bins", [51, 128, 5000])
def test_half_precision_logits(device: str, bins: int, dtype: torch.dtype) -> None:
    check_scalars(draw(5, bins, device, dtype), Support(-10.0, 10.0, bins), "hl_gauss")


@pytest.mark.parametrize("ratio", [0.1, 0.75, 2.0])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_edges_centres_and_ends(device: str, projection: Projection, ratio: float) -> None:
    """Targets on every edge and centre, just beside the ends, at the ends and beyond them."""
    support = Support(-3.0, 5.0, 32, ratio)
    beyond = torch.tensor([-3.0, 5.0, -3.0000002, 4.9999995, 5.1, 1e30, -1e30, math.inf, -math.inf])
    target = torch.cat([support.edges(), support.centres(), beyond]).to(device)
    logits, _, weight = draw(len(target), 32, device)
    check_scalars((logits, target, weight), support, projection)


@pytest.mark.parametrize("transform", ["symlog", "symexp"])
def test_transformed_supports(device: str, transform: str) -> None:
    """Positions come ready in float64; the mean of symexp's centres is formed in float64."""
    support = Support(-12.0, 12.0, 129, transform="symexp" if transform == "symexp" else "symlog")
    logits, target, _ = draw(9, 129, device)
    target = symexp(target)
    position = (symlog(target.double().clamp(support.lowest, support.highest)) - support.vmin) / support.width
    targets = ScalarTargets(position, "hl_gauss", 129, support.sigma_ratio, 0.0, 129.0, 0.0, 1.0)
    centres = support.centres(dtype=torch.float64, device=device) if transform == "symexp" else None
    result = rows.forward(logits, None, targets, None, 1.0, gradient=False, stats=True, centres=centres)
    truth, stats = hl_gauss_loss(logits.double(), target.double(), support, reduction="none", return_stats=True)
    assert_as_good("loss", result.loss, truth, tolerance=1e-5)
    middle = (support.first_centre + support.last_centre) / 2
    value = result.stats.mean if transform == "symexp" else symexp(middle + support.width * result.stats.mean.double())
    torch.testing.assert_close(value.double(), stats.value, rtol=3e-6, atol=1e-3)


def check_distributions(
    logits: torch.Tensor, targets: DistributionTargets, truth: torch.Tensor, weight: torch.Tensor
) -> None:
    x = logits.double().requires_grad_()
    loss = categorical_loss(x, truth, reduction="none")
    (gradient,) = torch.autograd.grad((loss * weight.double()).sum() / 4, x)
    result = rows.forward(logits, None, targets, weight, 0.25, gradient=True, stats=True)
    assert_as_good("loss", result.loss, loss.detach(), tolerance=1.5e-5)
    assert_as_good("gradient", result.gradient, gradient, tolerance=gradient_tolerance(logits.dtype, gradient))
    k = torch.arange(targets.bins, dtype=torch.float64, device=logits.device)
    assert_as_good("target_mean", result.stats.target_mean, truth @ k, tolerance=4e-7 * targets.bins)
    assert_as_good("logsumexp", result.stats.logsumexp, torch.logsumexp(x.detach(), -1), tolerance=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bins", [2, 51, 128, 4100])
def test_given_distributions(device: str, bins: int, dtype: torch.dtype) -> None:
    """bfloat16 distributions do not sum to 1: the gradient is that of the loss all the same."""
    logits, _, weight = draw(5, bins, device)
    probs = distributions(5, bins, device).to(dtype)
    check_distributions(logits, DistributionTargets(probs, bins), probs.double(), weight)


@pytest.mark.parametrize("bins", [2, 51, 128])
def test_distributions_moved_by_a_reward(device: str, bins: int) -> None:
    """C51's projection, with ends of episodes, no discount at all, and atoms moved beyond both ends."""
    support = Support(-10.0, 10.0, bins, anchor="atoms")
    logits, reward, weight = draw(12, bins, device)
    probs = distributions(12, bins, device)
    discount = torch.linspace(0.0, 1.0, 12, device=device)
    reward[0], reward[1], reward[2], reward[-1] = 0.0, 100.0, -100.0, 0.0
    truth = project_categorical(reward.double(), discount.double(), probs, support)
    targets = DistributionTargets(probs.float(), bins, reward, discount, support.first_centre, support.width)
    check_distributions(logits, targets, truth, weight)


@pytest.mark.parametrize("bins", [51, 5000])
def test_gradient_with_an_upstream(device: str, bins: int) -> None:
    support = Support(-10.0, 10.0, bins)
    logits, target, weight = draw(6, bins, device)
    targets = scalars(target, support)
    upstream = torch.linspace(-2, 3, 6, device=device)
    x = logits.double().requires_grad_()
    loss = hl_gauss_loss(x, target.double(), support, weight=weight.double(), reduction="none")
    (truth,) = torch.autograd.grad(loss, x, upstream.double())
    assert_as_good("gradient", rows.gradient(logits, None, targets, weight, upstream), truth, tolerance=6e-6)
    forward = rows.forward(logits, None, targets, weight, 0.5, gradient=True, stats=False)
    half = torch.tensor(0.5, device=device)
    assert torch.equal(rows.gradient(logits, None, targets, weight, half), forward.gradient)
    assert torch.equal(rows.gradient(logits, None, targets, weight, half.expand(6)), forward.gradient)


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_scale(device: str, dtype: torch.dtype) -> None:
    gradient = torch.randn(500, 51, device=device).to(dtype)
    for factor in (1.0, -0.3, 0.0):
        scaled = gradient.clone()
        rows.scale_(scaled, torch.tensor(factor, device=device))
        assert torch.equal(scaled, (gradient.float() * factor).to(dtype))
    untouched = gradient.clone()
    rows.scale_(untouched, torch.tensor(1.0, device=device))
    assert torch.equal(untouched.view(torch.uint8), gradient.view(torch.uint8))
    rows.scale_(gradient[:0], torch.tensor(2.0, device=device))


def test_the_normal_tail(device: str) -> None:
    """`upper_tail` against float64: 1e-7 absolute, monotone, exactly 1/2 at 0 and no difference beyond 6."""
    u = torch.linspace(0, 8, 2**16, device=device)
    tail = torch.empty_like(u)
    importlib.import_module("tests.kernels.triton_probes").evaluate_tail[(16,)](u, tail, BLOCK=2**12)
    truth = torch.special.erfc(u.double() / math.sqrt(2)) / 2
    assert_as_good("tail", tail, truth, tolerance=1e-7)
    middle = u < 4
    assert float(((tail - truth) / truth)[middle].abs().max()) < 1e-5
    assert tail[0].item() == 0.5
    assert bool((tail.diff() <= 1e-12).all())
    assert bool((tail[u >= 6] == tail[-1]).all())
