"""The row kernels in C, for CPU tensors: see `rows` for the contract and ``native/`` for the code."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from . import _native
from .profile import profile
from .projections import Projection
from .rows import DistributionTargets, RowResult, RowStats, RowTargets, ScalarTargets

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_PLACES = {"cell": 0, "edge": 1, "bin": 2}


def forward(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    targets: RowTargets,
    weight: torch.Tensor | None,
    coefficient: float,
    *,
    gradient: bool,
    stats: bool,
    centres: torch.Tensor | None = None,
) -> RowResult:
    """Losses, and if asked gradient and stats, in one pass; see `rows.RowKernels`."""
    rows, bins = logits.shape
    if weight is not None:
        weight = weight.float().contiguous()
    if index is None:
        samples = rows
        loss = torch.empty(samples)
        slope = torch.empty(rows, bins, dtype=logits.dtype) if gradient else None
    else:
        index = index.contiguous()
        samples = index.shape[0]
        # Samples that are left out are not visited.
        loss = torch.zeros(samples)
        slope = torch.zeros(rows, bins) if gradient else None
    total = torch.empty(())
    seen_stats = [torch.zeros(samples) for _ in range(4 if isinstance(targets, DistributionTargets) else 3)] if stats else []
    plan, target, probs, reward, discount, origin, width = _prepared(targets)
    row_stride, column_stride = logits.stride()
    clipped, nan = _native.forward(
        plan,
        bins,
        samples,
        rows,
        logits.data_ptr(),
        _TYPES[logits.dtype],
        row_stride,
        column_stride,
        _pointer(index),
        _pointer(target),
        target is not None and target.dtype == torch.float64,
        _pointer(probs),
        _pointer(reward),
        _pointer(discount),
        origin,
        width,
        _pointer(weight),
        coefficient,
        loss.data_ptr(),
        total.data_ptr(),
        _pointer(slope),
        *[_pointer(part) for part in seen_stats],
        *[None] * (4 - len(seen_stats)),
        _pointer(centres),
        torch.get_num_threads(),
    )
    if slope is not None:
        slope = slope.to(logits.dtype)
    return RowResult(loss, slope, RowStats(*seen_stats) if stats else None, total, clipped, nan)


def gradient(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    targets: RowTargets,
    weight: torch.Tensor | None,
    upstream: torch.Tensor,
) -> torch.Tensor:
    """The gradient anew; see `rows.RowKernels`."""
    samples = logits.shape[0] if index is None else index.shape[0]
    factor = upstream.float().expand(samples)
    if weight is not None:
        # A sample of weight 0 stays at 0, whatever its upstream gradient is.
        factor = torch.where(weight == 0, 0.0, factor * weight.float())
    made = forward(logits, index, targets, factor, 1.0, gradient=True, stats=False).gradient
    assert made is not None
    return made


def scale_(gradient: torch.Tensor, upstream: torch.Tensor) -> None:
    """Multiply in place; see `rows.RowKernels`."""
    factor = upstream.item()
    if factor != 1:
        gradient.mul_(factor)


def _prepared(targets: RowTargets) -> Any:
    if isinstance(targets, ScalarTargets):
        target = targets.target
        if target.dtype not in (torch.float32, torch.float64):
            target = target.float()
        plan = _plan(
            targets.projection, targets.bins, targets.sigma_ratio,
            targets.lowest, targets.highest, targets.origin, targets.width,
        )
        return plan, target.contiguous(), None, None, None, 0.0, 1.0
    reward, discount = targets.reward, targets.discount
    if reward is not None and discount is not None:
        reward, discount = reward.double().contiguous(), discount.double().contiguous()
    return None, None, targets.probs.float().contiguous(), reward, discount, targets.origin, targets.width


@lru_cache(maxsize=256)
def _plan(
    projection: Projection, bins: int, sigma_ratio: float, lowest: float, highest: float, origin: float, width: float
) -> Any:
    curve = profile(projection, sigma_ratio)
    pieces, _, window = curve.coefficients.shape
    last = bins - 1 if projection == "two_hot" else bins
    if curve.place == "edge":
        pieces //= 2
    return _native.plan(
        _PLACES[curve.place], bins, window, curve.before, pieces,
        curve.scale, lowest, highest, origin, width, float(last), curve.coefficients.data_ptr(),
    )


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
