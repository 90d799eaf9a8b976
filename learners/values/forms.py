"""Forms of a value head: how outputs for (state, action) pairs come from the network's hidden features.

B states, P pairs, A actions, M candidate actions, D features, W outputs of a pair (bins, or 1 for a plain number).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...kernels import Support
from .noise import FactorisedNoise, factorised_noise, noisy

Hidden: TypeAlias = torch.Tensor | Mapping[str, torch.Tensor]
"""What a torso gives a head: features ``[B, D]``, or a mapping with them as ``"features"`` and more for a scorer."""

Layer: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Features ``[B, D]``, and the weight ``[A, W, D]`` and bias ``[A, W]`` that make outputs ``[B, A, W]`` of them."""

Decode: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Outputs ``[..., W]`` to values ``[...]``."""

DEFAULT_SCALE = 0.1
"""Initial outputs are this many times what features of unit mean square would give under LeCun's initialisation."""

_CHUNK_ELEMENTS = 2**20
"""Outputs that `Form.values` holds at a time: 4 MiB of float32."""

_DENSE_ACTIONS_PER_PAIR = 32
"""Up to this many (state, action) outputs for each wanted pair, one matrix product beats gathering weights (CPU)."""


def features(hidden: Hidden) -> torch.Tensor:
    """The features ``[B, D]`` in hidden.

    Raises:
        ValueError: hidden is a mapping without ``"features"``, or they do not have two dimensions.
    """
    if not isinstance(hidden, torch.Tensor):
        if "features" not in hidden:
            raise ValueError(f"hidden has the keys {sorted(hidden)}: a head reads 'features' [B, D]")
        hidden = hidden["features"]
    if hidden.dim() != 2:
        raise ValueError(f"hidden features have shape {tuple(hidden.shape)}: they must be [B, D]")
    return hidden


class Form(nn.Module, ABC):
    """How outputs come from hidden features."""

    width: int

    @abstractmethod
    def logits(self, hidden: Hidden, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Outputs ``[P, W]`` of the pairs (state ``row [P]``, ``action [P]``), both int64."""

    @abstractmethod
    def logits_shared(self, hidden: Hidden, actions: torch.Tensor) -> torch.Tensor:
        """Outputs ``[B, M, W]`` of every state with the same ``actions [M]`` int64."""

    def layer(self, hidden: Hidden) -> Layer | None:
        """The linear layer that gives all outputs, if they come from one: (features, weight, bias)."""
        return None

    def draw_noise(self, generator: np.random.Generator | None) -> None:
        """Draw the noise of noisy maps anew, which stays until the next call; None: no noise, as at the beginning.

        A form without noisy maps draws nothing from the generator.
        """
        for part in self.modules():
            if isinstance(part, FactorisedNoise):
                part.draw(generator)

    @abstractmethod
    def values(self, hidden: Hidden, decode: Decode) -> torch.Tensor:
        """Values ``[B, A]``, decoded some actions at a time.

        Under `torch.no_grad`, outputs ``[B, A, W]`` are never whole in memory.
        """

    @abstractmethod
    def preferences(self, hidden: Hidden, decode: Decode) -> torch.Tensor:
        """Numbers ``[B, A]`` that rank a state's actions as their values do; comparable within a row only."""

    @abstractmethod
    def values_of(self, hidden: Hidden, preference: torch.Tensor, decode: Decode) -> torch.Tensor:
        """The values ``[B, k]`` of actions that have these `preferences` ``[B, k]``."""


class LinearForm(Form):
    """A form whose outputs all come from one linear layer, which a subclass says."""

    @abstractmethod
    def layer(self, hidden: Hidden) -> Layer:
        """Features ``[B, D]``, weight ``[A, W, D]`` and bias ``[A, W]``; see `Form`."""

    def logits(self, hidden: Hidden, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Outputs ``[P, W]``; see `Form`."""
        state, weight, bias = self.layer(hidden)
        actions = weight.shape[0]
        if state.shape[0] * actions <= _DENSE_ACTIONS_PER_PAIR * row.shape[0]:
            outputs = _outputs(state, weight, bias).flatten(0, 1)
            check_within("action", action, actions)
            return outputs.index_select(0, row * actions + action)
        weight, bias = weight.index_select(0, action), bias.index_select(0, action)
        return torch.baddbmm(bias.unsqueeze(-1), weight, state.index_select(0, row).unsqueeze(-1)).squeeze(-1)

    def logits_shared(self, hidden: Hidden, actions: torch.Tensor) -> torch.Tensor:
        """Outputs ``[B, M, W]``; see `Form`."""
        state, weight, bias = self.layer(hidden)
        return _outputs(state, weight.index_select(0, actions), bias.index_select(0, actions))

    def values(self, hidden: Hidden, decode: Decode) -> torch.Tensor:
        """Values ``[B, A]``; see `Form`."""
        state, weight, bias = self.layer(hidden)
        chunk = _actions_at_a_time(state.shape[0], self.width)
        chunks = zip(torch.split(weight, chunk), torch.split(bias, chunk), strict=True)
        return torch.cat([decode(_outputs(state, part, own)) for part, own in chunks], dim=1)

    def preferences(self, hidden: Hidden, decode: Decode) -> torch.Tensor:
        """What ranks the actions, ``[B, A]``; see `Form`."""
        return self.values(hidden, decode)

    def values_of(self, hidden: Hidden, preference: torch.Tensor, decode: Decode) -> torch.Tensor:
        """Values ``[B, k]``; see `Form`."""
        return preference


class FullMap(LinearForm):
    """A linear map from D features to W outputs for each of A actions: ``weight [A, W, D]``, ``bias [A, W]``.

    Args:
        features: D.
        actions: A.
        width: W.
        generator: of the initial weights; they are normal with standard deviation ``scale / sqrt(D)``, biases are 0.
        scale: see `DEFAULT_SCALE`.
        noisy_sigma: of the map's `FactorisedNoise`; None: it has none.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        width: int,
        generator: torch.Generator,
        scale: float = DEFAULT_SCALE,
        noisy_sigma: float | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(normal((actions, width, features), scale / math.sqrt(features), generator))
        self.bias = nn.Parameter(torch.zeros(actions, width))
        self.noise = factorised_noise((actions, width), features, noisy_sigma)

    def layer(self, hidden: Hidden) -> Layer:
        """Features ``[B, D]``, weight and bias; see `Form`."""
        return features(hidden), *noisy(self.noise, self.weight, self.bias)


class Scorer(Protocol):
    """A module that gives each (state, action) pair one number. It must be an `nn.Module` too."""

    def pairs(self, hidden: Hidden, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Scores ``[P]`` of the pairs (state ``row [P]``, ``action [P]``), both int64."""
        ...

    def shared(self, hidden: Hidden, actions: torch.Tensor) -> torch.Tensor:
        """Scores ``[B, M]`` of every state with the same ``actions [M]`` int64."""
        ...

    def all(self, hidden: Hidden) -> torch.Tensor:
        """Scores ``[B, A]``."""
        ...


class LinearScorer(nn.Module):
    """A score linear in the features: ``gain * (weight [A, D] h + bias [A])``.

    Args:
        features: D.
        actions: A.
        generator: of the initial weights; see `FullMap`.
        scale: see `DEFAULT_SCALE`.
        gain: constant factor, which lets weights learn alike at any range of values; see `Tilt`.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        generator: torch.Generator,
        scale: float = DEFAULT_SCALE,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.gain = gain
        self.weight = nn.Parameter(normal((actions, features), scale / math.sqrt(features), generator))
        self.bias = nn.Parameter(torch.zeros(actions))

    def pairs(self, hidden: Hidden, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Scores ``[P]``; see `Scorer`."""
        state = features(hidden).index_select(0, row)
        product = (state * self.weight.index_select(0, action)).sum(-1)
        return self.gain * (product + self.bias.index_select(0, action))

    def shared(self, hidden: Hidden, actions: torch.Tensor) -> torch.Tensor:
        """Scores ``[B, M]``; see `Scorer`."""
        weight, bias = self.weight.index_select(0, actions), self.bias.index_select(0, actions)
        return self.gain * functional.linear(features(hidden), weight, bias)

    def all(self, hidden: Hidden) -> torch.Tensor:
        """Scores ``[B, A]``; see `Scorer`."""
        return self.gain * functional.linear(features(hidden), self.weight, self.bias)


class Tilt(Form):
    """One score per action tilts the state's base distribution: ``logits_k = base_k(h) + score(h, a) centre_k``.

    An exponential family with the value as its statistic: a score of 0 leaves the base, a higher one shifts mass to
    higher bins, so the value rises with the score, the best action is the one with the highest score, and the
    gradient of the cross-entropy in the score is the predicted minus the target mean. An action costs one number, not
    W. Without a support (W = 1) the score is added to the base's number.

    Centres are in grid units, which without a transform are units of value. So a score is in nats per unit of value:
    2 / (vmax - vmin) is a middling one, 1 a huge one if values reach 250.

    Args:
        features: D.
        support: the bins, or None for W = 1.
        scorer: gives the scores; it reads hidden as a whole.
        generator: of the base's initial weights; see `FullMap`.
        scale: see `DEFAULT_SCALE`.

    Raises:
        ValueError: the scorer is no `nn.Module`, so that its weights would not be trained.
    """

    def __init__(
        self,
        features: int,
        support: Support | None,
        scorer: Scorer,
        generator: torch.Generator,
        scale: float = DEFAULT_SCALE,
    ) -> None:
        super().__init__()
        if not isinstance(scorer, nn.Module):
            raise ValueError(f"scorer is a {type(scorer).__name__}: it must be an nn.Module")
        self.width = support.bins if support else 1
        self.support = support
        self.scorer: Scorer = scorer
        self.base_weight = nn.Parameter(normal((self.width, features), scale / math.sqrt(features), generator))
        self.base_bias = nn.Parameter(torch.zeros(self.width))

    def logits(self, hidden: Hidden, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Outputs ``[P, W]``; see `Form`."""
        return self._tilted(self._base(hidden).index_select(0, row), self.scorer.pairs(hidden, row, action))

    def logits_shared(self, hidden: Hidden, actions: torch.Tensor) -> torch.Tensor:
        """Outputs ``[B, M, W]``; see `Form`."""
        return self._tilted(self._base(hidden).unsqueeze(1), self.scorer.shared(hidden, actions))

    def values(self, hidden: Hidden, decode: Decode) -> torch.Tensor:
        """Values ``[B, A]``; see `Form`."""
        return self.values_of(hidden, self.scorer.all(hidden), decode)

    def preferences(self, hidden: Hidden, decode: Decode) -> torch.Tensor:
        """What ranks the actions, ``[B, A]``; see `Form`."""
        return self.scorer.all(hidden)

    def values_of(self, hidden: Hidden, preference: torch.Tensor, decode: Decode) -> torch.Tensor:
        """Values ``[B, k]``; see `Form`."""
        base = self._base(hidden).unsqueeze(1)
        chunk = _actions_at_a_time(base.shape[0], self.width)
        return torch.cat([decode(self._tilted(base, score)) for score in torch.split(preference, chunk, dim=1)], dim=1)

    def _base(self, hidden: Hidden) -> torch.Tensor:
        return functional.linear(features(hidden), self.base_weight, self.base_bias)

    def _tilted(self, base: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
        score = score.unsqueeze(-1)
        return base + (
            score * self.support.grid_centres(dtype=base.dtype, device=base.device) if self.support else score
        )


def normal(shape: tuple[int, ...], deviation: float, generator: torch.Generator) -> torch.Tensor:
    """Initial weights of this shape and standard deviation."""
    return torch.randn(shape, generator=generator) * deviation


def _outputs(state: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``[B, M, W]`` from ``state [B, D]``, ``weight [M, W, D]`` and ``bias [M, W]``."""
    return functional.linear(state, weight.flatten(0, 1), bias.flatten()).reshape(-1, *bias.shape)


def check_within(name: str, index: torch.Tensor, end: int) -> None:
    """Raise IndexError on the CPU unless ``0 <= index < end``: another pair would be taken, or none, without a word."""
    if index.device.type == "cpu" and index.numel() and not 0 <= int(index.min()) <= int(index.max()) < end:
        raise IndexError(f"{name} has values from {int(index.min())} to {int(index.max())}, of {end} {name}s")


def _actions_at_a_time(states: int, width: int) -> int:
    return max(1, _CHUNK_ELEMENTS // (max(states, 1) * width))
