"""From one player's rollouts to a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .episodes import EpisodeAssembler
from .transitions import TransitionAssembler
from .uniform import UniformReplay


class RolloutIntake:
    """Puts one player's rollouts end to end, and each transition into a replay as soon as it is complete.

    Args:
        replay: where transitions go.
        n_step: steps of return, None for whole episodes.
        discount: of one step.
        observe_episode: is given the rewards of each episode that has ended, and whether it terminated.
    """

    def __init__(
        self,
        replay: UniformReplay,
        n_step: int | None,
        discount: float,
        observe_episode: Callable[[np.ndarray, bool], None] | None = None,
    ) -> None:
        self._replay = replay
        self._transitions = TransitionAssembler(n_step, discount)
        self._episodes = EpisodeAssembler()
        self._observe_episode = observe_episode

    def add(self, columns: Mapping[str, np.ndarray], *, continues: bool) -> None:
        """Take a rollout in.

        Args:
            columns: as `actors.columns` describes them.
            continues: whether row 0 follows on the last rollout; otherwise what was unfinished is forgotten.
        """
        transitions = self._transitions.add(columns, continues)
        if len(transitions["action_tm1"]):
            self._replay.insert(transitions)
        if self._observe_episode is not None:
            for reward, terminated in self._episodes.add(columns, continues):
                self._observe_episode(reward, terminated)
