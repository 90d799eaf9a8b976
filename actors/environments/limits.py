"""How long an episode can be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .config import AtariConfig, EnvironmentConfig, GymnasiumConfig, MinAtarConfig, WordleConfig
from .wordle import MAX_GUESSES


@dataclass(frozen=True)
class EpisodeLimit:
    """The longest episode that there can be.

    Attributes:
        steps: in steps; None where nobody has set a limit.
        cuts_off: whether the episode is truncated there, so that its last state still has a value, rather than over.
    """

    steps: int | None
    cuts_off: bool


def episode_limit(config: EnvironmentConfig) -> EpisodeLimit:
    """Of this environment's episodes. Raises ValueError where there is no such environment."""
    match config:
        case WordleConfig():
            return EpisodeLimit(MAX_GUESSES, cuts_off=False)
        case GymnasiumConfig():
            from .gymnasium_vector import gymnasium_episode_steps

            return EpisodeLimit(
                gymnasium_episode_steps(config.id, config.kwargs, config.max_episode_steps), cuts_off=True
            )
        case AtariConfig():
            return EpisodeLimit(math.ceil(config.max_episode_frames / config.frame_skip), cuts_off=True)
        case MinAtarConfig():
            return EpisodeLimit(config.max_episode_steps, cuts_off=True)
    return EpisodeLimit(None, cuts_off=True)
