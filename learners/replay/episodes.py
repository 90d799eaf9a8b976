"""Rollout columns to the rewards of whole episodes. T steps, N environments; columns as `actors.columns` has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

EpisodeRewards = tuple[np.ndarray, bool]
"""Rewards ``[L] float32`` of an episode's steps, and whether it terminated, rather than being cut off."""


class EpisodeAssembler:
    """Puts one worker's rollouts end to end and gives each episode's rewards when it has ended."""

    def __init__(self) -> None:
        self._open: list[np.ndarray] = []

    def add(self, columns: Mapping[str, np.ndarray], continues: bool) -> Iterator[EpisodeRewards]:
        """Take a rollout in, give the episodes that ended in it: environment by environment, oldest first.

        Args:
            columns: ``reward, terminated, truncated, valid [T, N]`` are read.
            continues: whether row 0 follows on the last rollout; otherwise what was unfinished is forgotten.
        """
        envs = columns["valid"].shape[1]
        if not continues or len(self._open) != envs:
            self._open = [np.zeros(0, np.float32)] * envs
        for env in range(envs):
            valid = columns["valid"][:, env]
            reward, terminated = columns["reward"][valid, env], columns["terminated"][valid, env]
            begin = 0
            for last in np.flatnonzero(terminated | columns["truncated"][valid, env]).tolist():
                yield np.concatenate([self._open[env], reward[begin : last + 1]]), bool(terminated[last])
                self._open[env] = np.zeros(0, np.float32)
                begin = last + 1
            self._open[env] = np.concatenate([self._open[env], reward[begin:]])

    def unfinished(self) -> list[np.ndarray]:
        """Rewards so far of the episodes that have begun and not ended."""
        return [rewards for rewards in self._open if rewards.size]
