"""The range of values from a run's first games, for ends of it that are ``auto``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch

from ...actors.columns import Columns
from ...actors.environments.build import build_environment
from ...actors.rollout import Rollout
from ...learners.encodings.spec import EnvironmentSpec
from ...learners.learner import Exploration
from ...learners.networks.value_module import build_value_module
from ...learners.policy import QPolicy
from ...learners.randomness import stream, torch_generator
from ...learners.replay.episodes import EpisodeAssembler, EpisodeRewards
from ...learners.values.config import ValueConfig
from ...learners.values.presets import support_of
from ...learners.values.returns import ReturnBounds, range_around
from ..builder import return_bounds
from ..config.files import ConfigError
from ..config.run import RunConfig

_ROWS = 64
_MOST_STEPS_AN_EPISODE = 1_000
"""On average: longer games are looked at as far as they have come."""


def find_range(
    config: RunConfig, spec: EnvironmentSpec, offline: Columns | None, say: Callable[[str], None]
) -> RunConfig:
    """The config with the range that its first games give; it depends on the config and its seed alone.

    Args:
        config: of which an end of the range is ``auto``.
        spec: of its environment.
        offline: the offline games, where the run has them: they are the first. Otherwise the untrained policy plays, as
            the run's actors do at its beginning.
        say: is told the range and what it comes from.

    Raises:
        ConfigError: the games show no reward but 0, or the end that is set by hand leaves no range.
    """
    value = config.value
    wanted = value.range_from_games.episodes
    bounds = return_bounds(config)
    games = first_episodes(offline, wanted) if offline is not None else play_first_games(config, spec, wanted)
    for reward, terminated in games:
        bounds.observe(reward, terminated)
    if not bounds.episodes:
        raise ConfigError("no game was played to its end: set value.vmin and value.vmax to numbers")
    try:
        low, high = range_around(bounds.bounds(), value.range_from_games.margin)
    except ValueError as error:
        raise ConfigError(
            f"value.vmin or value.vmax is auto, and in the first {bounds.episodes} games {error}: set both to "
            "numbers, or value.range_from_games.episodes higher"
        ) from error
    found = value.model_copy(update={"found_range": _in_grid_units(value, low, high)})
    try:
        support_of(found)
    except ValueError as error:
        raise ConfigError(f"the first games give a range from {low:g} to {high:g}, and {error}") from error
    say(_told(bounds, found, "offline games" if offline is not None else "games by the untrained policy"))
    return config.model_copy(update={"value": found})


def first_episodes(columns: Columns, count: int) -> Iterator[EpisodeRewards]:
    """The first ``count`` whole episodes of a recording, as many of each environment as of any other."""
    envs = min(count, columns["valid"].shape[1])
    # The oldest of each environment: taking those that ended first would favour short ones.
    for env in range(envs):
        ended = EpisodeAssembler().add(_column(columns, env), continues=False)
        yield from islice(ended, len(range(env, count, envs)))


def play_first_games(config: RunConfig, spec: EnvironmentSpec, count: int) -> Iterator[EpisodeRewards]:
    """``count`` episodes by the untrained policy, exploring as the run begins; as many of each environment."""
    environment = build_environment(config.environment, "train", min(config.actors.envs_per_worker, count))
    envs = environment.num_envs
    rollout = Rollout(environment, stream(config.seed, "first games"))
    policy, explore = _untrained(config, spec), stream(config.seed, "first games, exploring")
    exploration = Exploration(config.actors.epsilon.at(0.0), config.actors.temperature.at(0.0))
    assemblers = [EpisodeAssembler() for _ in range(envs)]
    lacking = np.array([len(range(env, count, envs)) for env in range(envs)])
    steps = 0
    while lacking.any() and steps < count * _MOST_STEPS_AN_EPISODE:
        policy.draw_noise(explore)
        columns = rollout.run(policy.act, envs * _ROWS, exploration, explore, version=0)
        steps += envs * _ROWS
        for env in np.flatnonzero(lacking).tolist():
            for episode in islice(assemblers[env].add(_column(columns, env), continues=True), int(lacking[env])):
                lacking[env] -= 1
                yield episode
    environment.close()
    for env in np.flatnonzero(lacking).tolist():
        yield from ((reward, False) for reward in assemblers[env].unfinished())


def clipping_advice(config: RunConfig) -> str:
    """What to tell of targets that are outside the range: the rest of a sentence that begins with their share."""
    value = config.value
    support = support_of(value)
    if support is None:
        return "are outside the range"
    ends = f"{support.lowest:g} to {support.highest:g}"
    if value.normalise_returns:
        return (
            f"lie outside the range, {ends} of the returns' scale, and are clipped to it: in a new run set value.vmin "
            "and value.vmax wider"
        )
    if value.found_range is not None:
        return (
            f"lie outside the range, {ends}, which the first games gave, and are clipped to it: in a new run set "
            "value.vmin and value.vmax to numbers of your own, or value.range_from_games.margin higher"
        )
    return (
        f"lie outside the range, {ends}, and are clipped to it, so that what is better looks the same: in a new run "
        "set value.vmin and value.vmax wider, or to auto, which finds them from the first games"
    )


def _column(columns: Columns, env: int) -> Columns:
    return {name: columns[name][:, env : env + 1] for name in ("reward", "terminated", "truncated", "valid")}


def _untrained(config: RunConfig, spec: EnvironmentSpec) -> QPolicy:
    # Where values lie between any two ends, the same weights have the same best action.
    value = config.value.with_any_range()
    weights = torch_generator(stream(config.seed, "first weights"))
    return QPolicy(
        build_value_module(config.network, value, spec, weights, config.encoding), config.learner.exploration_top
    )


def _in_grid_units(value: ValueConfig, low: float, high: float) -> tuple[float | None, float | None]:
    """The ends that are auto, in the units that vmin and vmax have; None for one that is not."""
    support = support_of(value.with_any_range())
    assert support is not None
    ends = support.to_grid(torch.tensor([low, high], dtype=torch.float64))
    return float(ends[0]) if value.vmin == "auto" else None, float(ends[1]) if value.vmax == "auto" else None


def _told(bounds: ReturnBounds, value: ValueConfig, whose: str) -> str:
    support = support_of(value)
    assert support is not None
    low, high = bounds.bounds()
    seen_low, seen_high = bounds.seen()
    return (
        f"values range from {support.lowest:g} to {support.highest:g}: {bounds.episodes} {whose} returned "
        f"{seen_low:.4g} to {seen_high:.4g}; the longest ones with such rewards would return {low:.4g} to {high:.4g}"
    )
