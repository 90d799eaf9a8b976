"""The contract of a Q-head's backends, and the autograd function that makes a differentiable loss of one.

B states, A actions, P pairs, D features, K bins. Two modules implement the contract: `q_head_torch` for any device, and
`q_head_triton` for CUDA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from .fused import NoSecondDerivative
from .pairs import Pairs
from .projections import Projection
from .rows import RowKernels
from .support import Support


class PairLosses(NamedTuple):
    """What a forward pass gives: ``[P]`` in the order of pairs before they were sorted, 0 for those left out.

    Attributes:
        loss: cross-entropy of each pair.
        rows: None, or the gradients of the losses in their logits, ``[P, K]`` in sorted order, in float32 or float64.
            Rows of pairs left out, which come first, may hold anything.
        value: expected value, or None if not asked for.
        entropy: in nats, likewise.
        logsumexp: likewise.
    """

    loss: torch.Tensor
    rows: torch.Tensor | None
    value: torch.Tensor | None
    entropy: torch.Tensor | None
    logsumexp: torch.Tensor | None


class Wanted(NamedTuple):
    """Which gradients a backward pass has to give, and whether those of weight and bias are sparse."""

    hidden: bool
    weight: bool
    bias: bool
    sparse: bool


class Gradients(NamedTuple):
    """Gradients in the dtypes of hidden, weight and bias; None for those not wanted."""

    hidden: torch.Tensor | None
    weight: torch.Tensor | None
    bias: torch.Tensor | None


class Best(NamedTuple):
    """The largest values ``[B]``, and their actions ``[B]`` int64: the lowest of equals; -1 and -inf where none is."""

    value: torch.Tensor
    action: torch.Tensor


class QHeadBackend(Protocol):
    """A backend: a module with these functions. No argument needs checking, and nothing records a graph.

    ``compute`` is the dtype to which operands of the matrix products are rounded; sums are in float32 at least, and in
    float64 for float64. Results are the same to the bit in every run.
    """

    def pair_losses(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        pairs: Pairs,
        target: torch.Tensor,
        support: Support,
        projection: Projection,
        compute: torch.dtype,
        *,
        kernels: RowKernels,
        gradient: bool,
        stats: bool,
    ) -> PairLosses:
        """Losses of pairs, and if asked their gradients in the logits, and stats.

        ``kernels`` are for backends that compute logits and losses apart.
        """
        ...

    def gradients(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        pairs: Pairs,
        rows: torch.Tensor,
        upstream: torch.Tensor,
        compute: torch.dtype,
        wanted: Wanted,
    ) -> Gradients:
        """Gradients of ``sum_i upstream_i loss_i``, from the ``rows`` of `pair_losses`, which stay as they are."""
        ...

    def pair_values(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        pairs: Pairs,
        support: Support,
        compute: torch.dtype,
    ) -> torch.Tensor:
        """Expected values ``[P]`` in the order of pairs before they were sorted, 0 for those left out."""
        ...

    def all_values(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        support: Support,
        compute: torch.dtype,
    ) -> torch.Tensor:
        """Expected values ``[B, A]``."""
        ...

    def best_values(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        support: Support,
        legal: torch.Tensor | None,
        compute: torch.dtype,
    ) -> Best:
        """The best of the actions that are ``legal [B, A]`` bool, for each state."""
        ...


@dataclass(frozen=True)
class LossCall:
    """What a loss needs to know besides its tensors that have gradients."""

    backend: QHeadBackend
    kernels: RowKernels
    pairs: Pairs
    target: torch.Tensor
    support: Support
    projection: Projection
    compute: torch.dtype
    gradient: bool
    stats: bool
    sparse: bool


class PairLoss(torch.autograd.Function):
    """Losses ``[P]`` from (hidden, weight, bias, `LossCall`); value, entropy and log-sum-exp beside them, constant."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, call: LossCall
    ) -> tuple[torch.Tensor | None, ...]:
        """One pass over the chosen logits, which keeps their gradients ``[P, K]``, small beside the weights."""
        with torch.autocast(hidden.device.type, enabled=False):
            losses = call.backend.pair_losses(
                hidden,
                weight,
                bias,
                call.pairs,
                call.target,
                call.support,
                call.projection,
                call.compute,
                kernels=call.kernels,
                gradient=call.gradient,
                stats=call.stats,
            )
        ctx.save_for_backward(hidden, weight, bias, losses.rows)
        ctx.call = call
        seen = losses.value, losses.entropy, losses.logsumexp
        ctx.mark_non_differentiable(*[tensor for tensor in seen if tensor is not None])
        return losses.loss, *seen

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        """Apply each pair's upstream gradient before pairs are summed."""
        hidden, weight, bias, rows = ctx.saved_tensors
        call: LossCall = ctx.call
        of_hidden, of_weight, of_bias = ctx.needs_input_grad[:3]
        wanted = Wanted(of_hidden, of_weight, of_bias, call.sparse)
        with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False):
            found = call.backend.gradients(hidden, weight, bias, call.pairs, rows, upstream, call.compute, wanted)
        if torch.is_grad_enabled():
            source = next(tensor for tensor in (hidden, weight, bias) if tensor is not None and tensor.requires_grad)
            found = Gradients(*[part if part is None else NoSecondDerivative.apply(part, source) for part in found])  # type: ignore[no-untyped-call]
        return *found, None


def best_of(values: torch.Tensor) -> Best:
    """The best of ``[B, A]``, A at least 1: the first of equals, the first NaN if there is one, -1 if all are -inf."""
    value = values.amax(-1)
    action = torch.arange(values.shape[1], device=values.device)
    hit = ((values == value.unsqueeze(-1)) & (values != -torch.inf)) | values.isnan()
    which = torch.where(hit, action, values.shape[1]).amin(-1)
    return Best(value, torch.where(which == values.shape[1], -1, which))


def row_sparse(actions: torch.Tensor, values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A tensor of this shape with ``values [U, ...]`` at ``actions [U]``, ascending, and nothing elsewhere."""
    return torch.sparse_coo_tensor(actions.unsqueeze(0), values, shape, is_coalesced=True, check_invariants=False)
