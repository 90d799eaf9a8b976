"""`hl_gauss_loss` and `categorical_loss` as users call them, by every implementation for the CPU.

The numbers in names are groups of traps, as in `row_suite`.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from isogon.kernels import (
    Impl,
    Reduction,
    Support,
    categorical_loss,
    hl_gauss_loss,
    project_categorical,
)
from isogon.kernels.backends import describe

from .fused_cases import FUSED, IMPLS, REDUCTIONS, SUPPORT, SUPPORTS, WIDE, gradient_of, same_stats, samples
from .row_cases import HALF, PROJECTIONS


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
                impl=one,
            )
            found.append((loss.detach(), gradient_of(loss, x, upstream), stats))
        assert bool((found[0][1][unweighted] == 0).all())
        torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-6, atol=2e-6)
        same_stats(found[0][2], found[1][2], ~unweighted)


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
        hl_gauss_loss(logits, target, SUPPORT, impl="cuda")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="impl is 'c': it must be"):
        categorical_loss(logits, torch.softmax(logits, -1), impl="c")  # type: ignore[call-overload]
    if "native" in IMPLS:
        with pytest.raises(ValueError, match="impl is 'native' and logits are float64: take 'reference', 'torch' or"):
            hl_gauss_loss(logits.double(), target, SUPPORT, impl="native")
        assert describe()["cpu"].startswith("native, C with ")


@pytest.mark.parametrize("name", ["target", "weight", "probs", "reward", "discount"])
@pytest.mark.parametrize("wrong", ["device", "dtype", "gradient"])
@pytest.mark.parametrize("impl", IMPLS)
def test_8_every_tensor_is_a_constant_where_the_logits_are(impl: Impl, wrong: str, name: str) -> None:
    """Its address would be taken for one in this device's memory, and its bits for another dtype's."""
    logits, target, weight = samples()
    given = {
        "target": target,
        "weight": weight,
        "probs": torch.softmax(logits, -1),
        "reward": target,
        "discount": weight,
    }
    match wrong:
        case "device":
            given[name] = given[name].to("meta")
        case "dtype":
            given[name] = given[name].to(torch.complex64)
        case "gradient":
            given[name] = given[name].clone().requires_grad_()

    def loss() -> None:
        if name == "target":
            hl_gauss_loss(logits, given["target"], SUPPORT, weight=given["weight"], impl=impl)
        options: dict[str, Any] = {key: given[key] for key in ("reward", "discount", "weight")}
        categorical_loss(logits, given["probs"], support=SUPPORT, impl=impl, **options)

    with pytest.raises(ValueError, match=f"{name} (is on meta|has dtype torch.complex64|requires a gradient)"):
        loss()


def test_5_smaller_floats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits have dtype torch\.float8_e4m3fn"):
        hl_gauss_loss(torch.zeros(2, 51).to(torch.float8_e4m3fn), torch.zeros(2), SUPPORT)


@pytest.mark.parametrize("impl", FUSED)
def test_8_tensors_that_are_negated_lazily(impl: Impl) -> None:
    def lazily(x: torch.Tensor) -> torch.Tensor:
        negated = torch.complex(torch.zeros_like(x), -x).conj().imag
        assert negated.is_neg()
        return negated

    logits, target, weight = samples()
    plain = hl_gauss_loss(logits, target, SUPPORT, weight=weight, impl=impl)
    got = hl_gauss_loss(lazily(logits), lazily(target), SUPPORT, weight=lazily(weight), impl=impl)
    torch.testing.assert_close(got, plain)
    probs = torch.softmax(logits, -1)
    torch.testing.assert_close(categorical_loss(logits, lazily(probs), impl=impl), categorical_loss(logits, probs))
