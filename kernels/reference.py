"""The losses in plain torch, straight from their formulas: the oracle of every kernel, in float64 above all.

Autograd differentiates them, twice too. They build target distributions as tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .cross_entropy import (
    OutOfRange,
    Reduction,
    check_target,
    cross_entropy,
    ignore_unweighted,
    log_softmax,
    reduce_loss,
)
from .projections import Projection, project_categorical, target_probabilities
from .support import Support


@dataclass(frozen=True)
class HLGaussStats:
    """What the loss saw on its way: detached tensors, one entry for each sample, weights not applied.

    Everything is 0 of samples of weight 0, whatever their logits and targets are.

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


def hl_gauss_reference(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    projection: Projection,
    weight: torch.Tensor | None,
    reduction: Reduction,
    out_of_range: OutOfRange,
    return_stats: bool,
) -> tuple[torch.Tensor, HLGaussStats | None]:
    """The loss of `hl_gauss.hl_gauss_loss`, of logits ``[..., K]``."""
    with torch.autocast(logits.device.type, enabled=False):
        used_target = ignore_unweighted(target, weight, fill=support.lowest)
        outside = check_target(used_target, support.lowest, support.highest, out_of_range)
        log_probabilities = log_softmax(ignore_unweighted(logits, weight))
        probs = target_probabilities(used_target, support, projection, dtype=log_probabilities.dtype)
        loss = cross_entropy(log_probabilities, probs)
        reduced = reduce_loss(loss, weight, reduction)
        stats = None
        if return_stats:
            reached = target.to(loss.dtype).clamp(support.lowest, support.highest)
            stats = stats_of(logits.detach(), reached, support, loss.detach(), outside.sum(), weight)
        return reduced, stats


def categorical_reference(
    logits: torch.Tensor,
    probs: torch.Tensor,
    support: Support | None,
    reward: torch.Tensor | None,
    discount: torch.Tensor | None,
    *,
    weight: torch.Tensor | None,
    reduction: Reduction,
    return_stats: bool,
) -> tuple[torch.Tensor, HLGaussStats | None]:
    """The loss of `categorical.categorical_loss`, of logits ``[..., K]``."""
    with torch.autocast(logits.device.type, enabled=False):
        log_probabilities = log_softmax(ignore_unweighted(logits, weight))
        probs = ignore_unweighted(probs, weight).to(log_probabilities.dtype)
        if reward is not None and discount is not None and support is not None:
            probs = project_categorical(
                ignore_unweighted(reward, weight), ignore_unweighted(discount, weight), probs, support
            )
        loss = cross_entropy(log_probabilities, probs)
        reduced = reduce_loss(loss, weight, reduction)
        stats = None
        if return_stats and support is not None:
            none_clipped = torch.zeros((), dtype=torch.int64, device=logits.device)
            reached = support.expectation(probs)
            stats = stats_of(logits.detach(), reached, support, loss.detach(), none_clipped, weight)
        return reduced, stats


def stats_of(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    loss: torch.Tensor,
    clipped: torch.Tensor,
    weight: torch.Tensor | None,
) -> HLGaussStats:
    """Statistics of logits ``[..., K]`` and the values ``[...]`` that they were drawn towards."""
    log_probabilities = log_softmax(logits)
    probabilities = log_probabilities.exp()
    value = support.expectation(probabilities)
    return HLGaussStats(
        loss=ignore_unweighted(loss, weight),
        value=ignore_unweighted(value, weight),
        td_error=ignore_unweighted(value - target.to(value.dtype), weight),
        entropy=ignore_unweighted(cross_entropy(log_probabilities, probabilities), weight),
        logsumexp=ignore_unweighted(torch.logsumexp(logits.to(value.dtype), -1), weight),
        clipped=clipped,
    )
