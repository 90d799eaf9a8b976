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
from .rows import RowKernels, RowStats, RowTargets, ScalarTargets


@dataclass(slots=True)
class RowCall:
    """What the kernels are asked for, and what they answered.

    Attributes:
        kernels: who does it.
        index: see `rows`.
        targets: see `rows`.
        weight: ``[P]`` or None; for ``"weighted_mean"`` it is divided by its sum.
        reduction: of the P losses.
        stats: whether they are wanted.
        centres: see `rows.RowStats`.
        norm: what the reduction divides by, weights apart.
        loss: ``[P]``, weights not applied; None where only the reduced one was wanted.
        seen: stats, where they are wanted.
        clipped: see `rows.RowResult`.
        nan: likewise.
        gradient: likewise.
    """

    kernels: RowKernels
    index: torch.Tensor | None
    targets: RowTargets
    weight: torch.Tensor | None
    reduction: Reduction
    stats: bool
    centres: torch.Tensor | None = None
    norm: int = field(default=1, init=False)
    loss: torch.Tensor | None = field(default=None, init=False)
    seen: RowStats | None = field(default=None, init=False)
    clipped: int = field(default=-1, init=False)
    nan: int = field(default=-1, init=False)
    gradient: torch.Tensor | None = field(default=None, init=False)

    def run(self, logits: torch.Tensor, gradient: bool) -> torch.Tensor:
        """The forward pass over logits ``[N, K]``: the reduced loss."""
        weight, reduction = self.weight, self.reduction
        whole = None
        if reduction == "mean" or (reduction == "weighted_mean" and weight is None):
            self.norm = logits.shape[0] if self.index is None else self.index.shape[0]
        elif reduction == "weighted_mean" and weight is not None:
            weight = weight.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
            whole = weight.sum()
            # Weights that are all 0 are no shares of anything: the loss is NaN and the gradient 0.
            self.weight = weight = (weight / whole).masked_fill(weight == 0, 0)
        loss, self.gradient, self.seen, total, self.clipped, self.nan = self.kernels.forward(
            logits,
            self.index,
            self.targets,
            weight,
            1 / self.norm,
            gradient,
            self.stats,
            not self.stats and reduction != "none",
            self.centres,
        )
        self.loss = loss
        if total is None or reduction == "none":
            assert loss is not None
            weighted = loss if weight is None else loss * weight.to(loss.dtype)
            if reduction == "none":
                return weighted
            total = weighted.sum() / self.norm
        return total if whole is None else total * (whole / whole)


def fused_loss(logits: torch.Tensor, call: RowCall) -> torch.Tensor:
    """The reduced loss of logits ``[N, K]``, differentiable once; ``call`` then has what was seen."""
    if logits.requires_grad and torch.is_grad_enabled():
        return _FusedLoss.apply(logits, call)  # type: ignore[no-any-return,no-untyped-call]
    return call.run(logits, False)


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, call: RowCall) -> torch.Tensor:
        # Gradients by row that are still to be multiplied row by row are read and written again. Where memory is what
        # costs, on a GPU, or where rows add up before, they are better made in the backward pass alone.
        # A gradient in half precision should be multiplied before it is rounded, not after, as float16 loses what is
        # small. It is only made early if it will be multiplied by 1, which the CPU can see. bfloat16 on a GPU is
        # rounded twice.
        on_cpu, half = logits.device.type == "cpu", logits.dtype.itemsize == 2
        if call.reduction == "none":
            early = call.index is None and on_cpu and not half
        else:
            early = on_cpu or logits.dtype != torch.float16
        loss = call.run(logits, early)
        # torch refuses to hand out what was changed in place since.
        ctx.save_for_backward(logits, call.index, call.weight, *_tensors(call.targets))
        ctx.call = call
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        call = ctx.call
        # Nobody else may hold it: then it becomes the parameter's gradient as it is, without a copy.
        gradient, call.gradient = call.gradient, None
        if gradient is not None and gradient.dtype.itemsize == 2 and gradient.device.type == "cpu":
            gradient = gradient if upstream.item() == 1 else None
        if gradient is None:
            logits, index, weight, *_ = ctx.saved_tensors
            gradient = call.kernels.gradient(logits, index, call.targets, weight, upstream / call.norm)
        elif call.reduction == "none":
            _, _, weight, *_ = ctx.saved_tensors
            if weight is not None:
                upstream = upstream.masked_fill(weight == 0, 0)
            gradient.mul_(upstream.unsqueeze(-1))
        else:
            call.kernels.scale_(gradient, upstream)
        if torch.is_grad_enabled():
            # once_differentiable would let a second derivative pass for 0 where the upstream gradient is a constant.
            gradient = NoSecondDerivative.apply(gradient, ctx.saved_tensors[0])  # type: ignore[no-untyped-call]
        return gradient, None


def _tensors(targets: RowTargets) -> tuple[torch.Tensor | None, ...]:
    if isinstance(targets, ScalarTargets):
        return (targets.target,)
    return targets.probs, targets.reward, targets.discount


class NoSecondDerivative(torch.autograd.Function):
    """The identity on a gradient by the logits; to differentiate it again is an error."""

    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """A copy."""
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Raises RuntimeError."""
        raise RuntimeError(
            "this loss has no second derivative: do without create_graph=True, or (hl_gauss_loss, categorical_loss, "
            "hl_gauss_q_loss) take impl='reference'"
        )
