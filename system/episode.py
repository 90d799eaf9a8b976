"""An episode to look at: what was on the screen, and what the policy thought the chosen action was worth.

K is the number of bins, T of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..actors.environments.build import build_shown
from ..actors.environments.config import AtariConfig, MinAtarConfig
from ..learners.encodings.history import History
from ..learners.learner import Exploration
from ..learners.policy import QPolicy
from ..learners.randomness import stream
from .config.run import RunConfig

_ATARI_SECONDS = 1 / 60
_MINATAR_SECONDS = 0.1


@dataclass(frozen=True)
class Shot:
    """One step.

    Attributes:
        screen: ``uint8 [H, W, 3]``, as the policy saw it in its own way.
        probabilities: ``[K]`` of the chosen action's value; None where values are plain numbers.
        value: of the chosen action, in units of return as the learner has them (clipped rewards, discounted).
        action: chosen.
        reward: that followed.
        total: return up to and with it, undiscounted.
        step: from 0.
    """

    screen: np.ndarray
    probabilities: np.ndarray | None
    value: float
    action: int
    reward: float
    total: float
    step: int


@dataclass(frozen=True)
class Episode:
    """Steps of one episode.

    Attributes:
        game: its name.
        shots: every ``every``-th step, and the last.
        every: how many steps lie between two shots.
        seconds: that a step takes in the game.
        edges: ``[K + 1]`` of the bins in units of return; None where there are no bins.
        length: T.
        total: its return.
    """

    game: str
    shots: tuple[Shot, ...]
    every: int
    seconds: float
    edges: np.ndarray | None
    length: int
    total: float


def play_to_show(config: RunConfig, policy: QPolicy, *, most: int = 400) -> Episode:
    """Play one episode as evaluations do.

    Args:
        config: of a run on Atari or MinAtar.
        policy: its own.
        most: shots that are kept at most; of a longer episode every second, fourth, ... step is shown.

    Raises:
        ValueError: the environment has no screen.
    """
    environment = build_shown(config.environment)
    generator = stream(config.seed, "an episode to show")
    exploration = Exploration(epsilon=config.evaluation.epsilon)
    history = History(environment.spec, 1)
    seen = history.add(environment.reset(generator), np.ones(1, bool))
    shots: list[Shot] = []
    every, step, total, over = 1, 0, 0.0, False
    while not over:
        screen = environment.screen()
        action = policy.act(seen, None, exploration, generator)
        value, probabilities = _worth(policy, seen, action)
        taken = environment.step(action)
        total += float(taken.reward[0])
        over = bool(taken.terminated[0] | taken.truncated[0])
        if step % every == 0 or over:
            shots.append(Shot(screen, probabilities, value, int(action[0]), float(taken.reward[0]), total, step))
        if len(shots) > most:
            every *= 2
            shots = [shot for shot in shots if shot.step % every == 0]
        seen = history.add(taken.observation, np.zeros(1, bool))
        step += 1
    environment.close()
    edges = policy.module.head.edges()
    return Episode(
        environment.spec.name,
        tuple(shots),
        every,
        _seconds(config),
        None if edges is None else edges.numpy(),
        step,
        total,
    )


@torch.no_grad()
def _worth(policy: QPolicy, seen: object, action: np.ndarray) -> tuple[float, np.ndarray | None]:
    assert isinstance(seen, dict)
    head, chosen = policy.module.head, torch.from_numpy(action)
    hidden = policy.module.encode({name: torch.from_numpy(part) for name, part in seen.items()})
    value = float(head.values_at(hidden, chosen[:, None])[0, 0])
    return value, None if head.edges() is None else head.distribution(hidden, chosen)[0].numpy()


def _seconds(config: RunConfig) -> float:
    match config.environment:
        case AtariConfig():
            return config.environment.frame_skip * _ATARI_SECONDS
        case MinAtarConfig():
            return _MINATAR_SECONDS
    raise AssertionError(f"an environment of kind {config.environment.kind} has a screen")
