"""What the tests of row kernels share: samples, targets as kernels take them, and the rule for errors."""

from __future__ import annotations

import math

import torch

from isogon.kernels import Projection, Support
from isogon.kernels.rows import ScalarTargets


def scalars(target: torch.Tensor, support: Support, projection: Projection = "hl_gauss") -> ScalarTargets:
    """Of a support without a transform."""
    first = support.first_centre - (0.0 if projection == "two_hot" else support.width / 2)
    return ScalarTargets(
        target, projection, support.bins, support.sigma_ratio, support.lowest, support.highest, first, support.width
    )


def draw(n: int, bins: int, device: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Logits N(0, 25), half of them with a peak; targets on [-12, 12]; weights."""
    generator = torch.Generator().manual_seed(n + bins)
    logits = 5 * torch.randn(n, bins, generator=generator)
    logits[::2, bins // 3] += 20
    target = 24 * torch.rand(n, generator=generator) - 12
    weight = torch.rand(n, generator=generator) + 0.1
    return logits.to(device, dtype), target.to(device), weight.to(device)


def distributions(n: int, bins: int, device: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(bins)
    return torch.softmax(2 * torch.randn(n, bins, generator=generator, dtype=torch.float64), -1).to(device)


def assert_as_good(
    name: str, got: torch.Tensor, truth: torch.Tensor, plain: torch.Tensor | None = None, tolerance: float = 0.0
) -> None:
    """The error is at most plain torch's largest, plus a tolerance."""
    allowed = tolerance if plain is None else float((plain.double() - truth).abs().max()) + tolerance
    error = (got.double() - truth).abs()
    error = torch.where(got.double() == truth, 0.0, error)
    worst = int(torch.where(error.isnan(), math.inf, error).argmax())
    assert bool((error <= allowed).all()), (
        f"{name}: error {error.flatten()[worst].item():.3g} > {allowed:.3g} at element {worst}: "
        f"{got.flatten()[worst].item()} instead of {truth.flatten()[worst].item()}"
    )


def gradient_tolerance(dtype: torch.dtype, truth: torch.Tensor) -> float:
    """float32's, and one rounding of the largest element in half precision."""
    return 2e-6 if dtype == torch.float32 else 2e-6 + float(truth.abs().max()) * torch.finfo(dtype).eps / 2
