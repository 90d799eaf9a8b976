"""From a config to the parts of a run. Local and distributed runs are built by the same functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from ..actors.environments.build import build_environment, environment_spec
from ..actors.environments.config import WordleConfig
from ..actors.environments.limits import episode_limit
from ..actors.environments.wordle.vocabulary import WordSplit, load_words, split_words
from ..actors.pools.contract import Failures, Pool
from ..actors.pools.hosts import hosts_of_one
from ..actors.pools.in_process import InProcessPool
from ..actors.worker import WorkerSpec, epsilon_exponents, worker_factories
from ..learners.encodings.spec import EnvironmentSpec
from ..learners.learner import Exploration
from ..learners.networks.config import WordNetworkConfig
from ..learners.networks.value_module import build_value_module
from ..learners.policy import build_policy
from ..learners.q_learning import QLearner
from ..learners.randomness import stream, torch_generator
from ..learners.replay.frames import FrameStore
from ..learners.replay.intake import RolloutIntake
from ..learners.replay.replay import Replay
from ..learners.values.returns import ReturnBounds
from ..schedulers import CompassSplit, EqualSplit
from ..schedulers.rollouts import RolloutScheduler
from .config.files import ConfigError
from .config.run import RunConfig


def word_split(config: RunConfig) -> WordSplit | None:
    """Wordle's words by what training sees of them; None for other environments."""
    if not isinstance(config.environment, WordleConfig):
        return None
    return split_words(load_words(config.environment.word_list), config.environment)


def build_spec(config: RunConfig) -> EnvironmentSpec:
    """What the environment tells about itself. Raises ValueError where there is no such environment."""
    return environment_spec(config.environment)


def check_parts(config: RunConfig) -> None:
    """Find out whether environment, encoding and network can be built, and go together.

    Raises:
        ValueError: there is no such environment, or the network cannot read it.
        PluginError: own code is not what it must be.
    """
    spec = build_spec(config)
    # A range that the first games are to give is not there yet, and any will do here.
    value = config.value.with_any_range() if config.value.awaits_range else config.value
    build_value_module(config.network, value, spec, torch_generator(stream(0, "try-out")), config.encoding)


def build_learner(config: RunConfig, spec: EnvironmentSpec, trained: np.ndarray | None = None) -> QLearner:
    """The learner at its beginning.

    Args:
        config: the run's.
        spec: of what it learns to play.
        trained: ``[M] int64``, the actions that training may see; None: of Wordle's words those that the config's
            split leaves for training, elsewhere all.
    """
    if trained is None and (split := word_split(config)) is not None:
        trained = split.train
    weights = torch_generator(stream(config.seed, "first weights"))
    module = build_value_module(config.network, config.value, spec, weights, config.encoding, trained)
    module.half_products = config.learner.precision == "bf16"
    if config.learner.channels_last:
        module.torso.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return QLearner(
        module,
        config.learner,
        stream(config.seed, "learner"),
        contrast_actions=trained,
        returns=return_bounds(config) if config.value.normalise_returns else None,
        device=config.device,
    )


def return_bounds(config: RunConfig) -> ReturnBounds:
    """Bounds of the returns that the run's targets are, before any episode."""
    limit = episode_limit(config.environment)
    # Where a cut-off game's last state is given a value, returns go on behind it.
    bootstrapped = limit.cuts_off and config.replay.returns != "monte_carlo" and config.replay.discount < 1
    return ReturnBounds(config.replay.discount, None if bootstrapped else limit.steps)


def build_replay(config: RunConfig, spec: EnvironmentSpec, players: int = 1) -> Replay:
    """An empty replay.

    Args:
        config: the run's.
        spec: of the environment. With a history its frames are kept apart, each once.
        players: workers whose rollouts it takes in.
    """
    replay = config.replay
    frames, in_hand = None, 0
    if spec.history > 1 and replay.returns == "monte_carlo":
        raise ConfigError(
            f"replay.returns is monte_carlo, and of {spec.name} {spec.history} frames are seen together, which are "
            "kept no longer than an n-step return needs them: set replay.returns=n_step"
        )
    if spec.history > 1:
        in_hand = _frames_in_hand(config, spec, players)
        frames = FrameStore(frames_kept(config, spec, players), spec)
    return Replay(
        replay.capacity,
        replay.batch_size,
        stream(config.seed, "replay"),
        merge_equal=replay.returns == "monte_carlo" and isinstance(config.network, WordNetworkConfig),
        frames=frames,
        frames_in_hand=in_hand,
        priority_exponent=replay.priority_exponent if replay.sampling == "prioritised" else None,
        importance_exponent=replay.importance_exponent,
    )


def frames_kept(config: RunConfig, spec: EnvironmentSpec, players: int) -> int:
    """Frames for a full replay: one a transition, those at episodes' ends, and what players may have in hand."""
    return config.replay.capacity + config.replay.capacity // 64 + _frames_in_hand(config, spec, players)


def _frames_in_hand(config: RunConfig, spec: EnvironmentSpec, players: int) -> int:
    """What all players may add between a transition's oldest frame and the transition."""
    actors, steps = config.actors, config.replay.return_steps or 0
    # A rollout is whole vector steps, and one row more at its beginning.
    rollout = actors.steps_per_assignment + 2 * actors.envs_per_worker
    # The player's own window and return, and two rollouts of everybody while it plays its own.
    return (spec.history + steps) * actors.envs_per_worker * players + 2 * (
        1 + actors.assignments_in_flight
    ) * players * rollout


def evaluation_episodes(config: RunConfig) -> int:
    """Episodes of one evaluation in a run: in Wordle each validation word once."""
    split = word_split(config)
    return config.evaluation.episodes if split is None else len(split.validation)


def needs_legal(config: RunConfig, spec: EnvironmentSpec) -> bool:
    """Whether rollouts must tell which actions were legal: for the best next action, where values are bootstrapped."""
    return spec.has_legal and config.replay.returns != "monte_carlo"


def build_intake(
    config: RunConfig, replay: Replay, observe_episode: Callable[[np.ndarray, bool], None] | None = None
) -> RolloutIntake:
    """What makes transitions of one player's rollouts and puts them into a replay."""
    return RolloutIntake(
        replay,
        config.replay.return_steps,
        config.replay.discount,
        observe_episode,
        clip_rewards=config.replay.clip_rewards,
    )


def build_worker_spec(config: RunConfig, spec: EnvironmentSpec) -> WorkerSpec:
    """What every worker is built from, wherever it runs."""
    return WorkerSpec(
        environment=partial(build_environment, config.environment),
        policy=partial(
            build_policy, config.network, config.value, spec, config.learner.exploration_top, config.encoding
        ),
        num_envs=config.actors.envs_per_worker,
        evaluation_purpose="validation",
        seed=config.seed,
        record_legal=needs_legal(config, spec),
        evaluation_exploration=Exploration(epsilon=config.evaluation.epsilon),
        seconds_per_step=config.actors.seconds_per_step,
        epsilon_exponents=epsilon_exponents(config.actors.workers, config.actors.epsilon_spread),
    )


def build_scheduler(config: RunConfig, attempt: int) -> RolloutScheduler:
    """Who plays how much."""
    actors = config.actors
    if actors.split == "equal":
        return EqualSplit(attempt, actors.steps_per_assignment, actors.assignments_in_flight)
    return CompassSplit(
        attempt,
        actors.q_min,
        actors.steps_per_assignment,
        quantum=min(actors.envs_per_worker, actors.steps_per_assignment),
        in_flight=actors.assignments_in_flight,
    )


def build_pool(config: RunConfig, spec: EnvironmentSpec, clock: Callable[[], float]) -> Pool:
    """The pool that the config asks for. A Ray pool needs a Ray that is initialised."""
    failures: Failures = "raise" if config.deterministic else "retry"
    worker_spec = build_worker_spec(config, spec)
    workers = worker_factories(worker_spec, config.actors.workers)
    if config.actors.pool == "in_process":
        return InProcessPool(workers, clock=clock, failures=failures)
    # Ray is loaded only by runs that use it.
    from ..actors.pools.ray_pool import RayPool

    hosts = hosts_of_one(
        workers,
        max_restarts=config.actors.max_restarts,
        label_selector=config.actors.label_selector,
        torch_threads=worker_spec.torch_threads,
        setting="actors.label_selector",
    )
    return RayPool(hosts, clock=clock, failures=failures, hangs_after=config.actors.hangs_after_seconds)
