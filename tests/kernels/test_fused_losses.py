"""`hl_gauss_loss` and `categorical_loss` as users call them, by every implementation for the CPU.

The numbers in names are groups of traps, as in `row_suite`.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from isogon.kernels import (
    HLGaussStats,
    Impl,
    Projection,
    Reduction,
    Support,
    categorical_loss,
    hl_gauss_loss,
    project_categorical,
)
from isogon.kernels.backends import choose, describe, why_not

from .row_cases import HALF, PROJECTIONS

IMPLS: tuple[Impl, ...] = (
    "torch",
    "reference",
    *(("native",) if why_not("native") is None else ()),  # type: ignore[arg-type]
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


@pytest.mark.parametrize("impl", IMPLS)
def test_1_targets_that_are_no_values_are_refused(impl: Impl) -> None:
    logits, target, weight = samples()
    target[[3, 5]] = math.nan
    with pytest.raises(ValueError, match="target has 2 NaN of"):
        hl_gauss_loss(logits, target, SUPPORT, impl=impl)
    with pytest.raises(ValueError, match="target has 2 NaN of"):
        hl_gauss_loss(logits, target, WIDE, impl=impl)
    target[[3, 5]] = torch.tensor([math.inf, 0.0])
    target.clamp_(min=-10)
    target[target > 10] = torch.where(target[target > 10] == math.inf, math.inf, 10.0)
    with pytest.raises(ValueError, match=r"target has 1 of \d+ outside \[-10\.0, 10\.0\], such as inf"):
        hl_gauss_loss(logits, target, SUPPORT, impl=impl, out_of_range="error")
    weight[3] = 0
    loss = hl_gauss_loss(logits, target, SUPPORT, impl=impl, out_of_range="error", weight=weight)
    assert loss.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("impl", IMPLS)
def test_1_range_ends_in_the_targets_dtype_are_in_range(impl: Impl, dtype: torch.dtype) -> None:
    target = torch.tensor([-0.1, 0.1, -0.2, 0.3, math.inf]).to(dtype)
    target[:2] = torch.tensor([-0.1, 0.1], dtype=dtype)
    _, stats = hl_gauss_loss(torch.zeros(5, 5), target, Support(-0.1, 0.1, 5), impl=impl, return_stats=True)
    assert stats.clipped.item() == 3


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("impl", FUSED)
def test_5_scaled_losses_keep_small_gradients(impl: Impl, dtype: torch.dtype) -> None:
    """Gradients of float16 are multiplied by what a gradient scaler says before they are rounded."""
    logits, target, weight = samples()
    half = logits.to(dtype).requires_grad_()
    exact = half.detach().double().requires_grad_()
    for reduction in REDUCTIONS:
        options: dict[str, Any] = {"weight": 1e-4 * weight, "reduction": reduction}
        got = gradient_of(hl_gauss_loss(half, target, SUPPORT, impl=impl, **options), half, 65536.0)
        wanted = gradient_of(hl_gauss_loss(exact, target.double(), SUPPORT, **options), exact, 65536.0)
        torch.testing.assert_close(got.double(), wanted, rtol=2 * torch.finfo(dtype).eps, atol=4e-6)


@pytest.mark.parametrize("impl", IMPLS)
def test_7_empty_batches_and_single_bins(impl: Impl) -> None:
    for reduction in REDUCTIONS:
        logits = torch.zeros(0, 51, requires_grad=True)
        empty = torch.zeros(0)
        loss, stats = hl_gauss_loss(logits, empty, SUPPORT, reduction=reduction, impl=impl, return_stats=True)
        assert stats.value.shape == (0,)
        assert loss.shape == ((0,) if reduction == "none" else ())
        if reduction != "none":
            assert loss.isnan().item() == (reduction != "sum")
        assert gradient_of(loss, logits).shape == (0, 51)
        assert categorical_loss(logits, torch.zeros(0, 51), reduction="sum", impl=impl).item() == 0
    none = torch.zeros(0, dtype=torch.int64)
    cube = torch.zeros(2, 3, 51, requires_grad=True)
    loss = hl_gauss_loss(cube, torch.zeros(0), SUPPORT, row=none, action=none, reduction="sum", impl=impl)
    assert bool((gradient_of(loss, cube) == 0).all())
    with pytest.raises(ValueError, match="at least 2 bins"):
        categorical_loss(torch.zeros(3, 1), torch.ones(3, 1), impl=impl)


@pytest.mark.parametrize("impl", FUSED)
def test_8_leading_shapes_and_strides(impl: Impl) -> None:
    logits, target, weight = samples()
    probs = torch.softmax(logits.flip(0), -1)
    cube = logits.reshape(8, 5, 51).transpose(0, 1).detach().requires_grad_()
    swapped = [part.reshape(8, 5).t() for part in (target, weight)]
    flat = logits.clone().requires_grad_()
    for reduction in REDUCTIONS:
        one, stats = hl_gauss_loss(
            cube, swapped[0], SUPPORT, weight=swapped[1], reduction=reduction, impl=impl, return_stats=True
        )
        other = hl_gauss_loss(flat, target, SUPPORT, weight=weight, reduction=reduction, impl=impl)
        assert stats.value.shape == (5, 8)
        torch.testing.assert_close(one, other.reshape(8, 5).t() if reduction == "none" else other)
        wanted = gradient_of(other, flat).reshape(8, 5, 51).transpose(0, 1)
        torch.testing.assert_close(gradient_of(one, cube), wanted)
        swapped_probs = probs.reshape(8, 5, 51).transpose(0, 1)
        one = categorical_loss(cube, swapped_probs, weight=swapped[1], reduction=reduction, impl=impl)
        other = categorical_loss(flat, probs, weight=weight, reduction=reduction, impl=impl)
        torch.testing.assert_close(one, other.reshape(8, 5).t() if reduction == "none" else other)
    single = hl_gauss_loss(logits[0], target[0], SUPPORT, impl=impl, reduction="none")
    assert single.shape == ()
    # An expanded row gets the sum of its samples' gradients.
    row = logits[:1].clone().requires_grad_()
    loss = hl_gauss_loss(row.expand(40, 51), target, SUPPORT, reduction="sum", impl=impl)
    many = logits[:1].repeat(40, 1).requires_grad_()
    wanted = gradient_of(hl_gauss_loss(many, target, SUPPORT, reduction="sum", impl=impl), many).sum(0, keepdim=True)
    torch.testing.assert_close(gradient_of(loss, row), wanted)


@pytest.mark.parametrize("impl", FUSED)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("support", SUPPORTS)
def test_10_reductions_and_weights_agree_with_the_reference(support: Support, reduction: Reduction, impl: Impl) -> None:
    """Samples of weight 0 hold poison; upstream gradients are uneven; stats agree where the weight is not 0."""
    logits, target, weight = samples()
    unweighted = weight == 0
    logits[unweighted, 7] = math.nan
    target[unweighted] = math.nan
    upstream = torch.linspace(-1, 2, 40) if reduction == "none" else torch.tensor(0.7)
    for projection in PROJECTIONS:
        found = []
        for one in (impl, "reference"):
            x = logits.clone().requires_grad_()
            loss, stats = hl_gauss_loss(
                x,
                target,
                support,
                weight=weight,
                reduction=reduction,
                projection=projection,
                return_stats=True,
                impl=one,  # type: ignore[arg-type]
            )
            found.append((loss.detach(), gradient_of(loss, x, upstream), stats))
        assert bool((found[0][1][unweighted] == 0).all())
        torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=2e-6)
        same_stats(found[0][2], found[1][2], ~unweighted)


def same_stats(one: HLGaussStats, other: HLGaussStats, used: torch.Tensor) -> None:
    for name in ("loss", "value", "td_error", "entropy", "logsumexp"):
        left, right = getattr(one, name)[used], getattr(other, name)[used]
        assert not left.requires_grad
        torch.testing.assert_close(left, right, rtol=2e-5, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(one.clipped, other.clipped)


@pytest.mark.parametrize("impl", IMPLS)
def test_10_weights_that_are_all_zero_give_no_gradient(impl: Impl) -> None:
    """The weighted mean of nothing is NaN, and still no NaN gets into the parameters."""
    logits, target, _ = samples()
    logits = logits.requires_grad_()
    nothing = torch.zeros(40)
    probs = torch.softmax(logits.detach(), -1)
    for loss in (
        hl_gauss_loss(logits, target, SUPPORT, weight=nothing, reduction="weighted_mean", impl=impl),
        categorical_loss(logits, probs, weight=nothing, reduction="weighted_mean", impl=impl),
    ):
        assert loss.isnan()
        assert bool((gradient_of(loss, logits) == 0).all())


@pytest.mark.parametrize("dtype", [*HALF, torch.float64])
@pytest.mark.parametrize("impl", FUSED)
def test_10_weights_of_any_precision(impl: Impl, dtype: torch.dtype) -> None:
    """Their sum is not taken in half precision."""
    logits, target, weight = samples(2000)
    weight = weight.to(dtype)
    for reduction in REDUCTIONS:
        got = hl_gauss_loss(logits, target, SUPPORT, weight=weight, reduction=reduction, impl=impl)
        wanted = hl_gauss_loss(logits.double(), target.double(), SUPPORT, weight=weight.double(), reduction=reduction)
        torch.testing.assert_close(got.double(), wanted, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_10_no_upstream_gradient_revives_a_weight_of_zero(impl: Impl) -> None:
    logits, target, weight = samples()
    logits = logits.requires_grad_()
    upstream = torch.where(weight == 0, math.inf, 1.0)
    loss = hl_gauss_loss(logits, target, SUPPORT, weight=weight, reduction="none", impl=impl)
    gradient = gradient_of(loss, logits, upstream)
    assert bool((gradient[weight == 0] == 0).all())
    assert bool(gradient.isfinite().all())


def pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """40 pairs of 9 states and 5 actions: some often, some never, some left out."""
    generator = torch.Generator().manual_seed(5)
    row = torch.randint(0, 8, (40,), generator=generator)
    action = torch.randint(-1, 4, (40,), generator=generator)
    action[:3] = -7
    return torch.randn(9, 5, 51, generator=generator), row, action


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("impl", FUSED)
def test_10_chosen_actions(impl: Impl, weighted: bool, dtype: torch.dtype) -> None:
    """Against the rows gathered by plain torch in float64."""
    _, target, weights = samples()
    logits, row, action = pairs()
    logits = (3 * logits).to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    kept = (action >= 0).double()
    weight = weights if weighted else None
    both = kept if weight is None else kept * weight
    upstream = torch.linspace(-1, 2, 40)
    for reduction in REDUCTIONS:
        loss, stats = hl_gauss_loss(
            logits, target, SUPPORT, row=row, action=action, weight=weight, reduction=reduction, impl=impl,
            return_stats=True,
        )  # fmt: skip
        chosen = exact[row, action.clamp(min=0)]
        wanted, wanted_stats = hl_gauss_loss(
            chosen, target.double(), SUPPORT, weight=both, reduction=reduction, return_stats=True
        )
        torch.testing.assert_close(loss.double(), wanted, rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(stats.value[both != 0].double(), wanted_stats.value[both != 0], rtol=0, atol=2e-5)
        assert torch.equal(stats.clipped, wanted_stats.clipped)
        factor = upstream if reduction == "none" else torch.tensor(1.0)
        gradient = gradient_of(loss, logits, factor)
        wanted_gradient = gradient_of(wanted, exact, factor.double())
        tolerance = 2e-6 if dtype == torch.float32 else torch.finfo(dtype).eps * float(wanted_gradient.abs().max())
        torch.testing.assert_close(gradient.double(), wanted_gradient, rtol=0, atol=tolerance)
        unread = torch.ones(9, 5, dtype=torch.bool)
        unread[row[both != 0], action[both != 0]] = False
        assert bool((gradient[unread] == 0).all())
        assert 4 < int(unread.sum()) < 45


@pytest.mark.parametrize("impl", IMPLS)
def test_10_pairs_out_of_range_are_named(impl: Impl) -> None:
    logits, row, action = pairs()
    target = torch.zeros(40)
    for name, index, wrong, told in (
        ("row", row, 9, "row has 9, of 9 states"),
        ("row", row, -1, "row has -1, of 9 states"),
        ("action", action, 5, "action has 5, of 5 actions"),
    ):
        changed = index.clone()
        changed[17] = wrong
        arguments = {"row": row, "action": action, name: changed}
        with pytest.raises(ValueError, match=told):
            hl_gauss_loss(logits, target, SUPPORT, impl=impl, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="action is None"):
        hl_gauss_loss(logits, target, SUPPORT, impl=impl, row=row)
    with pytest.raises(ValueError, match=r"row is torch\.int32"):
        hl_gauss_loss(logits, target, SUPPORT, impl=impl, row=row.int(), action=action)
    with pytest.raises(ValueError, match=r"must be \[B, A, K\]"):
        hl_gauss_loss(logits[0], target, SUPPORT, impl=impl, row=row, action=action)
    with pytest.raises(ValueError, match=r"target has shape \(9,\)"):
        hl_gauss_loss(logits, target[:9], SUPPORT, impl=impl, row=row, action=action)


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
    loss.sum().backward()
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
            gradient.square().sum().backward()
    loss = hl_gauss_loss(logits, target, SUPPORT, reduction=reduction, impl="reference")
    (gradient,) = torch.autograd.grad(loss.sum(), logits, create_graph=True)
    gradient.square().sum().backward()
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
        hl_gauss_loss(learnt, target, SUPPORT, reduction=reduction, impl=impl).sum().backward()
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
        return hl_gauss_loss(
            x, target, support, projection=projection, weight=weight, reduction=reduction, impl=impl
        )

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))
    torch.testing.assert_close(loss(logits), loss(logits, "reference"), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("impl", FUSED)
@pytest.mark.parametrize("support", SUPPORTS)
def test_14_c51s_update_inside_is_the_update_outside(support: Support, impl: Impl) -> None:
    """Discounts of 0, 1 and between; rewards that push all mass to one end; a NaN; stats."""
    logits, reward, weight = samples()
    generator = torch.Generator().manual_seed(9)
    probs = torch.softmax(torch.randn(40, 51, generator=generator), -1)
    discount = torch.tensor([0.0, 1.0, 0.99, 0.5]).repeat(10)
    reward[:4], reward[4:8], reward[8:10] = -1e4, 1e4, torch.tensor([math.inf, -math.inf])
    reward[12:16] = 0
    moved = project_categorical(reward, discount, probs, support)
    assert bool((moved[:4, 0] > 0.999).all())
    assert bool((moved[4:8, -1] > 0.999).all())
    found = []
    for inside in (True, False):
        x = logits.clone().requires_grad_()
        parts = {"reward": reward, "discount": discount} if inside else {}
        loss, stats = categorical_loss(
            x,
            probs if inside else moved,
            support=support,
            weight=weight,
            reduction="none",
            return_stats=True,
            impl=impl if inside else "reference",
            **parts,
        )
        found.append((loss.detach(), gradient_of(loss, x, torch.linspace(-1, 2, 40)), stats))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0, atol=2e-6)
    same_stats(found[0][2], found[1][2], weight != 0)
    reward[21], discount[22], probs[23, 5] = math.nan, math.nan, math.nan
    x = logits.clone().requires_grad_()
    loss = categorical_loss(x, probs, support=support, reward=reward, discount=discount, reduction="none", impl=impl)
    lost = [21, 22, 23]
    assert loss.isnan().nonzero().flatten().tolist() == lost
    gradient = gradient_of(loss, x)
    assert gradient.isnan().any(-1).nonzero().flatten().tolist() == lost
    assert bool(gradient[lost].isnan().all())


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_16_autocast_changes_nothing(impl: Impl, dtype: torch.dtype) -> None:
    logits, target, weight = samples()
    logits = logits.to(dtype)
    probs = torch.softmax(logits.float().flip(0), -1)
    for reduction in REDUCTIONS:
        found = []
        for enabled in (False, True):
            x = logits.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss, stats = hl_gauss_loss(
                    x, target, SUPPORT, weight=weight, reduction=reduction, impl=impl, return_stats=True
                )
                loss = loss.sum() + categorical_loss(x, probs, weight=weight, reduction=reduction, impl=impl).sum()
            found.append((loss.detach(), gradient_of(loss, x), stats.value, stats.entropy))
        for plain, cast in zip(*found, strict=True):
            assert torch.equal(plain, cast)


def test_implementations_are_chosen_by_name() -> None:
    logits, target, _ = samples()
    with pytest.raises(ValueError, match="impl is 'cuda': it must be 'auto', 'triton'"):
        hl_gauss_loss(logits, target, SUPPORT, impl="cuda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="impl is 'c': it must be"):
        categorical_loss(logits, torch.softmax(logits, -1), impl="c")  # type: ignore[arg-type]
    if "native" in IMPLS:
        with pytest.raises(ValueError, match="impl is 'native' and logits are float64: take 'reference', 'torch' or"):
            hl_gauss_loss(logits.double(), target, SUPPORT, impl="native")
        assert describe()["cpu"].startswith("native, C with ")
