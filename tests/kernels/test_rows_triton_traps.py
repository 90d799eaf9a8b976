"""What goes wrong in such kernels: poison, masks, extremes, strides, offsets, rows read twice, dependence on others."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
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
    target_probabilities,
)
from isogon.kernels.rows import DistributionTargets, ScalarTargets

# The interpreter computes in NumPy, which warns of infinities and NaN that are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
pytest.importorskip("triton", reason="triton is not installed: it is made for Linux on x86-64 and Arm")
rows: Any = importlib.import_module("isogon.kernels.rows_triton")
PROJECTIONS: tuple[Projection, ...] = ("hl_gauss", "two_hot", "one_hot")


def test_nan_poisons_its_own_sample_only(device: str) -> None:
    support = Support(-10.0, 10.0, 51)
    logits, target, weight = draw(11, 51, device)
    probs = distributions(11, 51, device).float()
    bad_logits, bad_target, bad_probs = logits.clone(), target.clone(), probs.clone()
    bad_logits[3, 50], bad_logits[4, 0] = math.nan, math.inf
    bad_target[7] = math.nan
    bad_probs[7, 20] = math.nan
    discount = torch.ones(11, device=device)
    cases = [
        *(
            (scalars(target, support, projection), scalars(bad_target, support, projection))
            for projection in PROJECTIONS
        ),
        (scalars(target, Support(-10.0, 10.0, 51, 20.0)), scalars(bad_target, Support(-10.0, 10.0, 51, 20.0))),
        (DistributionTargets(probs, 51), DistributionTargets(bad_probs, 51)),
        (
            DistributionTargets(probs, 51, target, discount, -10.0, 0.4),
            DistributionTargets(probs, 51, bad_target, discount, -10.0, 0.4),
        ),
    ]
    good = [i for i in range(11) if i not in (3, 4, 7)]
    for clean, dirty in cases:
        wanted = rows.forward(logits, None, clean, weight, 1.0, gradient=True, stats=True)
        result = rows.forward(bad_logits, None, dirty, weight, 1.0, gradient=True, stats=True)
        for name in ("loss", "gradient"):
            assert torch.equal(getattr(result, name)[good], getattr(wanted, name)[good])
            assert bool(getattr(result, name)[[3, 4, 7]].isnan().all()), name
        for name in ("mean", "entropy", "logsumexp"):
            assert torch.equal(getattr(result.stats, name)[good], getattr(wanted.stats, name)[good])
            assert bool(getattr(result.stats, name)[[3, 7]].isnan().all()), name


@pytest.mark.parametrize("stats", [False, True])
@pytest.mark.parametrize("bins", [51, 5000])
def test_samples_of_weight_zero_count_for_nothing(device: str, bins: int, stats: bool) -> None:
    logits, target, weight = draw(6, bins, device)
    logits[1], logits[2], logits[3] = math.nan, math.inf, -math.inf
    target[1], target[4] = math.nan, math.inf
    weight[1:5] = torch.tensor([0.0, 0.0, -0.0, 0.0])
    probs = distributions(6, bins, device).float()
    probs[2] = math.nan
    support = Support(-10.0, 10.0, bins)
    for targets in (scalars(target, support), DistributionTargets(probs, bins)):
        result = rows.forward(logits, None, targets, weight, 1.0, gradient=True, stats=stats)
        assert result.loss[1:5].tolist() == [0.0] * 4
        assert bool((result.gradient[1:5] == 0).all())
        assert bool((result.loss[[0, 5]] > 0).all())
        if stats:
            for name in ("mean", "entropy", "logsumexp"):
                assert getattr(result.stats, name)[1:5].tolist() == [0.0] * 4


def test_masked_bins(device: str) -> None:
    """A logit of minus infinity leaves the loss finite where the target has no mass, and infinite where it has."""
    support = Support(0.0, 60.0, 60)
    logits = torch.zeros(3, 60, device=device)
    logits[:, 40:] = -math.inf
    target = torch.tensor([5.0, 20.0, 45.0], device=device)
    for projection in PROJECTIONS:
        result = rows.forward(logits, None, scalars(target, support, projection), None, 1.0, gradient=True, stats=True)
        assert result.loss[:2].tolist() == pytest.approx([math.log(40)] * 2, rel=1e-6)
        assert result.loss[2].item() == math.inf
        assert bool(result.gradient.isfinite().all())
        assert bool((result.gradient[:2, 40:] == 0).all())
        assert result.stats.entropy.tolist() == pytest.approx([math.log(40)] * 3, rel=1e-6)
    nothing = torch.full((1, 60), -math.inf, device=device)
    result = rows.forward(nothing, None, scalars(target[:1], support), None, 1.0, gradient=True, stats=False)
    assert bool(result.loss.isnan().all())
    assert bool(result.gradient.isnan().all())


@pytest.mark.parametrize("bins", [51, 5000])
def test_huge_logits(device: str, bins: int) -> None:
    support = Support(-10.0, 10.0, bins)
    target = torch.tensor([0.3] * 5, device=device)
    logits = torch.zeros(5, bins, device=device)
    logits[1], logits[2] = 1e4, -1e4
    logits[3], logits[4] = 3e38, -3e38
    result = rows.forward(logits, None, scalars(target, support), None, 1.0, gradient=True, stats=False)
    torch.testing.assert_close(result.loss, torch.full_like(result.loss, math.log(bins)), rtol=1e-6, atol=0)
    assert torch.equal(result.gradient, result.gradient[:1].expand(5, bins))
    logits, target, weight = draw(4, bins, device)
    logits[1, 0], logits[2, -1], logits[3] = 1e4, 3e38, logits[3] * 1e3
    exact = hl_gauss_loss(logits.double(), target.double(), support, reduction="none")
    result = rows.forward(logits, None, scalars(target, support), weight, 1.0, gradient=True, stats=False)
    torch.testing.assert_close(result.loss.double(), exact, rtol=1e-6, atol=1e-5)
    assert bool(result.gradient.isfinite().all())


def test_strides(device: str) -> None:
    """Columns, every third row, storage offsets and stride 0: as if they were contiguous, to the bit."""
    support = Support(-10.0, 10.0, 51)
    logits, target, weight = draw(12, 51, device)
    probs = distributions(12, 51, device).float()

    def run(x: torch.Tensor, y: torch.Tensor, p: torch.Tensor, w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first = rows.forward(x, None, scalars(y, support), w, 1.0, gradient=True, stats=False)
        second = rows.forward(x, None, DistributionTargets(p, 51), w, 1.0, gradient=True, stats=False)
        assert first.gradient.is_contiguous()
        return first.loss, first.gradient, second.loss, second.gradient

    spread = torch.zeros(36, 60, device=device)
    spread[::3, 4:55] = logits
    forms: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: x.t().contiguous().t() if x.dim() == 2 else x.repeat_interleave(2)[::2],
        lambda x: spread[::3, 4:55] if x is logits else x,
    ]
    for form in forms:
        for got, wanted in zip(
            run(form(logits), form(target), form(probs), form(weight)), run(logits, target, probs, weight), strict=True
        ):
            assert torch.equal(got, wanted)
    one = (logits[:1].expand(12, 51), target[:1].expand(12), probs[:1].expand(12, 51), weight[:1].expand(12))
    for got, wanted in zip(run(*one), run(*(x.contiguous() for x in one)), strict=True):
        assert torch.equal(got, wanted)


def test_offsets_beyond_int32(device: str) -> None:
    """Rows 2^30 elements apart in memory that is never touched elsewhere, bins likewise."""
    if device == "cuda" and torch.cuda.mem_get_info()[0] < 8 * 2**30:
        pytest.skip("needs 8 GiB of GPU memory")
    support = Support(-10.0, 10.0, 40)
    logits, target, weight = draw(3, 40, device, torch.bfloat16)
    wanted = rows.forward(logits, None, scalars(target, support), weight, 1.0, gradient=True, stats=False)
    storage = torch.empty(2**31 + 2**29, dtype=torch.bfloat16, device=device)
    for stride in ((2**30, 1), (1, 2**26)):
        far = storage.as_strided((3, 40), stride)
        far.copy_(logits)
        result = rows.forward(far, None, scalars(target, support), weight, 1.0, gradient=True, stats=False)
        assert torch.equal(result.loss, wanted.loss)
        assert torch.equal(result.gradient, wanted.gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "bins"), [("scalars", 51), ("scalars", 4100), ("given", 51), ("given", 4100), ("moved", 51)]
)
def test_chosen_rows(device: str, kind: str, bins: int, dtype: torch.dtype) -> None:
    """Rows read by none, one or several samples; negative indices and weights of 0 read nothing."""
    logits, _, _ = draw(7, bins, device, dtype)
    logits[6] = math.nan
    index = torch.tensor([4, 0, 4, -1, 6, 2, 4, 0, -1, 5], device=device)
    _, target, weight = draw(10, bins, device)
    weight[3] = weight[4] = weight[8] = weight[6] = 0.0
    support = Support(-10.0, 10.0, bins)
    targets: ScalarTargets | DistributionTargets
    if kind == "scalars":
        targets, truth = scalars(target, support), target_probabilities(target.double(), support)
    else:
        probs = distributions(10, bins, device)
        targets, truth = DistributionTargets(probs.float(), bins), probs
        if kind == "moved":
            discount = torch.linspace(0, 1, 10, device=device)
            targets = DistributionTargets(probs.float(), bins, target, discount, support.first_centre, support.width)
            truth = project_categorical(target.double(), discount.double(), probs, support)
    counted = weight != 0
    x = logits.double().requires_grad_()
    losses = categorical_loss(x[index[counted]], truth[counted], reduction="none")
    (gradient,) = torch.autograd.grad((losses * weight[counted].double()).sum() / 10, x)
    loss = torch.zeros(10, dtype=torch.float64, device=device)
    loss[counted] = losses.detach()

    result = rows.forward(logits, index, targets, weight, 0.1, gradient=True, stats=False)
    assert_as_good("loss", result.loss, loss, tolerance=1.5e-5)
    assert result.loss[~counted].tolist() == [0.0] * 4
    assert_as_good("gradient", result.gradient, gradient, tolerance=gradient_tolerance(dtype, gradient))
    assert bool((result.gradient[[1, 3, 6]] == 0).all())
    with_stats = rows.forward(logits, index, targets, weight, 0.1, gradient=True, stats=True)
    assert torch.equal(with_stats.loss, result.loss)
    assert torch.equal(with_stats.gradient, result.gradient)
    truly = torch.logsumexp(logits[index[counted]].double(), -1)
    assert_as_good("logsumexp", with_stats.stats.logsumexp[counted], truly, tolerance=1e-5)
    assert with_stats.stats.logsumexp[[3, 8]].tolist() == [0.0, 0.0]
    without = rows.forward(logits, index, targets, weight, 0.1, gradient=False, stats=False)
    assert torch.equal(without.loss, result.loss)
    again = rows.gradient(logits, index, targets, weight, torch.tensor(0.1, device=device))
    torch.testing.assert_close(again, result.gradient, rtol=1e-6 if dtype == torch.float32 else 0.01, atol=1e-8)


def test_samples_of_a_row_are_added_in_their_order(device: str) -> None:
    """A long run of samples on one row: bitwise the sum of the single gradients from the first to the last."""
    support = Support(-10.0, 10.0, 51)
    logits, _, _ = draw(3, 51, device)
    _, target, weight = draw(40, 51, device)
    index = torch.ones(40, dtype=torch.int64, device=device)
    index[5] = 2
    result = rows.forward(logits, index, scalars(target, support), weight, 1.0, gradient=True, stats=False)
    wanted = torch.zeros(51, device=device)
    for i in range(40):
        if i != 5:
            single = rows.forward(
                logits, index[i : i + 1], scalars(target[i : i + 1], support), weight[i : i + 1], 1.0,
                gradient=True, stats=False,
            )  # fmt: skip
            wanted = wanted + single.gradient[1]
            assert torch.equal(single.loss, result.loss[i : i + 1])
    assert torch.equal(result.gradient[1], wanted)
    assert bool((result.gradient[0] == 0).all())


@pytest.mark.parametrize("ratio", [0.75, 20.0])
@pytest.mark.parametrize("bins", [51, 255])
def test_a_samples_result_does_not_depend_on_the_others(device: str, bins: int, ratio: float) -> None:
    support = Support(-10.0, 10.0, bins, ratio)
    logits, target, weight = draw(21, bins, device)
    all_of_them = rows.forward(logits, None, scalars(target, support), weight, 0.5, gradient=True, stats=True)
    for some in (slice(0, 1), slice(20, 21), slice(3, 20)):
        result = rows.forward(
            logits[some], None, scalars(target[some], support), weight[some], 0.5, gradient=True, stats=True
        )
        assert torch.equal(result.loss, all_of_them.loss[some])
        assert torch.equal(result.gradient, all_of_them.gradient[some])
        assert torch.equal(result.stats.mean, all_of_them.stats.mean[some])


def test_nothing_to_do(device: str) -> None:
    support = Support(-10.0, 10.0, 51)
    empty = scalars(torch.zeros(0, device=device), support)
    result = rows.forward(torch.zeros(0, 51, device=device), None, empty, None, 1.0, gradient=True, stats=True)
    assert (result.loss.shape, result.gradient.shape, result.stats.mean.shape) == ((0,), (0, 51), (0,))
    none = torch.zeros(0, dtype=torch.int64, device=device)
    result = rows.forward(torch.ones(4, 51, device=device), none, empty, None, 1.0, gradient=True, stats=False)
    assert torch.equal(result.gradient, torch.zeros(4, 51, device=device))
