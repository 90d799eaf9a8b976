"""Cross-entropy between logits and target distributions, with importance weights, and its reductions."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch

Reduction: TypeAlias = Literal["mean", "sum", "weighted_mean", "none"]


def categorical_loss(
    logits: torch.Tensor,
    probs: torch.Tensor,
    *,
    weight: torch.Tensor | None = None,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Cross-entropy ``-sum_k probs_k log_softmax(logits)_k`` in nats.

    Args:
        logits: ``[..., K]`` floating; -inf masks a bin, as long as no target has mass there.
        probs: ``[..., K]``, target distributions; no gradient may be asked for.
        weight: ``[...]`` or None, multiplies each sample's loss before it is reduced. A sample of weight 0 counts for
            nothing: its loss and gradient are 0, and its logits and probabilities may be anything.
        reduction: ``"none"``: the weighted losses ``[...]``; ``"sum"``: their sum; ``"mean"``: their sum over the
            number of samples; ``"weighted_mean"``: their sum over the sum of the weights. Means of nothing are NaN, as
            in torch.

    Returns:
        The loss in float32, or in float64 for float64 logits.

    Raises:
        ValueError: the shapes differ, ``probs`` requires a gradient, or the reduction is unknown.
    """
    check_logits(logits)
    if probs.shape != logits.shape:
        raise ValueError(f"probs has shape {tuple(probs.shape)}, logits {tuple(logits.shape)}: they must be the same")
    if probs.requires_grad:
        raise ValueError("probs requires a gradient: targets are constants, detach it")
    check_weight(weight, logits.shape[:-1])
    log_probabilities = log_softmax(ignore_unweighted(logits, weight))
    return reduce_loss(cross_entropy(log_probabilities, ignore_unweighted(probs, weight)), weight, reduction)


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities ``[..., K]``, computed in float32 at least."""
    return torch.log_softmax(logits, -1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)


def cross_entropy(log_probabilities: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """``-sum_k probs_k log_probabilities_k``, ``[...]``, where 0 times minus infinity is 0."""
    probs = probs.to(log_probabilities.dtype)
    return -torch.where(probs == 0, 0.0, probs * log_probabilities).sum(-1)


def ignore_unweighted(tensor: torch.Tensor, weight: torch.Tensor | None, fill: float = 0.0) -> torch.Tensor:
    """Replace what belongs to samples of weight 0, so that its NaN or infinity reaches no gradient."""
    if weight is None:
        return tensor
    unweighted = (weight == 0).reshape(weight.shape + (1,) * (tensor.dim() - weight.dim()))
    return tensor.masked_fill(unweighted, fill)


def reduce_loss(loss: torch.Tensor, weight: torch.Tensor | None, reduction: Reduction) -> torch.Tensor:
    """Weigh the losses ``[...]`` of single samples and reduce them; see `categorical_loss`."""
    weighted = loss if weight is None else loss * weight.to(loss.dtype)
    match reduction:
        case "none":
            return weighted
        case "sum":
            return weighted.sum()
        case "mean":
            return weighted.mean()
        case "weighted_mean":
            return weighted.mean() if weight is None else weighted.sum() / weight.to(loss.dtype).sum()
    raise ValueError(f"reduction is {reduction!r}: it must be 'mean', 'sum', 'weighted_mean' or 'none'")


def check_logits(logits: torch.Tensor, bins: int | None = None) -> None:
    """Raise ValueError unless logits are floating ``[..., K]`` with at least two bins, or just as many as said."""
    if not logits.dtype.is_floating_point:
        raise ValueError(f"logits have dtype {logits.dtype}: they must be floating")
    if logits.dim() == 0 or logits.shape[-1] < 2 or (bins is not None and logits.shape[-1] != bins):
        wanted = "at least 2 bins" if bins is None else f"the support's {bins} bins"
        raise ValueError(f"logits have shape {tuple(logits.shape)}: the last must be {wanted}")


def check_weight(weight: torch.Tensor | None, shape: torch.Size) -> None:
    """Raise ValueError unless there is no weight or one constant weight for each sample of ``shape``."""
    if weight is None:
        return
    if weight.shape != shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}: it must be {tuple(shape)}, one for each sample")
    if weight.requires_grad:
        raise ValueError("weight requires a gradient: weights are constants, detach it")
