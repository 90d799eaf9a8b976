"""Cross-entropy with targets that are distributions; C51's Bellman update and projection are made inside."""

from __future__ import annotations

from typing import Literal, overload

import torch

from .backends import Impl, choose, takes_reference
from .cross_entropy import Reduction, check_constant, check_logits, check_reduction, check_weight, reduce_loss
from .fused import RowCall, fused_loss
from .hl_gauss import centres_for, value_of_mean
from .projections import project_categorical
from .reference import HLGaussStats, categorical_reference
from .rows import DistributionTargets, RowStats
from .support import Support


@overload
def categorical_loss(
    logits: torch.Tensor,
    probs: torch.Tensor,
    *,
    support: Support | None = ...,
    reward: torch.Tensor | None = ...,
    discount: torch.Tensor | None = ...,
    weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    return_stats: Literal[False] = ...,
    impl: Impl = ...,
) -> torch.Tensor: ...


@overload
def categorical_loss(
    logits: torch.Tensor,
    probs: torch.Tensor,
    *,
    support: Support | None = ...,
    reward: torch.Tensor | None = ...,
    discount: torch.Tensor | None = ...,
    weight: torch.Tensor | None = ...,
    reduction: Reduction = ...,
    return_stats: Literal[True],
    impl: Impl = ...,
) -> tuple[torch.Tensor, HLGaussStats]: ...


def categorical_loss(
    logits: torch.Tensor,
    probs: torch.Tensor,
    *,
    support: Support | None = None,
    reward: torch.Tensor | None = None,
    discount: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    reduction: Reduction = "mean",
    return_stats: bool = False,
    impl: Impl = "auto",
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """Cross-entropy ``-sum_k p_k log_softmax(logits)_k`` in nats between predicted and target distributions.

    With ``reward`` and ``discount`` the targets p are ``project_categorical(reward, discount, probs, support)``
    (Bellemare et al. 2017, equation 7), made row by row inside; else they are ``probs``.

    Args:
        logits: ``[..., K]`` floating; -inf masks a bin, as long as no target has mass there.
        probs: ``[..., K]``, target distributions, or with ``reward`` those of the next states; constants.
        support: the bins; needed by ``reward`` and ``return_stats``.
        reward: ``[...]`` floating, or None.
        discount: ``[...]`` floating, where reward is given; 0 where the episode ends.
        weight: ``[...]`` or None, multiplies each sample's loss before it is reduced. A sample of weight 0 counts for
            nothing: its loss and gradient are 0, and its logits and probabilities may be anything.
        reduction: ``"none"``: the weighted losses ``[...]``; ``"sum"``: their sum; ``"mean"``: their sum over the
            number of samples; ``"weighted_mean"``: their sum over the sum of the weights. Means of nothing are NaN, as
            in torch.
        return_stats: also give `HLGaussStats`; its TD error is against the mean of p, and it counts none as clipped.
        impl: see `isogon.kernels.backends`.

    Returns:
        The loss in float32, or in float64 for float64 logits; with ``return_stats`` the pair (loss, stats).

    Raises:
        ValueError: shapes do not fit, ``probs`` requires a gradient, a choice is unknown, or the support is missing.
    """
    _check(logits, probs, support, reward, discount, return_stats)
    samples = logits.shape[:-1]
    check_weight(weight, samples, logits.device)
    check_reduction(reduction)
    if takes_reference(impl, logits.dtype) or not samples.numel():
        loss, stats = categorical_reference(
            logits, probs, support, reward, discount, weight=weight, reduction=reduction, return_stats=return_stats
        )
        return loss if stats is None else (loss, stats)
    if support is not None and support.transform and reward is not None and discount is not None:
        # Kernels move equally spaced values alone.
        precise = probs.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
        probs, reward, discount = project_categorical(reward, discount, precise, support), None, None
    bins = logits.shape[-1]
    origin, width = (support.first_centre, support.width) if support else (0.0, 1.0)
    flat = [part if part is None else part.reshape(-1) for part in (reward, discount, weight)]
    targets = DistributionTargets(probs.reshape(-1, bins), bins, flat[0], flat[1], origin, width)
    if torch.compiler.is_compiling():
        from .compiled import compiled_row_losses

        parts = compiled_row_losses(
            logits.reshape(-1, bins),
            None,
            (None, targets.probs, targets.reward, targets.discount),
            flat[2],
            support or Support(0.0, 1.0, bins, anchor="atoms"),
            ("hl_gauss", "clamp", False, impl),
            return_stats,
        )
        loss = reduce_loss(parts[0], flat[2], reduction)
        row_loss, seen = parts[0].detach(), RowStats(*parts[1:]) if return_stats else None
    else:
        centres = centres_for(support, logits.device) if support and return_stats else None
        call = RowCall(choose(impl, logits), None, targets, flat[2], reduction, return_stats, centres)
        loss = fused_loss(logits.reshape(-1, bins), call)
        seen = call.seen
        row_loss = loss if call.loss is None else call.loss
    loss = loss.reshape(samples) if reduction == "none" else loss
    if seen is None or support is None:
        return loss
    return loss, _stats(row_loss, seen, targets, support, flat[2], samples)


def _stats(
    loss: torch.Tensor,
    seen: RowStats,
    targets: DistributionTargets,
    support: Support,
    weight: torch.Tensor | None,
    samples: torch.Size,
) -> HLGaussStats:
    assert seen.target_mean is not None
    counted = None if weight is None else weight != 0
    value = value_of_mean(seen.mean, support, counted)
    if support.transform == "symexp":
        reached = support.expectation(targets.probs.to(value.dtype))
    else:
        reached = value_of_mean(seen.target_mean - (support.bins - 1) / 2, support)
    if counted is not None:
        reached = torch.where(counted, reached, 0)
    parts = [part.reshape(samples) for part in (loss, value, value - reached, seen.entropy, seen.logsumexp)]
    parts.append(torch.zeros((), dtype=torch.int64, device=loss.device))
    return HLGaussStats(*parts)


def _check(
    logits: torch.Tensor,
    probs: torch.Tensor,
    support: Support | None,
    reward: torch.Tensor | None,
    discount: torch.Tensor | None,
    return_stats: bool,
) -> None:
    check_logits(logits, support.bins if support else None)
    if probs.shape != logits.shape:
        raise ValueError(f"probs has shape {tuple(probs.shape)}, logits {tuple(logits.shape)}: they must be the same")
    check_constant("probs", probs, logits.device)
    if (reward is None) != (discount is None):
        raise ValueError(f"{'reward' if reward is None else 'discount'} is None: a Bellman update needs both")
    for name, tensor in (("reward", reward), ("discount", discount)):
        if tensor is not None and tensor.shape != logits.shape[:-1]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: it must be {tuple(logits.shape[:-1])}")
        if tensor is not None:
            check_constant(name, tensor, logits.device)
    if support is None and (reward is not None or return_stats):
        raise ValueError(f"support is None: {'reward and discount' if reward is not None else 'return_stats'} need it")
