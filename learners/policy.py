"""Acting by values: greedy, epsilon-greedy, or by a softmax over the best actions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from .encodings.custom import EncodingConfig
from .encodings.spec import EnvironmentSpec
from .learner import Exploration
from .networks.config import NetworkConfig
from .networks.value_module import ValueModule, build_value_module, check_fit
from .replay.replay import distinct_rows
from .values.config import ValueConfig


class QPolicy:
    """The acting half of a Q-learner. N is the number of observations acted on together.

    With a temperature the action is drawn from a softmax over the ``top`` best legal actions' values; then, with
    probability epsilon, it is replaced by a uniformly drawn legal one. Where returns are normalised, the temperature
    is in units of their scale: rewards a thousand times as large are explored alike. Where the torso says that
    observations repeat, equal ones are encoded once. Noisy layers are quiet until `draw_noise`.
    """

    def __init__(self, module: ValueModule, top: int) -> None:
        self.module = module.eval()
        self.top = min(top, module.num_actions)
        self._unit = self._temperature_unit()
        self.draw_noise(None)

    @torch.no_grad()
    def act(
        self,
        observation: Mapping[str, np.ndarray],
        legal: np.ndarray | None,
        exploration: Exploration,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """Actions ``[N] int64``; see `learner.Policy`."""
        count = len(next(iter(observation.values())))
        if count == 0:
            return np.zeros(0, np.int64)
        first, inverse = self._distinct(observation, legal)
        mask = None if legal is None else torch.from_numpy(legal[first])
        hidden = self.module.encode({name: torch.from_numpy(part[first]) for name, part in observation.items()}, mask)
        if exploration.temperature > 0:
            values, best = self.module.head.top(hidden, mask, self.top)
            temperature = exploration.temperature * self._unit
            action = _softmax_draw(values.numpy()[inverse], best.numpy()[inverse], temperature, generator)
        else:
            action = self.module.head.best(hidden, mask)[1].numpy()[inverse]
        if exploration.epsilon > 0:
            action = _mixed_with_uniform(action, legal, self.module.num_actions, exploration.epsilon, generator)
        return action

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take over published weights. Raises ValueError for other names or shapes."""
        check_fit("published weights are", tensors, self.module.state_dict())
        self.module.load_state_dict({name: torch.from_numpy(np.array(part)) for name, part in tensors.items()})
        self._unit = self._temperature_unit()

    def draw_noise(self, generator: np.random.Generator | None) -> None:
        """Draw the noise of noisy layers anew; see `learner.Policy`."""
        self.module.head.form.draw_noise(generator)

    def _temperature_unit(self) -> float:
        scale = self.module.head.scale
        return 1.0 if scale is None else float(scale)

    def _distinct(
        self, observation: Mapping[str, np.ndarray], legal: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if not self.module.torso.observations_repeat:
            everything = np.arange(len(next(iter(observation.values()))))
            return everything, everything
        packed = {} if legal is None else {"legal": np.packbits(legal, axis=1)}
        return distinct_rows({**observation, **packed})


def build_policy(
    network: NetworkConfig,
    value: ValueConfig,
    spec: EnvironmentSpec,
    top: int,
    encoding: EncodingConfig | None = None,
) -> QPolicy:
    """A policy with arbitrary weights, which waits for published ones; raises ValueError as `build_value_module`."""
    return QPolicy(build_value_module(network, value, spec, torch.Generator().manual_seed(0), encoding), top)


def _softmax_draw(
    values: np.ndarray, actions: np.ndarray, temperature: float, generator: np.random.Generator
) -> np.ndarray:
    # The Gumbel-max trick draws from all rows' softmaxes at once; values of -inf (no such legal action) never win.
    noisy = values / temperature + generator.gumbel(size=values.shape)
    picked: np.ndarray = actions[np.arange(len(actions)), noisy.argmax(axis=1)]
    return picked


def _mixed_with_uniform(
    action: np.ndarray, legal: np.ndarray | None, num_actions: int, epsilon: float, generator: np.random.Generator
) -> np.ndarray:
    stray = np.flatnonzero(generator.random(len(action)) < epsilon)
    action = action.copy()
    if legal is None:
        action[stray] = generator.integers(num_actions, size=len(stray))
    else:
        action[stray] = np.where(legal[stray], generator.random((len(stray), num_actions)), -1.0).argmax(axis=1)
    return action
