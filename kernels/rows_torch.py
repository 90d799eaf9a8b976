"""The row kernels in torch's own operations, with the gradient written by hand: for any device and dtype.

What is used where there is neither a compiled extension nor a GPU. It holds target distributions as tensors, but keeps
no graph; see `rows` for the contract.
"""

from __future__ import annotations

import torch

from .cross_entropy import cross_entropy, ignore_unweighted, log_softmax
from .projections import masses
from .rows import DistributionTargets, RowResult, RowStats, RowTargets


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
    """Losses, and if asked gradient and stats; see `rows.RowKernels`."""
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        chosen = _chosen(logits, index, weight)
        log_q = log_softmax(chosen)
        p = _distributions(targets, weight, log_q.dtype)
        loss = ignore_unweighted(cross_entropy(log_q, p), weight)
        factor = torch.full_like(loss, coefficient) if weight is None else coefficient * weight.to(loss.dtype)
        slope = _gradient(logits, index, log_q, p, factor) if gradient else None
        seen = _stats(chosen, log_q, p, targets, weight, centres) if stats else None
        return RowResult(loss, slope, seen)


def gradient(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    targets: RowTargets,
    weight: torch.Tensor | None,
    upstream: torch.Tensor,
) -> torch.Tensor:
    """The gradient anew; see `rows.RowKernels`."""
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        log_q = log_softmax(_chosen(logits, index, weight))
        p = _distributions(targets, weight, log_q.dtype)
        factor = upstream.to(log_q.dtype).expand(log_q.shape[0])
        if weight is not None:
            factor = (factor * weight.to(log_q.dtype)).masked_fill(weight == 0, 0)
        return _gradient(logits, index, log_q, p, factor)


def scale_(gradient: torch.Tensor, upstream: torch.Tensor) -> None:
    """Multiply in place; see `rows.RowKernels`."""
    if gradient.device.type == "cpu" and upstream.item() == 1:
        return
    gradient.mul_(upstream)


def _chosen(logits: torch.Tensor, index: torch.Tensor | None, weight: torch.Tensor | None) -> torch.Tensor:
    rows = logits if index is None else logits.index_select(0, index.clamp(min=0))
    return ignore_unweighted(rows, weight)


def _distributions(targets: RowTargets, weight: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Target probabilities ``[P, K]``."""
    if isinstance(targets, DistributionTargets):
        probs = ignore_unweighted(targets.probs, weight).to(dtype)
        if targets.reward is None or targets.discount is None:
            return probs
        reward = ignore_unweighted(targets.reward, weight).double().unsqueeze(-1)
        discount = ignore_unweighted(targets.discount, weight).double().unsqueeze(-1)
        atoms = targets.origin + targets.width * torch.arange(targets.bins, dtype=torch.float64, device=probs.device)
        position = ((reward + discount * atoms - targets.origin) / targets.width).clamp(0, targets.bins - 1)
        below = torch.nan_to_num(position).floor().long()
        above = (position - below).to(dtype)
        moved = torch.zeros_like(probs).scatter_add(-1, below, probs * (1 - above))
        return moved.scatter_add(-1, (below + 1).clamp(max=targets.bins - 1), probs * above)
    value = ignore_unweighted(targets.target.double(), weight, fill=targets.lowest)
    position = (value.clamp(targets.lowest, targets.highest) - targets.origin) / targets.width
    last = targets.bins - 1 if targets.projection == "two_hot" else targets.bins
    return masses(position.clamp(0, last), targets.projection, targets.bins, targets.sigma_ratio, dtype)


def _gradient(
    logits: torch.Tensor, index: torch.Tensor | None, log_q: torch.Tensor, p: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    rows = ignore_unweighted(log_q.exp() * p.sum(-1, keepdim=True) - p, factor) * factor.unsqueeze(-1)
    if index is None:
        return rows.to(logits.dtype)
    # Samples that are left out add their zeros to row 0. Sorted, equal rows lie side by side and add up in their order.
    whole = torch.zeros(logits.shape, dtype=rows.dtype, device=rows.device)
    if whole.device.type == "cpu":
        return whole.index_add_(0, index.clamp(min=0), rows).to(logits.dtype)
    used, order = torch.sort(index.clamp(min=0), stable=True)
    return whole.index_put_((used,), rows[order], accumulate=True).to(logits.dtype)


def _stats(
    logits: torch.Tensor,
    log_q: torch.Tensor,
    p: torch.Tensor,
    targets: RowTargets,
    weight: torch.Tensor | None,
    centres: torch.Tensor | None,
) -> RowStats:
    q = log_q.exp()
    k = torch.arange(targets.bins, dtype=log_q.dtype, device=log_q.device)
    if centres is None:
        mean = (q * (k - (targets.bins - 1) / 2)).sum(-1)
    else:
        terms = q.double() * centres
        mean = ((terms + terms.flip(-1)).sum(-1) / 2).to(log_q.dtype)
    return RowStats(
        mean=ignore_unweighted(mean, weight),
        entropy=ignore_unweighted(cross_entropy(log_q, q), weight),
        logsumexp=ignore_unweighted(torch.logsumexp(logits.to(log_q.dtype), -1), weight),
        target_mean=ignore_unweighted((p * k).sum(-1), weight) if isinstance(targets, DistributionTargets) else None,
    )
