"""HL-Gauss: regression as classification, the histogram loss with Gaussian targets.

Imani & White 2018, "Improving regression performance with distributional losses"; Farebrother et al. 2024, "Stop
Regressing: training value functions via classification for scalable deep RL" (arXiv 2403.03950), section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

import torch

from .cross_entropy import (
    Reduction,
    check_logits,
    check_weight,
    cross_entropy,
    ignore_unweighted,
    log_softmax,
    reduce_loss,
)
from .projections import Projection, target_probabilities
from .support import Support

OutOfRange = Literal["clamp", "error"]


@dataclass(frozen=True)
class HLGaussStats:
    """What the loss saw on its way: detached tensors, one entry for each sample, weights not applied.

    Attributes:
        loss: ``[...]`` cross-entropy in nats.
        value: ``[...]`` expected value of the predicted distribution.
        td_error: ``[...]`` value minus target, after the target was clamped.
        entropy: ``[...]`` of the predicted distribution, in nats.
        logsumexp: ``[...]`` of the logits.
        clipped: 0-d int64, number of targets of non-zero weight outside the range.
    """

    loss: torch.Tensor
    value: torch.Tensor
    td_error: torch.Tensor
    entropy: torch.Tensor
    logsumexp: torch.Tensor
    clipped: torch.Tensor


@overload
def hl_gauss_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection = ...,
    weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: Literal[False] = ...,
) -> torch.Tensor: ...


@overload
def hl_gauss_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection = ...,
    weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: Literal[True],
) -> tuple[torch.Tensor, HLGaussStats]: ...


@overload
def hl_gauss_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection = ...,
    weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    out_of_range: OutOfRange = ...,
    return_stats: bool,
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...


def hl_gauss_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection = "hl_gauss",
    weight: torch.Tensor | None = None,
    reduction: Reduction = "mean",
    out_of_range: OutOfRange = "clamp",
    return_stats: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """Cross-entropy between predicted distributions and scalar targets projected onto the bins.

    The same as ``categorical_loss(logits, target_probabilities(target, support, projection), weight=weight,
    reduction=reduction)``.

    Args:
        logits: ``[..., K]`` floating. Arithmetic is in float64 for float64 logits and in float32 otherwise.
        target: ``[...]`` floating, in units of value; a constant.
        support: the bins.
        projection: see `isogon.kernels.projections`.
        weight: ``[...]`` or None, multiplies each sample's loss before it is reduced. A sample of weight 0 counts for
            nothing: its loss and gradient are 0, and its logits and target may be anything.
        reduction: ``"mean"`` (over the number of samples), ``"sum"``, ``"weighted_mean"`` (over the sum of the
            weights) or ``"none"`` (the weighted losses ``[...]``).
        out_of_range: what to do with targets outside ``[support.lowest, support.highest]``, infinite ones too:
            ``"clamp"`` moves them to the nearer end, so that they still give a gradient; ``"error"`` refuses them.
        return_stats: also give `HLGaussStats`.

    Returns:
        The loss, and with ``return_stats`` the pair (loss, stats).

    Raises:
        ValueError: shapes or dtypes do not fit, a choice is unknown, a target is outside the range under ``"error"``,
            or a target is NaN. On CUDA a NaN target is looked for under ``"error"`` only, because looking makes the
            host wait; under ``"clamp"`` it makes its own sample's loss and gradient NaN.
    """
    check_logits(logits, support.bins)
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, logits {tuple(logits.shape)}: they must be [...] and [..., K]"
        )
    check_weight(weight, target.shape)
    used_target = ignore_unweighted(target, weight, fill=support.lowest)
    outside = check_target(used_target, support.lowest, support.highest, out_of_range)
    log_probabilities = log_softmax(ignore_unweighted(logits, weight))
    probs = target_probabilities(used_target, support, projection, dtype=log_probabilities.dtype)
    loss = cross_entropy(log_probabilities, probs)
    reduced = reduce_loss(loss, weight, reduction)
    if not return_stats:
        return reduced
    return reduced, _stats(logits.detach(), target, support, loss.detach(), outside)


def check_target(target: torch.Tensor, lowest: float, highest: float, out_of_range: OutOfRange) -> torch.Tensor:
    """Which targets ``[...]`` lie outside ``[lowest, highest]``, as bool; raises ValueError as `hl_gauss_loss` says."""
    if out_of_range not in ("clamp", "error"):
        raise ValueError(f"out_of_range is {out_of_range!r}: it must be 'clamp' or 'error'")
    if not target.dtype.is_floating_point:
        raise ValueError(f"target has dtype {target.dtype}: it must be floating, values and not bin numbers")
    if target.requires_grad:
        raise ValueError("target requires a gradient: targets are constants, detach it")
    may_wait = out_of_range == "error" or target.device.type == "cpu"
    if may_wait and bool(torch.isnan(target).any()):
        raise ValueError(f"target has {int(torch.isnan(target).sum())} NaN of {target.numel()}")
    outside = (target < lowest) | (target > highest)
    if out_of_range == "error" and bool(outside.any()):
        worst = target[outside]
        raise ValueError(
            f"target has {worst.numel()} of {target.numel()} outside [{lowest}, {highest}], such as {worst[0].item()}: "
            f"widen vmin and vmax, or pass out_of_range='clamp'"
        )
    return outside


def _stats(
    logits: torch.Tensor, target: torch.Tensor, support: Support, loss: torch.Tensor, outside: torch.Tensor
) -> HLGaussStats:
    log_probabilities = log_softmax(logits)
    probabilities = log_probabilities.exp()
    value = support.expectation(probabilities)
    return HLGaussStats(
        loss=loss,
        value=value,
        td_error=value - target.to(value.dtype).clamp(support.lowest, support.highest),
        entropy=cross_entropy(log_probabilities, probabilities),
        logsumexp=torch.logsumexp(logits.to(value.dtype), -1),
        clipped=outside.sum(),
    )
