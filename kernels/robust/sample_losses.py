"""What the robust losses share: checks, float32 at least, a gradient written by hand, reductions and statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypedDict

import torch

from ..cross_entropy import (
    OutOfRange,
    Reduction,
    check_logits,
    check_target,
    check_weight,
    ignore_unweighted,
    reduce_loss,
)
from ..fused import NoSecondDerivative
from ..projections import Projection, target_probabilities
from ..reference import HLGaussStats, stats_of
from ..support import Support

LossAndGradient: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Losses ``[...]`` of single samples, and the gradient ``[..., K]`` of each by its own logits."""


class ScalarOptions(TypedDict, total=False):
    """Options of a loss that compares scalars; see the package's docstring."""

    weight: torch.Tensor | None
    reduction: Reduction
    out_of_range: OutOfRange


class Options(ScalarOptions, total=False):
    """Options of a loss that compares distributions."""

    projection: Projection


class _WithGradient(torch.autograd.Function):
    """Losses whose gradients are known already; rows of ``gradient`` are scaled by what comes from above."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, loss: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(logits, gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        logits, gradient = ctx.saved_tensors
        scaled = (upstream.unsqueeze(-1) * gradient).to(logits.dtype)
        # The gradient's own dependence on the logits is not recorded. once_differentiable would let it pass for a
        # constant wherever the upstream gradient is one, as it is below any plain sum or mean.
        return NoSecondDerivative.apply(scaled, logits) if torch.is_grad_enabled() else scaled, None, None  # type: ignore[no-untyped-call]


def distribution_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    losses: Callable[[torch.Tensor, torch.Tensor], LossAndGradient],
    return_stats: bool,
    *,
    projection: Projection = "hl_gauss",
    **options: Any,
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """A loss of logits and target distributions.

    Args:
        logits: ``[..., K]``.
        target: ``[...]``.
        support: the bins.
        losses: from logits and target probabilities, both ``[..., K]`` float32 or float64, the loss and gradient of
            each sample. It runs without autograd and autocast.
        return_stats: whether to give statistics too.
        projection: see the package's docstring.
        **options: `ScalarOptions`.
    """

    def of_targets(used: torch.Tensor, used_target: torch.Tensor) -> LossAndGradient:
        return losses(used, target_probabilities(used_target, support, projection, dtype=used.dtype))

    return scalar_loss(logits, target, support, of_targets, return_stats, **options)


def scalar_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    losses: Callable[[torch.Tensor, torch.Tensor], LossAndGradient],
    return_stats: bool,
    *,
    weight: torch.Tensor | None = None,
    reduction: Reduction = "mean",
    out_of_range: OutOfRange = "clamp",
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """A loss of logits and scalar targets: as `distribution_loss`, but ``losses`` gets the targets ``[...]``."""
    check_logits(logits, support.bins)
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"target has shape {tuple(target.shape)}, logits {tuple(logits.shape)}: they must be [...] and [..., K]"
        )
    check_weight(weight, target.shape)
    used_target = ignore_unweighted(target, weight, fill=support.lowest)
    outside = check_target(used_target, support.lowest, support.highest, out_of_range)
    used = ignore_unweighted(logits, weight)
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        exact = used.to(torch.float64 if used.dtype == torch.float64 else torch.float32)
        loss, gradient = losses(exact, used_target)
        stats = None
        if return_stats:
            reached = target.to(loss.dtype).clamp(support.lowest, support.highest)
            stats = stats_of(logits, reached, support, loss, outside.sum(), weight)
    reduced = reduce_loss(_WithGradient.apply(used, loss, gradient), weight, reduction)  # type: ignore[no-untyped-call]
    return reduced if stats is None else (reduced, stats)


def require(name: str, value: float, lowest: float, highest: float = math.inf, *, above: bool = False) -> None:
    """Raise ValueError unless the parameter is finite and in ``[lowest, highest]``, or above ``lowest`` if so said."""
    if math.isfinite(value) and lowest <= value <= highest and not (above and value == lowest):
        return
    wanted = f"above {lowest:g}" if above else f"at least {lowest:g}"
    limit = "" if highest == math.inf else f" and at most {highest:g}"
    raise ValueError(f"{name} is {value}: it must be finite, {wanted}{limit}")


def masked_sum(probs: torch.Tensor, terms: torch.Tensor) -> torch.Tensor:
    """``sum_k probs_k terms_k``, ``[...]``, where a bin of probability 0 counts 0, whatever its term is."""
    return torch.where(probs == 0, 0.0, probs * terms).sum(-1)
