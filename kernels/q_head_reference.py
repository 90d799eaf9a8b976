"""A Q-head's loss and values in plain torch, as the formulas say them: the oracle of the other implementations.

B states, A actions, P pairs, D features, K bins.
"""

from __future__ import annotations

import torch

from .projections import Projection
from .reference import hl_gauss_reference
from .support import Support


def pair_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor,
    action: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    projection: Projection,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, value, entropy and log-sum-exp ``[P]`` of pairs, differentiable; it holds weights ``[P, K, D]``."""
    logits = pair_logits(hidden, weight, bias, row, action)
    loss, stats = hl_gauss_reference(
        logits,
        target,
        support,
        projection=projection,
        weight=None,
        reduction="none",
        out_of_range="clamp",
        return_stats=True,
    )
    assert stats is not None
    return loss, stats.value, stats.entropy, stats.logsumexp


def pair_values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor,
    action: torch.Tensor,
    support: Support,
) -> torch.Tensor:
    """Expected values ``[P]`` of pairs."""
    return _expectation(pair_logits(hidden, weight, bias, row, action), support)


def all_values(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, support: Support) -> torch.Tensor:
    """Expected values ``[B, A]``; it holds logits ``[B, A, K]``."""
    logits = torch.einsum("bd,akd->bak", hidden, weight)
    return _expectation(logits if bias is None else logits + bias, support)


def pair_logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, row: torch.Tensor, action: torch.Tensor
) -> torch.Tensor:
    """Logits ``[P, K]``: ``weight[action_i] hidden[row_i] + bias[action_i]``."""
    logits = torch.einsum("pd,pkd->pk", hidden[row], weight[action])
    return logits if bias is None else logits + bias[action]


def _expectation(logits: torch.Tensor, support: Support) -> torch.Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return support.expectation(torch.softmax(logits, -1, dtype=dtype))
