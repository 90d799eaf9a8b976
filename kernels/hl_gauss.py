"""HL-Gauss: regression as classification, the histogram loss with Gaussian targets.

Imani & White 2018, "Improving regression performance with distributional losses"; Farebrother et al. 2024, "Stop
Regressing: training value functions via classification for scalable deep RL" (arXiv 2403.03950), section 3.1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, overload

import torch

from .backends import Impl, choose, takes_reference
from .cross_entropy import (
    OutOfRange,
    Reduction,
    check_logits,
    check_reduction,
    check_target_kind,
    check_weight,
    raise_outside,
    reduce_loss,
)
from .fused import RowCall, fused_loss
from .projections import Projection, check_projection
from .reference import HLGaussStats, hl_gauss_reference
from .rows import RowStats, scalar_targets
from .selection import checked_index, chosen_rows
from .support import Support


@overload
def hl_gauss_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    row: torch.Tensor | None = ...,
    action: torch.Tensor | None = ...,
    projection: Projection = ...,
    weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: Literal[False] = ...,
    validate: bool = ...,
    impl: Impl = ...,
) -> torch.Tensor: ...


@overload
def hl_gauss_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    row: torch.Tensor | None = ...,
    action: torch.Tensor | None = ...,
    projection: Projection = ...,
    weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: Literal[True],
    validate: bool = ...,
    impl: Impl = ...,
) -> tuple[torch.Tensor, HLGaussStats]: ...


@overload
def hl_gauss_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    row: torch.Tensor | None = ...,
    action: torch.Tensor | None = ...,
    projection: Projection = ...,
    weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: bool,
    validate: bool = ...,
    impl: Impl = ...,
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...


def hl_gauss_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    row: torch.Tensor | None = None,
    action: torch.Tensor | None = None,
    projection: Projection = "hl_gauss",
    weight: torch.Tensor | None = None,
    reduction: Reduction = "mean",
    out_of_range: OutOfRange = "clamp",
    return_stats: bool = False,
    validate: bool = False,
    impl: Impl = "auto",
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """Cross-entropy between predicted distributions and scalar targets projected onto the bins.

    The same as ``categorical_loss(logits, target_probabilities(target, support, projection), weight=weight,
    reduction=reduction)``, in one pass over the logits that makes the gradient as well, and without target
    distributions in memory. In C and in Triton, mass beyond 5.6 standard deviations, 2e-8 of it, may count 0.

    With ``row`` and ``action`` the logits are those of B states with A actions, ``[B, A, K]``, and sample i is the
    pair ``(row[i], action[i])``. Only the pairs' rows are read; all others have gradient 0. A pair of negative row or
    action is left out, as if its weight were 0.

    Args:
        logits: ``[..., K]`` floating. Arithmetic is in float64 for float64 logits and in float32 otherwise.
        target: ``[...]`` floating, in units of value; a constant. ``[P]`` with ``row`` and ``action``.
        support: the bins.
        row: ``[P]`` int64, or None.
        action: ``[P]`` int64, where row is given.
        projection: see `isogon.kernels.projections`.
        weight: ``[...]`` or None, multiplies each sample's loss before it is reduced. A sample of weight 0 counts for
            nothing: its loss and gradient are 0, and its logits and target may be anything.
        reduction: ``"mean"`` (over the number of samples), ``"sum"``, ``"weighted_mean"`` (over the sum of the
            weights) or ``"none"`` (the weighted losses ``[...]``).
        out_of_range: what to do with targets outside ``[support.lowest, support.highest]``, infinite ones too:
            ``"clamp"`` moves them to the nearer end, so that they still give a gradient; ``"error"`` refuses them.
        return_stats: also give `HLGaussStats`.
        validate: on CUDA, look for NaN, targets out of range and indices out of range, which makes the host wait. On
            the CPU they are always looked for, but for NaN by the reference under `torch.compile`, which refuses
            ``"error"`` there.
        impl: see `isogon.kernels.backends`. Only the reference has a second derivative.

    Returns:
        The loss in float32, or in float64 for float64 logits; with ``return_stats`` the pair (loss, stats).

    Raises:
        ValueError: shapes or dtypes do not fit, a choice is unknown, a target is outside the range under ``"error"``
            (which on CUDA needs ``validate``), a target is NaN, or a row or action is out of range. On CUDA, without
            ``validate``, a NaN target makes its own sample's loss and gradient NaN.
    """
    if row is not None or action is not None:
        index, logits, weight = checked_index(logits, row, action, weight, validate)
        samples = index.shape
    else:
        index, samples = None, logits.shape[:-1]
    check_logits(logits, support.bins)
    if target.shape != samples:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, logits {tuple(logits.shape)}: it must be {tuple(samples)}"
        )
    device = logits.device
    if target.device != device:
        raise ValueError(f"target is on {target.device} and logits on {device}: both must be on one device")
    check_target_kind(target, out_of_range)
    check_weight(weight, samples, device)
    check_projection(projection)
    check_reduction(reduction)
    on_cpu = device.type == "cpu"
    if out_of_range == "error" and not (on_cpu or validate):
        raise ValueError("out_of_range is 'error' on CUDA: pass validate=True, as the check makes the host wait")
    if takes_reference(impl, logits.dtype) or target.numel() == 0:
        loss, stats = hl_gauss_reference(
            logits if index is None else chosen_rows(logits, index),
            target,
            support,
            projection=projection,
            weight=weight,
            reduction=reduction,
            out_of_range=out_of_range,
            return_stats=return_stats,
        )
        return loss if stats is None else (loss, stats)
    if torch.compiler.is_compiling():
        from .compiled import compiled_row_losses

        flat = None if weight is None else weight.reshape(-1)
        parts = compiled_row_losses(
            logits.reshape(-1, support.bins),
            index,
            (target.reshape(-1), None, None, None),
            flat,
            support,
            (projection, out_of_range, validate, impl),
            return_stats,
        )
        loss = reduce_loss(parts[0], flat, reduction)
        loss = loss.reshape(samples) if reduction == "none" else loss
        if not return_stats:
            return loss
        return loss, stats_from_rows(
            parts[0].detach(), RowStats(*parts[1:]), support, target.reshape(-1), flat, -1, samples
        )
    if validate and not on_cpu:
        check_values(target, weight, support, out_of_range)
    used = target if target.dim() == 1 else target.reshape(-1)
    call = RowCall(
        choose(impl, logits),
        index,
        scalar_targets(used, support, projection),
        weight if weight is None or weight.dim() == 1 else weight.reshape(-1),
        reduction,
        return_stats,
        centres_for(support, logits.device) if return_stats else None,
    )
    loss = fused_loss(logits if logits.dim() == 2 else logits.reshape(-1, logits.shape[-1]), call)
    if on_cpu and (call.nan != 0 or (out_of_range == "error" and call.clipped != 0) or support.transform):
        check_values(target, weight, support, out_of_range)
    if reduction == "none" and target.dim() != 1:
        loss = loss.reshape(samples)
    if not return_stats:
        return loss
    assert call.loss is not None
    assert call.seen is not None
    # Of a transformed support the kernel has seen positions, and of half precision no ends rounded like the targets.
    counted = call.clipped if not support.transform and target.dtype.itemsize >= 4 else -1
    return loss, stats_from_rows(call.loss, call.seen, support, used, call.weight, counted, samples)


def check_values(target: torch.Tensor, weight: torch.Tensor | None, support: Support, out_of_range: OutOfRange) -> None:
    """Raise ValueError for targets ``[...]`` of non-zero weight that are NaN, or outside under ``"error"``."""
    used = target if weight is None else target[weight != 0]
    nan = torch.isnan(used)
    if bool(nan.any()):
        raise ValueError(f"target has {int(nan.sum())} NaN of {target.numel()}")
    outside = (used < support.lowest) | (used > support.highest)
    if out_of_range == "error" and bool(outside.any()):
        raise_outside(used, outside, support.lowest, support.highest)


def stats_from_rows(
    loss: torch.Tensor,
    seen: RowStats,
    support: Support,
    target: torch.Tensor,
    weight: torch.Tensor | None,
    clipped: int,
    samples: torch.Size,
) -> HLGaussStats:
    """A kernel's stats in units of value; ``clipped`` is -1 where it did not count."""
    counted = None if weight is None else weight != 0
    value = value_of_mean(seen.mean, support, counted)
    if clipped >= 0:
        count = torch.full((), clipped, dtype=torch.int64, device=loss.device)
    else:
        outside = (target < support.lowest) | (target > support.highest)
        count = (outside if counted is None else outside & counted).sum()
    td_error = value - target.to(value.dtype).clamp(support.lowest, support.highest)
    if counted is not None:
        td_error = torch.where(counted, td_error, 0)
    parts = [loss, value, td_error, seen.entropy, seen.logsumexp, count]
    if len(samples) != 1:
        parts[:5] = [part.reshape(samples) for part in parts[:5]]
    return HLGaussStats(*parts)


def value_of_mean(mean: torch.Tensor, support: Support, counted: torch.Tensor | None = None) -> torch.Tensor:
    """Values ``[P]`` from `RowStats.mean`; 0 of samples that are not ``counted [P]`` bool, and have a mean of 0."""
    if support.transform == "symexp":
        return mean
    middle = torch.full_like(mean, (support.first_centre + support.last_centre) / 2)
    if counted is not None:
        middle *= counted
    return support.from_grid(torch.add(middle, mean, alpha=support.width))


@lru_cache(maxsize=64)
def centres_for(support: Support, device: torch.device) -> torch.Tensor | None:
    """Centres for `RowKernels.forward`, where values are not equally spaced on the grid."""
    return support.centres(dtype=torch.float64, device=device) if support.transform == "symexp" else None
