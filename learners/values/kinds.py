"""Kinds of a value head: what its outputs mean, and which loss brings them to a target.

P pairs, K bins, W outputs of a pair. A loss is never reduced here: its entry for a pair is ``weight * loss`` of that
pair. A pair of weight 0 counts for nothing: its loss and gradient are 0, and its target may be anything.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ...kernels import OutOfRange, Projection, Support, categorical_loss, hl_gauss_loss, hl_gauss_q_loss
from ...kernels.cross_entropy import check_target, ignore_unweighted, log_softmax
from .forms import Layer


@dataclass(frozen=True)
class CategoricalTarget:
    """A distributional Bellman target: the distribution of ``reward + discount * Z`` (C51).

    Attributes:
        reward: ``[P]`` floating.
        discount: ``[P]`` floating, 0 where the episode ends.
        probabilities: ``[P, K]``, the distribution of Z over the head's bins.
    """

    reward: torch.Tensor
    discount: torch.Tensor
    probabilities: torch.Tensor


_DENSE_OUTPUTS_PER_PAIR = 4
"""Up to this many (state, action) outputs for each wanted pair, one product for all is faster than one an action."""

Target: TypeAlias = torch.Tensor | CategoricalTarget
"""Values ``[P]``, or for C51 a distribution."""


@dataclass(frozen=True)
class HeadLoss:
    """The loss of P pairs, and what was seen on the way.

    Attributes:
        loss: ``[P]``, weights applied, not reduced. The usual loss of a batch is its mean.
        value: ``[P]`` predicted value, detached. Meaningless where the weight is 0.
        td_error: ``[P]`` value minus target (after clamping), weights not applied, detached. Meaningless where the
            weight is 0.
        clipped: 0-d int64, number of targets outside the range.
    """

    loss: torch.Tensor
    value: torch.Tensor
    td_error: torch.Tensor
    clipped: torch.Tensor


class Kind(ABC):
    """What outputs mean. ``support`` is None and ``width`` 1 for plain numbers."""

    support: Support | None

    @property
    def width(self) -> int:
        """Outputs W of a pair."""
        return self.support.bins if self.support else 1

    @abstractmethod
    def value(self, logits: torch.Tensor) -> torch.Tensor:
        """Outputs ``[..., W]`` to values ``[...]``."""

    @abstractmethod
    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Outputs ``[..., W]`` to probabilities ``[..., K]``. Raises ValueError for plain numbers."""

    @abstractmethod
    def loss(self, logits: torch.Tensor, target: Target, weight: torch.Tensor | None) -> HeadLoss:
        """The loss of outputs ``[P, W]``. Raises ValueError for targets that the kind cannot learn from."""

    def layer_loss(
        self, layer: Layer, row: torch.Tensor, action: torch.Tensor, target: Target, weight: torch.Tensor | None
    ) -> HeadLoss | None:
        """The loss of P pairs straight from the last layer, if that is cheaper than making their outputs first."""
        return None


class Binned(Kind):
    """Outputs are the logits of a distribution over the support's bins; the value is its expectation."""

    support: Support

    def value(self, logits: torch.Tensor) -> torch.Tensor:
        """Values ``[...]``; see `Kind`."""
        return self.support.expectation(self.probabilities(logits))

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities ``[..., K]``, computed in float32 at least."""
        return log_softmax(logits).exp()


@dataclass(frozen=True)
class Categorical(Binned):
    """Bins learnt by cross-entropy with projected scalar targets: HL-Gauss and two-hot.

    Attributes:
        support: the bins.
        projection: how a scalar becomes a distribution.
        out_of_range: what happens to targets outside the support.
    """

    support: Support
    projection: Projection
    out_of_range: OutOfRange = "clamp"

    def loss(self, logits: torch.Tensor, target: Target, weight: torch.Tensor | None) -> HeadLoss:
        """The loss of outputs ``[P, W]``; see `Kind`."""
        loss, stats = hl_gauss_loss(
            logits,
            _scalar(target),
            self.support,
            projection=self.projection,
            weight=weight,
            reduction="none",
            out_of_range=self.out_of_range,
            return_stats=True,
            validate=self.out_of_range == "error",
        )
        return HeadLoss(loss, stats.value, stats.td_error, stats.clipped)

    def layer_loss(
        self, layer: Layer, row: torch.Tensor, action: torch.Tensor, target: Target, weight: torch.Tensor | None
    ) -> HeadLoss | None:
        """The loss of P pairs; see `Kind`. Outputs of other actions are never made."""
        hidden, layer_weight, bias = layer
        few_actions = hidden.shape[0] * layer_weight.shape[0] <= _DENSE_OUTPUTS_PER_PAIR * row.shape[0]
        if few_actions or not isinstance(target, torch.Tensor):
            return None
        loss, stats = hl_gauss_q_loss(
            hidden,
            layer_weight,
            bias,
            row,
            action,
            target,
            self.support,
            projection=self.projection,
            sample_weight=weight,
            reduction="none",
            out_of_range=self.out_of_range,
            return_stats=True,
            validate=self.out_of_range == "error",
        )
        return HeadLoss(loss, stats.value, stats.td_error, stats.clipped)


@dataclass(frozen=True)
class C51(Categorical):
    """Bins learnt by cross-entropy with projected distributions (Bellemare et al. 2017).

    A scalar target is taken as certain: its two-hot projection. For a distribution, ``clipped`` counts the pairs
    whose target mean is outside the range, and the TD error is against the mean of the projected distribution.
    """

    projection: Projection = "two_hot"

    def loss(self, logits: torch.Tensor, target: Target, weight: torch.Tensor | None) -> HeadLoss:
        """The loss of outputs ``[P, W]``; see `Kind`."""
        if not isinstance(target, CategoricalTarget):
            return super().loss(logits, target, weight)
        centres = self.support.centres(dtype=target.probabilities.dtype, device=logits.device)
        mean = target.reward + target.discount * (target.probabilities @ centres)
        outside = check_target(
            ignore_unweighted(mean, weight, fill=self.support.lowest),
            self.support.lowest,
            self.support.highest,
            self.out_of_range,
        )
        loss, stats = categorical_loss(
            logits,
            target.probabilities,
            support=self.support,
            reward=target.reward,
            discount=target.discount,
            weight=weight,
            reduction="none",
            return_stats=True,
        )
        return HeadLoss(loss, stats.value, stats.td_error, outside.sum())


@dataclass(frozen=True)
class MeanSquared(Kind):
    """A plain number, learnt by its squared error ``(value - target)^2``."""

    support: None = None

    def value(self, logits: torch.Tensor) -> torch.Tensor:
        """Values ``[...]``; see `Kind`."""
        return logits.squeeze(-1)

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """There are none: raises ValueError."""
        raise ValueError("kind is 'mse', which predicts no distribution: use a kind with bins")

    def loss(self, logits: torch.Tensor, target: Target, weight: torch.Tensor | None) -> HeadLoss:
        """The loss of outputs ``[P, W]``; see `Kind`."""
        target = _scalar(target)
        used = ignore_unweighted(target, weight)
        outside = check_target(used, -math.inf, math.inf, "clamp")
        if used.device.type == "cpu" and bool(torch.isinf(used).any()):
            raise ValueError(f"target has {int(torch.isinf(used).sum())} infinite of {used.numel()}: mse has no range")
        return _squared(self.value(ignore_unweighted(logits, weight)), used, weight, outside)


@dataclass(frozen=True)
class SoftmaxMeanSquared(Binned):
    """The ablation "is it only the softmax?": an expectation over bins, learnt by its squared error.

    (Farebrother et al. 2024, section 5.1.) Targets outside the support, which no output can reach, are treated as for
    the categorical kinds.
    """

    support: Support
    out_of_range: OutOfRange = "clamp"

    def loss(self, logits: torch.Tensor, target: Target, weight: torch.Tensor | None) -> HeadLoss:
        """The loss of outputs ``[P, W]``; see `Kind`."""
        lowest, highest = self.support.lowest, self.support.highest
        used = ignore_unweighted(_scalar(target), weight, fill=lowest)
        outside = check_target(used, lowest, highest, self.out_of_range)
        return _squared(self.value(ignore_unweighted(logits, weight)), used.clamp(lowest, highest), weight, outside)


def _scalar(target: Target) -> torch.Tensor:
    if isinstance(target, CategoricalTarget):
        raise ValueError("target is a CategoricalTarget: only the kind 'c51' learns from one")
    return target


def _squared(value: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None, outside: torch.Tensor) -> HeadLoss:
    difference = value - target.to(value.dtype)
    loss = difference.square()
    if weight is not None:
        loss = loss * weight.to(loss.dtype)
    return HeadLoss(loss, value.detach(), difference.detach(), outside.sum())
