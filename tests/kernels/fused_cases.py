"""What the tests of the fused losses share: implementations, supports, samples."""

from __future__ import annotations

import torch

from isogon.kernels import (
    HLGaussStats,
    Impl,
    Reduction,
    Support,
)
from isogon.kernels.backends import why_not

IMPLS: tuple[Impl, ...] = (
    "torch",
    "reference",
    *(("native",) if why_not("native") is None else ()),
)
FUSED: tuple[Impl, ...] = tuple(impl for impl in IMPLS if impl != "reference")
REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "weighted_mean", "none")
SUPPORT = Support(-10.0, 10.0, 51)
WIDE = Support(-6.0, 6.0, 51, transform="symlog")
SUPPORTS = (SUPPORT, WIDE, Support(-6.0, 6.0, 51, transform="symexp"), Support(-10.0, 10.0, 51, anchor="atoms"))


def samples(n: int = 40, bins: int = 51, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, targets, of which some are out of range, and weights, of which some are 0."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(n, bins, generator=generator)
    target = 6 * torch.randn(n, generator=generator)
    weight = torch.rand(n, generator=generator)
    weight[::7] = 0
    return logits, target, weight


def gradient_of(loss: torch.Tensor, logits: torch.Tensor, upstream: torch.Tensor | float = 1.0) -> torch.Tensor:
    factor = torch.as_tensor(upstream, dtype=loss.dtype).expand(loss.shape)
    (gradient,) = torch.autograd.grad(loss, logits, factor)
    return gradient


def same_stats(one: HLGaussStats, other: HLGaussStats, used: torch.Tensor) -> None:
    for name in ("loss", "value", "td_error", "entropy", "logsumexp"):
        left, right = getattr(one, name)[used], getattr(other, name)[used]
        assert not left.requires_grad
        torch.testing.assert_close(left, right, rtol=2e-5, atol=2e-5)
    assert torch.equal(one.clipped, other.clipped)


def pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """40 pairs of 9 states and 5 actions: some often, some never, some left out."""
    generator = torch.Generator().manual_seed(5)
    row = torch.randint(0, 8, (40,), generator=generator)
    action = torch.randint(-1, 4, (40,), generator=generator)
    action[:3] = -7
    return torch.randn(9, 5, 51, generator=generator), row, action
