import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.kernels import (
    HLGaussStats,
    OutOfRange,
    Projection,
    Reduction,
    Support,
    categorical_loss,
    hl_gauss_loss,
    target_probabilities,
)

PROJECTIONS: tuple[Projection, ...] = ("hl_gauss", "two_hot", "one_hot")
REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "weighted_mean", "none")
SUPPORT = Support(-2.0, 3.0, 11)


def samples(n: int = 6, dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Logits, targets (some out of range) and weights."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, SUPPORT.bins, generator=generator, dtype=torch.float64)
    target = 3 * torch.randn(n, generator=generator, dtype=torch.float64)
    weight = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1
    return logits.to(dtype).requires_grad_(), target.to(dtype), weight.to(dtype)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_loss_and_stats_match_their_definitions(projection: Projection) -> None:
    logits, target, weight = samples()
    loss, stats = hl_gauss_loss(
        logits, target, SUPPORT, projection=projection, weight=weight, reduction="none", return_stats=True
    )
    p = target_probabilities(target, SUPPORT, projection)
    q = torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True)
    centres = torch.tensor([-2 + (k + 0.5) * 5 / 11 for k in range(11)], dtype=torch.float64)
    cross_entropy = -(p * torch.log(q)).sum(-1)
    torch.testing.assert_close(loss, weight * cross_entropy)
    torch.testing.assert_close(stats.loss, cross_entropy)
    torch.testing.assert_close(stats.value, (q * centres).sum(-1))
    torch.testing.assert_close(stats.td_error, (q * centres).sum(-1) - target.clamp(-2, 3))
    torch.testing.assert_close(stats.entropy, -(q * torch.log(q)).sum(-1))
    torch.testing.assert_close(stats.logsumexp, torch.log(torch.exp(logits).sum(-1)))
    assert stats.clipped.item() == int(((target < -2) | (target > 3)).sum()) > 0
    assert stats.clipped.dtype == torch.int64
    assert not any(getattr(stats, name).requires_grad for name in HLGaussStats.__dataclass_fields__)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions(reduction: Reduction, weighted: bool) -> None:
    logits, target, all_weights = samples()
    weight = all_weights if weighted else None
    single = torch.stack([hl_gauss_loss(logits[i], target[i], SUPPORT) for i in range(6)])
    w = all_weights if weighted else torch.ones(6, dtype=torch.float64)
    wanted = {
        "none": w * single,
        "sum": (w * single).sum(),
        "mean": (w * single).sum() / 6,
        "weighted_mean": (w * single).sum() / w.sum(),
    }[reduction]
    torch.testing.assert_close(hl_gauss_loss(logits, target, SUPPORT, weight=weight, reduction=reduction), wanted)


@pytest.mark.parametrize("return_stats", [False, True])
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients(reduction: Reduction, projection: Projection, return_stats: bool) -> None:
    """Against finite differences, and against the closed form w (q - p) / norm, with uneven upstream gradients."""
    logits, target, weight = samples()

    def loss(x: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {"projection": projection, "weight": weight, "reduction": reduction}
        result: Any = hl_gauss_loss(x, target, SUPPORT, return_stats=return_stats, **options)
        value: torch.Tensor = result[0] if return_stats else result
        return value

    assert torch.autograd.gradcheck(loss, (logits,))
    assert torch.autograd.gradgradcheck(loss, (logits,))
    upstream = (
        torch.linspace(-1, 2, 6, dtype=torch.float64) if reduction == "none" else torch.ones((), dtype=weight.dtype)
    )
    (gradient,) = torch.autograd.grad(loss(logits), logits, upstream)
    norm = {"none": 1.0, "sum": 1.0, "mean": 6.0, "weighted_mean": weight.sum().item()}[reduction]
    p = target_probabilities(target, SUPPORT, projection)
    closed = (weight * upstream / norm).unsqueeze(-1) * (torch.softmax(logits, -1) - p)
    torch.testing.assert_close(gradient, closed)


def test_backward_twice_gives_the_same() -> None:
    logits, target, _ = samples()
    loss = hl_gauss_loss(logits, target, SUPPORT)
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (second,) = torch.autograd.grad(loss, logits)
    assert torch.equal(first, second)


@pytest.mark.parametrize("beyond", [3.1, 5.0, 100.0, 1e30, math.inf])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_targets_beyond_the_range_still_pull(beyond: float, projection: Projection) -> None:
    """Without clamping the Gaussian's mass in range underflows, and loss and gradient become 0 in silence."""
    logits = torch.zeros(1, 11, requires_grad=True)
    for target, end in ((beyond, 3.0), (-beyond, -2.0)):
        loss, stats = hl_gauss_loss(logits, torch.tensor([target]), SUPPORT, projection=projection, return_stats=True)
        at_end, end_stats = hl_gauss_loss(
            logits, torch.tensor([end]), SUPPORT, projection=projection, return_stats=True
        )
        assert torch.equal(loss, at_end)
        assert loss.item() == pytest.approx(math.log(11), rel=1e-5)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.abs().max() > 0.1
        assert (stats.clipped.item(), end_stats.clipped.item()) == (1, 0)
        assert torch.equal(stats.td_error, end_stats.td_error)


def test_range_ends_that_float32_rounds_are_in_range() -> None:
    support = Support(-0.1, 0.1, 5)
    target = torch.tensor([-0.1, 0.1])
    assert float(target[1]) > support.vmax
    _, stats = hl_gauss_loss(torch.zeros(2, 5), target, support, out_of_range="error", return_stats=True)
    assert stats.clipped.item() == 0


def test_out_of_range_and_nan_targets_are_refused_by_name() -> None:
    logits = torch.zeros(4, 11)
    with pytest.raises(ValueError, match=r"target has 2 of 4 outside \[-2\.0, 3\.0\], such as 7\.0"):
        hl_gauss_loss(logits, torch.tensor([0.0, 7.0, 1.0, -math.inf]), SUPPORT, out_of_range="error")
    policies: tuple[OutOfRange, ...] = ("clamp", "error")
    for policy in policies:
        with pytest.raises(ValueError, match="target has 2 NaN of 4"):
            hl_gauss_loss(logits, torch.tensor([0.0, math.nan, 1.0, math.nan]), SUPPORT, out_of_range=policy)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"logits": torch.zeros(4, 10)}, r"logits have shape \(4, 10\).*support's 11 bins"),
        ({"logits": torch.zeros(4, 11, dtype=torch.int64)}, r"logits have dtype torch\.int64"),
        ({"target": torch.zeros(4, 1)}, r"target has shape \(4, 1\)"),
        ({"target": torch.zeros(4, dtype=torch.int64)}, r"target has dtype torch\.int64"),
        ({"target": torch.zeros(4, requires_grad=True)}, "target requires a gradient"),
        ({"weight": torch.ones(3)}, r"weight has shape \(3,\)"),
        ({"weight": torch.ones(4, requires_grad=True)}, "weight requires a gradient"),
        ({"reduction": "average"}, "reduction is 'average'"),
        ({"projection": "c51"}, "projection is 'c51'"),
        ({"out_of_range": "nan"}, "out_of_range is 'nan'"),
    ],
)
def test_bad_arguments_are_named(changed: dict[str, Any], named: str) -> None:
    arguments: dict[str, Any] = {"logits": torch.zeros(4, 11), "target": torch.zeros(4), "support": SUPPORT, **changed}
    with pytest.raises(ValueError, match=named):
        hl_gauss_loss(**arguments)


def test_samples_of_weight_zero_count_for_nothing() -> None:
    logits, target, weight = samples(dtype=torch.float32)
    support = Support(1.0, 6.0, 11)
    clean = logits.detach().clone().requires_grad_()
    dirty = logits.detach().clone()
    dirty[2], dirty[4] = math.nan, math.inf
    dirty.requires_grad_()
    target = target.clamp(1, 6)
    bad_target = target.clone()
    bad_target[2], bad_target[4] = math.nan, 1e9
    weight[2] = weight[4] = 0
    wanted = hl_gauss_loss(clean, target, support, weight=weight, out_of_range="error")
    loss, stats = hl_gauss_loss(dirty, bad_target, support, weight=weight, out_of_range="error", return_stats=True)
    assert torch.equal(loss, wanted)
    assert stats.clipped.item() == 0
    (gradient,) = torch.autograd.grad(loss, dirty)
    (wanted_gradient,) = torch.autograd.grad(wanted, clean)
    assert torch.equal(gradient, wanted_gradient)
    assert bool((gradient[[2, 4]] == 0).all())


def test_nan_logits_poison_their_own_row_only() -> None:
    logits, target, _ = samples(dtype=torch.float32)
    dirty = logits.detach().clone()
    dirty[3, 5] = math.nan
    dirty.requires_grad_()
    clean_loss = hl_gauss_loss(logits, target, SUPPORT, reduction="none")
    loss = hl_gauss_loss(dirty, target, SUPPORT, reduction="none")
    (clean_gradient,) = torch.autograd.grad(clean_loss.sum(), logits)
    (gradient,) = torch.autograd.grad(loss.sum(), dirty)
    others = [0, 1, 2, 4, 5]
    assert loss.isnan().tolist() == [i == 3 for i in range(6)]
    assert torch.equal(loss[others], clean_loss[others])
    assert torch.equal(gradient[others], clean_gradient[others])
    assert bool(gradient[3].isnan().all())


def test_masked_bins_without_target_mass_leave_the_loss_finite() -> None:
    logits = torch.zeros(1, 11)
    logits[0, 8:] = -math.inf
    logits.requires_grad_()
    loss = hl_gauss_loss(logits, torch.tensor([-1.0]), SUPPORT, projection="two_hot")
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(math.log(8))
    assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_huge_logits_and_shifts(size: float) -> None:
    target = torch.tensor([0.4])
    plain = hl_gauss_loss(torch.zeros(1, 11), target, SUPPORT)
    shifted = hl_gauss_loss(torch.full((1, 11), size), target, SUPPORT)
    torch.testing.assert_close(shifted, plain)
    peaked = torch.zeros(1, 11)
    peaked[0, 0] = abs(size)
    assert hl_gauss_loss(peaked, target, SUPPORT).isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits, target, _ = samples(dtype=torch.float32)
    half = logits.detach().to(dtype).requires_grad_()
    exact = half.detach().double().requires_grad_()
    loss = hl_gauss_loss(half, target, SUPPORT)
    wanted = hl_gauss_loss(exact, target.double(), SUPPORT)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, half)
    (wanted_gradient,) = torch.autograd.grad(wanted, exact)
    torch.testing.assert_close(gradient, wanted_gradient.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


@pytest.mark.parametrize("bins", [2, 51, 255, 1001])
@pytest.mark.parametrize("ratio", [0.1, 0.75, 2.0])
def test_float32_error_against_float64(bins: int, ratio: float) -> None:
    support = Support(-10.0, 10.0, bins, sigma_ratio=ratio)
    generator = torch.Generator().manual_seed(bins)
    logits = (5 * torch.randn(64, bins, generator=generator)).requires_grad_()
    target = 24 * torch.rand(64, generator=generator) - 12
    exact = logits.detach().double().requires_grad_()
    loss = hl_gauss_loss(logits, target, support, reduction="none")
    wanted = hl_gauss_loss(exact, target.double(), support, reduction="none")
    torch.testing.assert_close(loss.double(), wanted, rtol=0, atol=1.5e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    (wanted_gradient,) = torch.autograd.grad(wanted.sum(), exact)
    torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=0, atol=2e-6)


def test_leading_shapes_and_strides() -> None:
    logits, target, weight = samples(12)
    wanted = hl_gauss_loss(logits, target, SUPPORT, weight=weight, reduction="none")
    cube = hl_gauss_loss(
        logits.reshape(3, 4, 11), target.reshape(3, 4), SUPPORT, weight=weight.reshape(3, 4), reduction="none"
    )
    torch.testing.assert_close(cube, wanted.reshape(3, 4))
    columns = logits.detach().t().contiguous().t()
    torch.testing.assert_close(hl_gauss_loss(columns, target, SUPPORT, weight=weight, reduction="none"), wanted)
    spread = logits.detach()[:1].expand(12, 11)
    assert hl_gauss_loss(spread, target, SUPPORT, reduction="none").shape == (12,)
    assert hl_gauss_loss(torch.zeros(0, 11), torch.zeros(0), SUPPORT, reduction="sum").item() == 0
    assert math.isnan(hl_gauss_loss(torch.zeros(0, 11), torch.zeros(0), SUPPORT).item())


@settings(max_examples=40, deadline=None)
@given(
    bins=st.integers(2, 64),
    ratio=st.floats(0.05, 10),
    target=st.floats(-8, 8),
    scale=st.floats(0, 20),
    seed=st.integers(0, 2**31),
    projection=st.sampled_from(PROJECTIONS),
)
def test_loss_is_at_least_the_targets_entropy(
    bins: int, ratio: float, target: float, scale: float, seed: int, projection: Projection
) -> None:
    support = Support(-5.0, 5.0, bins, ratio)
    y = torch.tensor([target], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(1, bins, generator=generator, dtype=torch.float64)).requires_grad_()
    loss = hl_gauss_loss(logits, y, support, projection=projection)
    p = target_probabilities(y, support, projection)
    entropy = -torch.special.xlogy(p, p).sum()
    assert loss.item() >= entropy.item() - 1e-9
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.sum().item() == pytest.approx(0, abs=1e-12)
    at_optimum = hl_gauss_loss(torch.log(p), y, support, projection=projection)
    assert at_optimum.item() == pytest.approx(entropy.item(), abs=1e-9)


def test_categorical_loss_is_torchs_cross_entropy() -> None:
    logits, _, weight = samples()
    probs = torch.softmax(torch.randn(6, 11, dtype=torch.float64), -1)
    wanted = torch.nn.functional.cross_entropy(logits, probs, reduction="none")
    torch.testing.assert_close(categorical_loss(logits, probs, reduction="none"), wanted)
    torch.testing.assert_close(
        categorical_loss(logits, probs, weight=weight, reduction="weighted_mean"),
        (weight * wanted).sum() / weight.sum(),
    )
    assert torch.autograd.gradcheck(lambda x: categorical_loss(x, probs, weight=weight), (logits,))
    with pytest.raises(ValueError, match=r"probs has shape \(6, 10\)"):
        categorical_loss(logits, probs[:, :10])
    with pytest.raises(ValueError, match="probs requires a gradient"):
        categorical_loss(logits, probs.requires_grad_())
