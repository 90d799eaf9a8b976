"""What the tests of row kernels share: problems, their answers in plain torch, and the rule for errors.

N rows of logits, P samples, K bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from isogon.kernels import Projection, Support, categorical_loss, hl_gauss_loss
from isogon.kernels.rows import DistributionTargets, RowKernels, RowResult, RowTargets, scalar_targets

PROJECTIONS: tuple[Projection, ...] = ("hl_gauss", "two_hot", "one_hot")
KINDS = (*PROJECTIONS, "probs", "c51")
"""Of targets: scalars by their projection, distributions, and distributions that a Bellman update moves."""
HALF = (torch.bfloat16, torch.float16)
EPS = torch.finfo(torch.float32).eps


class Answer(NamedTuple):
    """Loss ``[P]`` with weights not applied, gradient ``[N, K]``, stats as in `rows.RowStats`, whose sample counts."""

    loss: torch.Tensor
    gradient: torch.Tensor
    mean: torch.Tensor
    entropy: torch.Tensor
    logsumexp: torch.Tensor
    target_mean: torch.Tensor | None
    used: torch.Tensor


@dataclass(frozen=True)
class Problem:
    """Tensors on the device of the kernels; ``kind`` is one of `KINDS`, ``target`` also C51's rewards."""

    logits: torch.Tensor
    support: Support
    kind: str
    target: torch.Tensor
    probs: torch.Tensor
    discount: torch.Tensor
    weight: torch.Tensor | None = None
    index: torch.Tensor | None = None

    def targets(self) -> RowTargets:
        """As kernels take them."""
        if self.kind in PROJECTIONS:
            return scalar_targets(self.target, self.support, self.kind)
        bins, origin, width = self.support.bins, self.support.first_centre, self.support.width
        if self.kind == "probs":
            return DistributionTargets(self.probs, bins, origin=origin, width=width)
        return DistributionTargets(self.probs, bins, self.target, self.discount, origin, width)

    def run(self, rows: RowKernels, coefficient: float = 1.0, gradient: bool = True, stats: bool = True) -> RowResult:
        """What a backend makes of it."""
        return rows.forward(
            self.logits, self.index, self.targets(), self.weight, coefficient, gradient=gradient, stats=stats
        )

    def only(self, which: Any) -> Problem:
        """Some of the samples, of a problem without an index."""
        parts: dict[str, Any] = {name: getattr(self, name)[which] for name in ("logits", "target", "probs", "discount")}
        return replace(self, **parts, weight=None if self.weight is None else self.weight[which])

    def plain(self, dtype: torch.dtype, coefficient: float = 1.0) -> Answer:
        """Plain torch's answer on logits of a dtype; in float64 it is the truth."""
        logits = self.logits.detach().to("cpu", dtype).requires_grad_()
        chosen = logits if self.index is None else logits.index_select(0, self.index.clamp(min=0).cpu())
        target, probs, discount = (
            part.cpu().double() if dtype == torch.float64 else part.cpu()
            for part in (self.target, self.probs, self.discount)
        )
        weight = None if self.weight is None else self.weight.cpu().to(target.dtype)
        options: dict[str, Any] = {
            "weight": weight,
            "reduction": "none",
            "return_stats": True,
            "impl": "reference",
        }
        reached: torch.Tensor | None = None
        if self.kind in PROJECTIONS:
            loss, stats = hl_gauss_loss(chosen, target, self.support, projection=self.kind, **options)
        else:
            moved: dict[str, Any] = {"reward": target, "discount": discount} if self.kind == "c51" else {}
            loss, stats = categorical_loss(chosen, probs, support=self.support, **moved, **options)
            reached = (stats.value - stats.td_error - self.support.first_centre) / self.support.width
        (gradient,) = torch.autograd.grad(coefficient * loss.sum(), logits)
        middle = (self.support.first_centre + self.support.last_centre) / 2
        mean = (stats.value - middle) / self.support.width
        used = torch.ones_like(stats.loss, dtype=torch.bool) if weight is None else weight != 0
        unweighted = stats.loss.masked_fill(~used, 0)
        return Answer(unweighted, gradient, mean, stats.entropy, stats.logsumexp, reached, used)


def draw(
    n: int,
    bins: int,
    kind: str = "hl_gauss",
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    ratio: float = 0.75,
    weighted: bool = True,
) -> Problem:
    """Logits N(0, 25), every second row with a peak; targets on [-12, 12], of which a sixth are out of range."""
    generator = torch.Generator().manual_seed(1000 * n + bins)
    logits = 5 * torch.randn(n, bins, generator=generator)
    logits[::2, bins // 3] += 20
    target = 24 * torch.rand(n, generator=generator) - 12
    probs = torch.softmax(2 * torch.randn(n, bins, generator=generator), -1)
    discount = torch.rand(n, generator=generator)
    weight = torch.rand(n, generator=generator) + 0.1
    support = Support(-10.0, 10.0, bins, ratio, anchor="edges" if kind in ("hl_gauss", "one_hot") else "atoms")
    return Problem(
        logits.to(device, dtype),
        support,
        kind,
        target.to(device),
        probs.to(device),
        discount.to(device),
        weight.to(device) if weighted else None,
    )


@lru_cache(maxsize=200)
def answers(
    n: int, bins: int, kind: str, dtype: torch.dtype = torch.float32, ratio: float = 0.75
) -> tuple[Answer, Answer]:
    """The truth and plain torch's answer to what `draw` makes, the same for all backends."""
    problem = draw(n, bins, kind, dtype=dtype, ratio=ratio)
    return problem.plain(torch.float64), problem.plain(dtype)


def assert_as_good(
    name: str, got: torch.Tensor, truth: torch.Tensor, plain: torch.Tensor, tolerance: torch.Tensor | float
) -> None:
    """The error is at most plain torch's largest, plus a tolerance; what is not finite in plain torch is like it.

    Where only float64 says infinity (a mass that float32 does not have, in a masked bin), plain torch is the truth.
    """
    got, finite = got.detach().cpu(), plain.isfinite()
    same = (got == plain) | (got.isnan() & plain.isnan())
    assert bool((finite | same).all()), f"{name}: {got[~finite & ~same]} instead of {plain[~finite & ~same]}"
    exact = torch.where(finite & ~truth.isfinite(), plain.double(), truth)
    least = torch.where(finite, (plain.double() - exact).abs(), 0.0).max() if plain.numel() else torch.zeros(())
    error = torch.where(finite, (got.double() - exact).abs(), 0.0)
    excess = torch.where(error.isnan(), math.inf, error - tolerance - least)
    if not excess.numel() or float(excess.max()) <= 0:
        return
    worst = int(excess.argmax())
    raise AssertionError(
        f"{name}: error {error.flatten()[worst].item():.3g}, plain torch's largest is {least.item():.3g}, at element "
        f"{worst}: {got.flatten()[worst].item()!r} instead of {exact.flatten()[worst].item()!r}"
    )


def check(result: RowResult, truth: Answer, plain: Answer, dtype: torch.dtype = torch.float32) -> None:
    """Loss, gradient and stats by the rule of `assert_as_good`."""
    assert result.loss is not None
    assert result.loss.dtype == torch.float32
    size = truth.loss.abs().nan_to_num(0, 0, 0)
    assert_as_good("loss", result.loss, truth.loss, plain.loss, 1e-5 + 2 * EPS * size)
    if result.gradient is not None:
        assert result.gradient.dtype == dtype
        assert result.gradient.is_contiguous()
        size = truth.gradient.abs().nan_to_num(0, 0, 0)
        tolerance = torch.full_like(size, 2e-6 * max(1.0, float(size.max()) if size.numel() else 0.0))
        if dtype in HALF:
            tolerance += size * torch.finfo(dtype).eps / 2 + torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        assert_as_good("gradient", result.gradient, truth.gradient, plain.gradient, tolerance)
    if result.stats is None:
        return
    bins, size = truth.gradient.shape[-1], truth.logsumexp.abs().nan_to_num(0, 0, 0)[truth.used]
    # The mean is a sum of terms as large as half of K.
    tolerances: dict[str, Any] = {
        "mean": 4e-7 * bins,
        "entropy": 3e-6,
        "logsumexp": 1e-5 + EPS * size,
        "target_mean": 4e-7 * bins,
    }
    for name, tolerance in tolerances.items():
        seen, exact, torchs = getattr(result.stats, name), getattr(truth, name), getattr(plain, name)
        assert (seen is None) == (exact is None), name
        if seen is not None:
            lost = ~torchs.isfinite() & ~seen.cpu().isfinite()
            got, wanted, torchs = [part.cpu().masked_fill(lost, 0)[truth.used] for part in (seen, exact, torchs)]
            assert_as_good(name, got, wanted, torchs, tolerance)


def check_problem(rows: RowKernels, problem: Problem, coefficient: float = 1.0) -> RowResult:
    """Run it and check it."""
    result = problem.run(rows, coefficient)
    dtype = problem.logits.dtype
    check(result, problem.plain(torch.float64, coefficient), problem.plain(dtype, coefficient), dtype)
    return result


def same_bits(one: RowResult, other: RowResult, which: Any = slice(None)) -> None:
    """Loss, gradient and stats are equal to the bit, NaN to NaN too; of ``one`` only some samples (rows)."""
    assert one.loss is not None
    assert other.loss is not None
    pairs = [("loss", one.loss, other.loss)]
    if one.gradient is not None and other.gradient is not None:
        pairs.append(("gradient", one.gradient, other.gradient))
    if one.stats is not None and other.stats is not None:
        for name, left, right in zip(one.stats._fields, one.stats, other.stats, strict=True):
            if left is not None and right is not None:
                pairs.append((name, left, right))
    for name, left, right in pairs:
        differ = (left[which] != right) & ~(left[which].isnan() & right.isnan())
        assert left[which].shape == right.shape
        assert not bool(differ.any()), f"{name}: {left[which][differ]} and {right[differ]}"
