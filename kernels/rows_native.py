"""The row kernels in C, for CPU tensors: see `rows` for the contract and ``native/`` for the code."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from . import _native
from .projections import Projection
from .rows import DistributionTargets, RowResult, RowStats, RowTargets, ScalarTargets
from .target_profile import Profile, profile

_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_TARGETS = (torch.float32, torch.float64)
_PLACES = {"cell": 0, "edge": 1, "bin": 2}
_COUNT = {ScalarTargets: 3, DistributionTargets: 4}
"""Stats that a kind of targets has."""
_NOWHERE: tuple[int | None, ...] = (None, None, None, None)


def forward(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    targets: RowTargets,
    weight: torch.Tensor | None,
    coefficient: float,
    gradient: bool,
    stats: bool,
    only_total: bool = False,
    centres: torch.Tensor | None = None,
) -> RowResult:
    """Losses, and if asked gradient and stats, in one pass; see `rows.RowKernels`."""
    rows, bins = logits.shape
    dtype = logits.dtype
    if logits.is_neg():
        logits = logits.resolve_neg()
    row_stride, column_stride = logits.stride()
    if weight is not None:
        weight = weight.float().contiguous().resolve_neg()
    if index is None:
        samples = rows
        loss = None if only_total else torch.empty(samples)
        slope = torch.empty((rows, bins), dtype=dtype) if gradient else None
    else:
        index = index.contiguous()
        samples = index.shape[0]
        # Samples that are left out are not visited.
        loss = None if only_total else torch.zeros(samples)
        slope = torch.zeros(rows, bins) if gradient else None
    total = torch.empty(())
    seen: tuple[torch.Tensor, ...] = ()
    seen_at = _NOWHERE
    if stats:
        seen = tuple(torch.zeros(samples) for _ in range(_COUNT[type(targets)]))
        seen_at = tuple(part.data_ptr() for part in seen) + _NOWHERE[len(seen) :]
    if isinstance(targets, ScalarTargets):
        target = targets.target
        if target.dtype not in _TARGETS or not target.is_contiguous() or target.is_neg():
            target = (target if target.dtype == torch.float64 else target.float()).contiguous().resolve_neg()
        plan, _ = _plan(targets[1:])
        given: tuple[Any, ...] = target.data_ptr(), target.dtype == torch.float64, None, None, None, 0.0, 1.0
    else:
        probs = targets.probs.float().contiguous().resolve_neg()
        reward, discount = (
            None if part is None else part.double().contiguous().resolve_neg()
            for part in (targets.reward, targets.discount)
        )
        plan = None
        given = (None, False, probs.data_ptr(), _at(reward), _at(discount), targets.origin, targets.width)
    clipped, nan = _native.forward(
        plan,
        bins,
        samples,
        rows,
        logits.data_ptr(),
        _TYPES[dtype],
        row_stride,
        column_stride,
        None if index is None else index.data_ptr(),
        *given,
        None if weight is None else weight.data_ptr(),
        coefficient,
        None if loss is None else loss.data_ptr(),
        total.data_ptr(),
        None if slope is None else slope.data_ptr(),
        *seen_at,
        None if centres is None else centres.data_ptr(),
        torch.get_num_threads(),
    )
    if slope is not None and slope.dtype != dtype:
        slope = slope.to(dtype)
    return RowResult(loss, slope, RowStats(*seen) if stats else None, total, clipped, nan)


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


@lru_cache(maxsize=256)
def _plan(constants: tuple[Projection, int, float, float, float, float, float]) -> tuple[Any, Profile]:
    """What C is to know of the `ScalarTargets` with these constants, and the profile that it reads by its address."""
    projection, bins, sigma_ratio, lowest, highest, origin, width = constants
    curve = profile(projection, sigma_ratio, bins)
    pieces, _, window = curve.coefficients.shape
    last = bins - 1 if projection == "two_hot" else bins
    if curve.place == "edge":
        pieces //= 2
    plan = _native.plan(
        _PLACES[curve.place],
        bins,
        window,
        curve.before,
        pieces,
        curve.scale,
        lowest,
        highest,
        origin,
        width,
        float(last),
        curve.coefficients.data_ptr(),
    )
    return plan, curve


def _at(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
