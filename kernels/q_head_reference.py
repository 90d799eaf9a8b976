"""A Q-head's loss and values in plain torch, as the formulas say them: the oracle of the other implementations.

B states, A actions, P pairs, D features, K bins.
"""

from __future__ import annotations

import torch

from .cross_entropy import OutOfRange
from .projections import Projection
from .reference import hl_gauss_reference
from .support import Support


def pair_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor | None,
    action: torch.Tensor,
    used: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    projection: Projection,
    out_of_range: OutOfRange,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, value, entropy and log-sum-exp ``[P]`` of pairs, differentiable; it holds weights ``[P, K, D]``.

    Pairs that are not ``used [P]`` bool have 0 of each. They read the first state and action, whose features do not
    reach any gradient.
    """
    left_out = ~used
    state = torch.arange(hidden.shape[0], device=hidden.device) if row is None else row
    logits = pair_logits(hidden, weight, bias, state, action, left_out)
    loss, stats = hl_gauss_reference(
        logits,
        target,
        support,
        projection=projection,
        weight=used.to(logits.dtype),
        reduction="none",
        out_of_range=out_of_range,
        return_stats=True,
    )
    assert stats is not None
    return loss, stats.value, stats.entropy, stats.logsumexp


def all_values(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, support: Support) -> torch.Tensor:
    """Expected values ``[B, A]``; it holds logits ``[B, A, K]``."""
    logits = torch.einsum("bd,akd->bak", hidden, weight)
    return _expectation(logits if bias is None else logits + bias, support)


def pair_logits(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    row: torch.Tensor,
    action: torch.Tensor,
    left_out: torch.Tensor,
) -> torch.Tensor:
    """Logits ``[P, K]``: ``weight[action_i] hidden[row_i] + bias[action_i]``."""
    features = hidden[row.masked_fill(left_out, 0)].masked_fill(left_out.unsqueeze(-1), 0)
    block = action.masked_fill(left_out, 0)
    logits = torch.einsum("pd,pkd->pk", features, weight[block])
    return logits if bias is None else logits + bias[block]


def _expectation(logits: torch.Tensor, support: Support) -> torch.Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return support.expectation(torch.softmax(logits, -1, dtype=dtype))
