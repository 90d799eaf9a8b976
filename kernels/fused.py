"""From row kernels to a differentiable loss: reductions, gradients made in the forward pass, a second backward pass.

The forward pass makes the gradient as if the loss itself were the end of everything, which it mostly is; the backward
pass multiplies it, in place and only where the factor is not 1. It is handed out once. Whoever goes backward again over
the same graph gets one made anew, so that a gradient once handed out never changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from .cross_entropy import Reduction
from .rows import RowKernels, RowResult, RowTargets


@dataclass(slots=True)
class RowCall:
    """What the kernels are asked for, and what they answered.

    Attributes:
        kernels: who does it.
        index: see `rows`.
        targets: see `rows`.
        weight: ``[P]`` or None.
        reduction: of the P losses.
        stats: whether they are wanted.
        centres: see `rows.RowStats`.
        result: of the forward pass.
    """

    kernels: RowKernels
    index: torch.Tensor | None
    targets: RowTargets
    weight: torch.Tensor | None
    reduction: Reduction
    stats: bool
    centres: torch.Tensor | None = None
    result: RowResult | None = field(default=None, init=False)

    def run(self, logits: torch.Tensor, gradient: bool) -> torch.Tensor:
        """The forward pass over logits ``[N, K]``: the reduced loss."""
        weight, reduction = self.weight, self.reduction
        samples = logits.shape[0] if self.index is None else self.index.shape[0]
        if reduction == "weighted_mean" and weight is not None:
            self.weight = weight = weight / weight.sum()
        coefficient = 1 / samples if reduction == "mean" or (reduction == "weighted_mean" and weight is None) else 1.0
        result = self.result = self.kernels.forward(
            logits, self.index, self.targets, weight, coefficient, gradient=gradient, stats=self.stats, centres=self.centres
        )
        if reduction == "none":
            return result.loss if weight is None else result.loss * weight.to(result.loss.dtype)
        if result.total is not None:
            return result.total
        weighted = result.loss if weight is None else result.loss * weight.to(result.loss.dtype)
        return weighted.sum() * coefficient

    @property
    def norm(self) -> float:
        """What the reduction divides by, weights apart."""
        if self.reduction == "mean" or (self.reduction == "weighted_mean" and self.weight is None):
            assert self.result is not None
            return float(self.result.loss.shape[0])
        return 1.0


def fused_loss(logits: torch.Tensor, call: RowCall) -> torch.Tensor:
    """The reduced loss of logits ``[N, K]``, differentiable once; ``call`` then has its result."""
    if logits.requires_grad and torch.is_grad_enabled():
        return _FusedLoss.apply(logits, call)  # type: ignore[no-any-return,no-untyped-call]
    return call.run(logits, gradient=False)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, call: RowCall) -> torch.Tensor:
        # Gradients by row that are still to be multiplied row by row are read and written again. Where memory is what
        # costs, on a GPU, or where rows add up before, they are better made in the backward pass alone.
        by_row = call.reduction == "none"
        early = not by_row or (call.index is None and logits.device.type == "cpu")
        loss = call.run(logits, gradient=early)
        assert call.result is not None
        ctx.save_for_backward(logits)
        ctx.call = call
        ctx.gradient = call.result.gradient
        call.result = call.result._replace(gradient=None)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        call, gradient = ctx.call, ctx.gradient
        (logits,) = ctx.saved_tensors
        if gradient is None:
            gradient = call.kernels.gradient(logits, call.index, call.targets, call.weight, upstream / call.norm)
        else:
            ctx.gradient = None
            if call.reduction == "none":
                gradient.mul_(upstream.unsqueeze(-1))
            else:
                call.kernels.scale_(gradient, upstream)
        # once_differentiable would let a second derivative pass for 0 wherever the upstream gradient is a constant.
        return (_Last.apply(gradient, logits) if torch.is_grad_enabled() else gradient), None  # type: ignore[no-untyped-call]


class _Last(torch.autograd.Function):
    """The identity on a gradient by the logits; to differentiate it again is an error."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        raise RuntimeError(
            "fused losses have no second derivative: do without create_graph=True, or take impl='reference'"
        )
