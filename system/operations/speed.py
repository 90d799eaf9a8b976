"""How fast this machine learns and acts: the Wordle preset's network on games of its data policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ...actors.environments.build import build_environment
from ...actors.rollout import Rollout
from ...learners.learner import Exploration
from ...learners.randomness import stream
from ...learners.replay.transitions import TransitionAssembler
from ..builder import build_learner, build_replay, build_spec
from ..config.files import load_config
from ..config.run import RunConfig
from ..training.offline_games import record_offline_games

_GAMES_STEPS = 8192
_PROGRESS = 0.5
"""Share of the preset's run whose learning rate and exploration are used."""


@dataclass(frozen=True)
class Speed:
    """Medians of repeated short measurements, with nothing else of Isogon at work.

    Attributes:
        updates_per_second: of the learner; each samples a batch and makes one step of the optimiser.
        boards_per_second: boards acted on by one actor, the environment's own time included.
        threads: that torch used.
        seconds: that measuring took, building included.
    """

    updates_per_second: float
    boards_per_second: float
    threads: int
    seconds: float


def time_machine(seconds: float = 5.0) -> Speed:
    """Measure for about ``seconds``, half of it learning, half acting; building takes a second or two more.

    Raises:
        ValueError: ``seconds`` is not above 0.
    """
    if not seconds > 0:
        raise ValueError(f"seconds is {seconds}: it must be above 0")
    began = time.perf_counter()
    config = load_config("wordle")
    threads = torch.get_num_threads()
    torch.set_num_threads(config.torch_threads)
    try:
        updates = _median_rate(_learning(config), seconds / 2)
        boards = _median_rate(_acting(config), seconds / 2)
    finally:
        torch.set_num_threads(threads)
    return Speed(updates, boards, config.torch_threads, time.perf_counter() - began)


def _learning(config: RunConfig) -> Callable[[], int]:
    environment, offline = config.environment, config.offline
    assert environment.kind == "wordle"
    assert offline is not None
    few = offline.model_copy(update={"steps": _GAMES_STEPS})
    games = record_offline_games(environment, few, config.seed, record_legal=False)
    spec = build_spec(config)
    replay = build_replay(config, spec)
    replay.insert(TransitionAssembler(None, config.replay.discount).add(games, continues=False))
    learner = build_learner(config, spec)

    def update() -> int:
        learner.update(replay.next_batch(), progress=_PROGRESS)
        return 1

    return update


def _acting(config: RunConfig) -> Callable[[], int]:
    policy = build_learner(config, build_spec(config)).policy()
    environment = build_environment(config.environment, "train", config.actors.envs_per_worker)
    rollout = Rollout(environment, stream(config.seed, "speed"))
    explore = Exploration(config.actors.epsilon.at(_PROGRESS), config.actors.temperature.at(_PROGRESS))
    generator = stream(config.seed, "speed", 1)
    policy.draw_noise(generator)
    steps = config.actors.steps_per_assignment
    return lambda: int(rollout.run(policy.act, steps, explore, generator, version=0)["valid"].sum())


def _median_rate(work: Callable[[], int], seconds: float) -> float:
    """What ``work`` gives in a second, after one call to warm up; at least three calls are timed."""
    work()
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while len(rates) < 3 or time.perf_counter() < end:
        before = time.perf_counter()
        amount = work()
        rates.append(amount / (time.perf_counter() - before))
    return float(np.median(rates))
