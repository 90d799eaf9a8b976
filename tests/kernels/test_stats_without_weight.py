"""Stats of samples of weight 0, by every implementation: all 0, whatever is in the samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from isogon.kernels import HLGaussStats, Impl, Support, categorical_loss, hl_gauss_loss
from isogon.kernels.backends import why_not
from isogon.kernels.robust import symmetric_cross_entropy_loss

IMPLS: tuple[Impl, ...] = ("native", "triton", "torch", "reference")
SUPPORTS = (
    Support(1.0, 6.0, 11),
    Support(-1.0, 3.0, 11, transform="symlog"),
    Support(-1.0, 3.0, 10, anchor="atoms", transform="symexp"),
)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(params=IMPLS)
def impl(request: pytest.FixtureRequest) -> Impl:
    if request.param in ("native", "triton") and (missing := why_not(request.param)) is not None:
        pytest.skip(missing)
    return request.param  # type: ignore[no-any-return]


def samples(bins: int, device: str) -> tuple[torch.Tensor, ...]:
    """Logits, targets and weights of 20 samples, of which two have no weight."""
    generator = torch.Generator().manual_seed(bins)
    logits = torch.randn(20, bins, generator=generator)
    target = 1 + torch.rand(20, generator=generator)
    weight = torch.rand(20, generator=generator) + 0.1
    logits[3], target[3], target[8], weight[3], weight[8] = math.nan, math.inf, math.nan, 0, -0.0
    return logits.to(device), target.to(device), weight.to(device)


def assert_all_0(stats: HLGaussStats, which: list[int]) -> None:
    others = [i for i in range(20) if i not in which]
    for name in ("loss", "value", "td_error", "entropy", "logsumexp"):
        part = getattr(stats, name)
        assert part[which].tolist() == [0.0] * len(which), name
        assert bool((part[others] != 0).all()), name


@pytest.mark.parametrize("support", SUPPORTS)
def test_stats_of_samples_of_weight_zero_are_zero(support: Support, impl: Impl, request: pytest.FixtureRequest) -> None:
    device = "cpu" if impl != "triton" else request.getfixturevalue("device")
    logits, target, weight = samples(support.bins, device)
    _, stats = hl_gauss_loss(logits, target, support, weight=weight, return_stats=True, impl=impl)
    assert_all_0(stats, [3, 8])
    cube = torch.zeros(20, 2, support.bins, device=device)
    cube[:, 1] = logits
    row, action = torch.arange(20, device=device), torch.ones(20, dtype=torch.int64, device=device)
    action[5], weight[8] = -1, 1
    target[8] = 1.5
    _, stats = hl_gauss_loss(cube, target, support, row=row, action=action, weight=weight, return_stats=True, impl=impl)
    assert_all_0(stats, [3, 5])
    probs = torch.softmax(logits.flip(0), -1)
    probs[3], probs[16], weight[16], target[3] = math.inf, math.nan, 0, math.nan
    moves: tuple[dict[str, Any], ...] = ({}, {"reward": target, "discount": target / 2})
    for moved in moves:
        _, stats = categorical_loss(
            logits, probs, weight=weight, support=support, return_stats=True, impl=impl, **moved
        )
        assert_all_0(stats, [3, 16])


def test_robust_losses_give_the_same() -> None:
    logits, target, weight = samples(11, "cpu")
    _, stats = symmetric_cross_entropy_loss(logits, target, SUPPORTS[0], weight=weight, return_stats=True)
    assert_all_0(stats, [3, 8])
