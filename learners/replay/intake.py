"""From one player's rollouts to a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .episodes import EpisodeAssembler
from .frames import FrameIntake
from .replay import Replay
from .transitions import TransitionAssembler


class RolloutIntake:
    """Puts one player's rollouts end to end, and each transition into a replay as soon as it is complete.

    Args:
        replay: where transitions go.
        n_step: steps of return, None for whole episodes.
        discount: of one step.
        observe_episode: is given the rewards of each episode that has ended, and whether it terminated.
        clip_rewards: learn from rewards clipped to [-1, 1], each step's before they are summed; episodes are observed
            so too, for those are the returns that are learnt.
    """

    def __init__(
        self,
        replay: Replay,
        n_step: int | None,
        discount: float,
        observe_episode: Callable[[np.ndarray, bool], None] | None = None,
        *,
        clip_rewards: bool = False,
    ) -> None:
        self._replay = replay
        self._frames = None if replay.frames is None else FrameIntake(replay.frames)
        self._clip_rewards = clip_rewards
        self._transitions = TransitionAssembler(n_step, discount)
        self._episodes = EpisodeAssembler()
        self._observe_episode = observe_episode

    def add(self, columns: Mapping[str, np.ndarray], *, continues: bool) -> None:
        """Take a rollout in.

        Args:
            columns: as `actors.columns` describes them.
            continues: whether row 0 follows on the last rollout; otherwise what was unfinished is forgotten.
        """
        if self._clip_rewards:
            columns = {**columns, "reward": np.clip(columns["reward"], -1.0, 1.0)}
        if self._frames is not None:
            columns = self._frames.add(columns, continues)
        self._replay.insert(self._transitions.add(columns, continues))
        if self._observe_episode is not None:
            for reward, terminated in self._episodes.add(columns, continues):
                self._observe_episode(reward, terminated)
