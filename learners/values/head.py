"""`ValueHead`: the network's last layer, which knows what its outputs mean.

B states, P pairs, A actions, M candidate actions, K bins, D features.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ...kernels import q_chosen, q_max, q_values
from .forms import Form, Hidden, Layer, check_within
from .kinds import CategoricalTarget, HeadLoss, Kind, Target

_FEW_OUTPUTS = 2**20
"""Outputs of all states and actions that may be in memory: 4 MiB of float32."""


class ValueHead(nn.Module):
    """A *form* (how outputs come from hidden features) times a *kind* (what the outputs mean, and their loss).

    ``hidden`` is what the torso gives: features ``[B, D]`` or a mapping with them as ``"features"``. Values are in
    units of return. Indices out of range raise IndexError on the CPU.

    With ``normalise`` what the kind sees is in units of ``scale``: targets are divided by it and values multiplied, so
    that nobody outside needs to know. The scale is a buffer: it travels with the weights that were learnt under it.

    Args:
        form: `FullMap` or `Tilt`.
        kind: `Categorical`, `C51`, `MeanSquared` or `SoftmaxMeanSquared`.
        normalise: whether there is a scale, which begins as 1; whoever trains the head sets it.

    Attributes:
        scale: 0-d, above 0; None without ``normalise``.

    Raises:
        ValueError: form and kind differ in the number of outputs.
    """

    scale: torch.Tensor | None

    def __init__(self, form: Form, kind: Kind, *, normalise: bool = False) -> None:
        super().__init__()
        if form.width != kind.width:
            raise ValueError(f"form has width {form.width} and kind {kind.width}: they must be the same")
        self.form = form
        self.kind = kind
        self.register_buffer("scale", torch.ones(()) if normalise else None)

    def loss(
        self,
        hidden: Hidden,
        row: torch.Tensor,
        action: torch.Tensor,
        target: Target,
        weight: torch.Tensor | None = None,
    ) -> HeadLoss:
        """The loss of P (state, action) pairs, not reduced.

        Every parameter of the head takes part in it, so data-parallel training finds none unused. Only the pairs'
        outputs are made (a full map may make all actions' where that is faster).

        Args:
            hidden: of B states.
            row: ``[P]`` int64, which state a pair is of.
            action: ``[P]`` int64.
            target: ``[P]`` floating, in units of return, or for C51 a `CategoricalTarget`, whose Z is in this head's
                bins.
            weight: ``[P]`` floating or None, multiplies a pair's loss. Averaging the result divides by P, whatever
                the weights are.

        Raises:
            ValueError: shapes or dtypes do not fit; or as `isogon.kernels.hl_gauss_loss` says of targets.
        """
        _check_index("row", row, 1)
        _check_index("action", action, 1)
        if action.shape != row.shape:
            raise ValueError(f"action has shape {tuple(action.shape)} and row {tuple(row.shape)}: both must be [P]")
        if isinstance(target, torch.Tensor) and target.shape != row.shape:
            raise ValueError(f"target has shape {tuple(target.shape)} and row {tuple(row.shape)}: both must be [P]")
        if weight is not None and weight.shape != row.shape:
            raise ValueError(f"weight has shape {tuple(weight.shape)} and row {tuple(row.shape)}: both must be [P]")
        if self.scale is None:
            return self._loss(hidden, row, action, target, weight)
        loss = self._loss(hidden, row, action, _divided(target, self.scale), weight)
        return replace(loss, value=loss.value * self.scale, td_error=loss.td_error * self.scale)

    def _loss(
        self, hidden: Hidden, row: torch.Tensor, action: torch.Tensor, target: Target, weight: torch.Tensor | None
    ) -> HeadLoss:
        loss = None
        if (layer := self.form.layer(hidden)) is not None:
            check_within("row", row, layer[0].shape[0])
            check_within("action", action, layer[1].shape[0])
            loss = self.kind.layer_loss(layer, row, action, target, weight)
        return self.kind.loss(self.form.logits(hidden, row, action), target, weight) if loss is None else loss

    def value(self, logits: torch.Tensor) -> torch.Tensor:
        """Outputs ``[..., W]`` of the form to values ``[...]``."""
        return self._in_units_of_return(self.kind.value(logits))

    def centres(self) -> torch.Tensor | None:
        """Centres ``[K]`` of the bins, float64, in units of return; None without bins."""
        support = self.kind.support
        return None if support is None else self._in_units_of_return(support.centres(dtype=torch.float64))

    def edges(self) -> torch.Tensor | None:
        """Edges ``[K + 1]`` of the bins, float64, in units of return; None without bins."""
        support = self.kind.support
        return None if support is None else self._in_units_of_return(support.edges(dtype=torch.float64))

    def values(self, hidden: Hidden) -> torch.Tensor:
        """Values ``[B, A]`` of all actions. Under `torch.no_grad`, outputs ``[B, A, K]`` are never whole in memory."""
        layer = self._fusible_layer(hidden)
        if layer is None or self.kind.support is None:
            return self.form.values(hidden, self.value)
        return self._in_units_of_return(q_values(*layer, self.kind.support))

    def values_at(self, hidden: Hidden, action: torch.Tensor) -> torch.Tensor:
        """Values ``[B, M]`` of each state's own actions ``[B, M]`` int64."""
        _check_index("action", action, 2)
        states, candidates = action.shape
        row = torch.arange(states, device=action.device).repeat_interleave(candidates)
        layer = self._fusible_layer(hidden)
        if layer is not None and self.kind.support is not None:
            check_within("action", action, layer[1].shape[0])
            values = self._in_units_of_return(q_chosen(*layer, row, action.flatten(), self.kind.support))
        else:
            values = self.value(self.form.logits(hidden, row, action.flatten()))
        return values.reshape(states, candidates)

    def values_shared(self, hidden: Hidden, actions: torch.Tensor) -> torch.Tensor:
        """Values ``[B, M]`` of the same actions ``[M]`` int64 in every state."""
        _check_index("actions", actions, 1)
        return self.value(self.form.logits_shared(hidden, actions))

    def distribution(self, hidden: Hidden, action: torch.Tensor) -> torch.Tensor:
        """Probabilities ``[B, K]`` of one action ``[B]`` int64 in each state.

        Raises:
            ValueError: the kind is mse, which predicts none.
        """
        _check_index("action", action, 1)
        row = torch.arange(action.shape[0], device=action.device)
        return self.kind.probabilities(self.form.logits(hidden, row, action))

    def best(self, hidden: Hidden, legal: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """The highest value ``[B]`` among the legal actions, and the action ``[B]`` int64 that has it.

        Args:
            hidden: of B states.
            legal: ``[B, A]`` bool, or None if all actions are legal.

        Raises:
            ValueError: legal has another shape or dtype, or a state has no legal action.
        """
        layer = self._fusible_layer(hidden)
        if layer is not None and self.kind.support is not None:
            _check_legal(legal, (layer[0].shape[0], layer[1].shape[0]))
            value, best = q_max(*layer, self.kind.support, legal=legal)
            return self._in_units_of_return(value), best
        preference, action = self._preferences(hidden, legal).max(1, keepdim=True)
        return self.form.values_of(hidden, preference, self.value).squeeze(1), action.squeeze(1)

    def top(self, hidden: Hidden, legal: torch.Tensor | None, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The k highest values ``[B, k]`` among the legal actions, falling, and their actions ``[B, k]`` int64.

        Where fewer than k actions are legal, the last entries are illegal actions with value -inf.

        Raises:
            ValueError: as for `best`, or k is not from 1 to A.
        """
        preferences = self._preferences(hidden, legal)
        if not 1 <= k <= preferences.shape[1]:
            raise ValueError(f"k is {k}: it must be from 1 to the {preferences.shape[1]} actions")
        preference, action = preferences.topk(k, dim=1)
        values = self.form.values_of(hidden, preference, self.value)
        if legal is not None:
            values = values.masked_fill(~legal.gather(1, action), -torch.inf)
        return values, action

    def _fusible_layer(self, hidden: Hidden) -> Layer | None:
        """The layer whose values kernels tell without outputs in memory: no gradient is wanted, and outputs are many.

        Few outputs are sooner made than avoided.
        """
        layer = None if torch.is_grad_enabled() else self.form.layer(hidden)
        if layer is None or layer[0].shape[0] * layer[2].numel() <= _FEW_OUTPUTS:
            return None
        return layer

    def _in_units_of_return(self, normalised: torch.Tensor) -> torch.Tensor:
        return normalised if self.scale is None else normalised * self.scale.to(normalised)

    def _preferences(self, hidden: Hidden, legal: torch.Tensor | None) -> torch.Tensor:
        """What ranks the actions, ``[B, A]``, -inf for illegal ones."""
        preferences = self.form.preferences(hidden, self.value)
        _check_legal(legal, (preferences.shape[0], preferences.shape[1]))
        if legal is None:
            return preferences
        return preferences.masked_fill(~legal, -torch.inf)


def _check_legal(legal: torch.Tensor | None, shape: tuple[int, int]) -> None:
    if legal is None:
        return
    if legal.shape != shape or legal.dtype != torch.bool:
        raise ValueError(f"legal is {legal.dtype} {tuple(legal.shape)}: it must be torch.bool {shape}")
    without = ~legal.any(1)
    if bool(without.any()):
        raise ValueError(f"legal has no action in {int(without.sum())} of {len(without)} states")


def _divided(target: Target, scale: torch.Tensor) -> Target:
    return replace(target, reward=target.reward / scale) if isinstance(target, CategoricalTarget) else target / scale


def _check_index(name: str, index: torch.Tensor, dimensions: int) -> None:
    if index.dim() != dimensions or index.dtype != torch.int64:
        raise ValueError(
            f"{name} is {index.dtype} {tuple(index.shape)}: it must be torch.int64 with {dimensions} dimensions"
        )
