"""A federation that learns values: Wordle with words of each client's own, or environments with dynamics of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ...actors.environments.build import build_environment, environment_spec
from ...actors.environments.config import EnvironmentConfig, WordleConfig, varied
from ...actors.environments.contract import VectorEnvironment
from ...actors.environments.wordle import WordleEnvironment, build_vocabulary, wordle_spec
from ...actors.evaluation import play_episodes
from ...actors.federation.client import FederatedClient, Model, Silo
from ...actors.federation.silo_words import silo_words
from ...actors.federation.value_client import ValueClient
from ...actors.federation.value_config import EnvironmentSilos, WordleSilos
from ...actors.offline_games import record_wordle_games
from ...learners.encodings.spec import EnvironmentSpec
from ...learners.learner import AverageKind, SharedTensors
from ...learners.policy import QPolicy, build_policy
from ...learners.randomness import stream
from ..builder import build_intake, build_learner, build_replay, build_spec, needs_legal
from ..config.run import RunConfig
from ..evaluation import play_evaluation, solved_share
from .value_task_config import ValueTaskConfig

_TEST_ENVS = 16


class ValueTask:
    """A `FederatedTask`. In another process it is made anew from config and seed.

    The server evaluates by words that no client has, every word of the list being there to guess; elsewhere by all
    clients' environments alike.

    Args:
        config: what is learnt.
        seed: the run's: of the first weights and of the server's evaluations. A client's streams come of `Silo.seed`.
    """

    def __init__(self, config: ValueTaskConfig, seed: int) -> None:
        self._config = config
        self._seed = seed

    def __reduce__(self) -> tuple[type[ValueTask], tuple[ValueTaskConfig, int]]:
        return ValueTask, (self._config, self._seed)

    def check_silos(self) -> None:
        """Find out whether one network can serve all clients' environments.

        Raises:
            ValueError: one cannot be made, or has other observations or actions than ``environment``.
        """
        silos = self._config.silos
        if not isinstance(silos, EnvironmentSilos):
            return
        base = environment_spec(self._config.environment)
        for index, config in enumerate(self._environments(silos)):
            try:
                own = environment_spec(config)
            except ValueError as error:
                raise ValueError(f"silos.kwargs[{index}]: {error}") from error
            if own.num_actions != base.num_actions:
                raise ValueError(
                    f"silos.kwargs[{index}] is {own.name} with {own.num_actions} actions, and environment {base.name} "
                    f"with {base.num_actions}: one network cannot serve both; give them the same actions, games by "
                    "environment.full_action_space=true"
                )
            if (own.observation, own.history) != (base.observation, base.history):
                raise ValueError(
                    f"silos.kwargs[{index}] is {own.name}, whose observations are {_shapes(own)}, and those of "
                    f"{base.name} are {_shapes(base)}: one network cannot serve both; give them the same, games of "
                    "MinAtar by environment.planes=10"
                )

    def initial_model(self) -> Model:
        """The first weights, by seed."""
        return {name: part.numpy().copy() for name, (part, _) in self._shared.items()}

    def kinds(self) -> Mapping[str, AverageKind]:
        """How each tensor is averaged."""
        return {name: kind for name, (_, kind) in self._shared.items()}

    def make_client(self, silo: Silo) -> FederatedClient:
        """A client, which computes with one thread: it shares its machine with others.

        Raises:
            ValueError: it has too few words; an environment that cannot be made; another number of clients than the
                config has silos for.
        """
        torch.set_num_threads(1)
        # All streams of a client but its assignments' are those of a run with a seed of its own.
        config = self._config.run_config(int(stream(silo.seed, "federated client", silo.index).integers(2**63)))
        silos = self._config.silos
        if isinstance(silos, WordleSilos):
            return self._wordle_client(config, silos, silo)
        return self._environment_client(config, silos, silo)

    def evaluate(self, model: Model) -> Mapping[str, float]:
        """``score``, the mean greedy return: over Wordle's validation words, or over the clients' environments."""
        self._policy.load_tensors(model)
        silos = self._config.silos
        if isinstance(silos, EnvironmentSilos):
            return self._by_environment(silos, "federated evaluation")
        environment = self._validation
        generator = stream(self._seed, "federated evaluation")
        returns = play_episodes(environment, self._policy.act, environment.num_envs, generator)["return"]
        return {"score": _mean(returns), "solved": solved_share(returns)}

    def evaluate_final(self, model: Model) -> Mapping[str, float]:
        """What reports say of the last model; by ``score`` nothing was chosen.

        In Wordle ``score`` is ``never_seen_return``, and there are ``<set>_return`` and ``<set>_solved`` for the sets
        ``never_seen``, ``seen`` and ``validation``; elsewhere `evaluate`'s figures over new episodes.
        """
        self._policy.load_tensors(model)
        silos = self._config.silos
        if isinstance(silos, EnvironmentSilos):
            return self._by_environment(silos, "federated final evaluation")
        figures: dict[str, float] = {}
        for purpose, scores in play_evaluation(self._run, self._policy).items():
            figures[f"{purpose}_return"] = _mean(scores["return"])
            figures[f"{purpose}_solved"] = solved_share(scores["return"])
        return {"score": figures["never_seen_return"], **figures}

    def _wordle_client(self, config: RunConfig, silos: WordleSilos, silo: Silo) -> ValueClient:
        assert isinstance(config.environment, WordleConfig)
        words = silo_words(config.environment, silos, silo)
        vocabulary = build_vocabulary(words.all)
        train = np.arange(len(words.train))
        test = np.arange(len(words.train), len(words.all))
        spec = wordle_spec(vocabulary.words)
        record_legal = needs_legal(config, spec)
        games, offline = None, self._config.offline
        if offline is not None:
            generator = stream(config.seed, "offline games")
            games = record_wordle_games(vocabulary, train, offline, generator, record_legal=record_legal)
        return self._client(
            config,
            spec,
            environment=WordleEnvironment(vocabulary, train, self._config.client.envs, guesses=train),
            test_environment=WordleEnvironment(vocabulary, test),
            samples=len(train),
            trained=train,
            first_games=games,
        )

    def _environment_client(self, config: RunConfig, silos: EnvironmentSilos, silo: Silo) -> ValueClient:
        if silos.clients != silo.clients:
            raise ValueError(
                f"silos.kwargs has {silos.clients} entries and there are {silo.clients} clients: give one each"
            )
        config = config.model_copy(update={"environment": self._environments(silos)[silo.index]})
        return self._client(
            config,
            build_spec(config),
            environment=build_environment(config.environment, "train", self._config.client.envs),
            test_environment=build_environment(config.environment, "validation", _TEST_ENVS),
            samples=1,
        )

    def _client(
        self, config: RunConfig, spec: EnvironmentSpec, *, trained: np.ndarray | None = None, **parts: Any
    ) -> ValueClient:
        replay = build_replay(config, spec)
        return ValueClient(
            self._config.client,
            learner=build_learner(config, spec, trained),
            replay=replay,
            intake=build_intake(config, replay),
            policy=_build_policy(config, spec),
            min_replay=config.replay.min_size,
            record_legal=needs_legal(config, spec),
            **parts,
        )

    def _environments(self, silos: EnvironmentSilos) -> list[EnvironmentConfig]:
        """The clients' environments, in their order. Raises ValueError for arguments that do not fit."""
        made = []
        for index, own in enumerate(silos.kwargs):
            try:
                made.append(varied(self._config.environment, own))
            except ValueError as error:
                raise ValueError(f"silos.kwargs[{index}]: {error}") from error
        return made

    def _by_environment(self, silos: EnvironmentSilos, role: str) -> dict[str, float]:
        figures: dict[str, float] = {}
        for index, config in enumerate(self._environments(silos)):
            environment = build_environment(config, "validation", _TEST_ENVS)
            generator = stream(self._seed, role, index)
            figures[f"return_{index}"] = _mean(
                play_episodes(environment, self._policy.act, silos.episodes, generator)["return"]
            )
            environment.close()
        return {"score": float(np.mean(list(figures.values()))), **figures}

    # What the server needs; a client's process makes none of it.

    @cached_property
    def _run(self) -> RunConfig:
        return self._config.run_config(self._seed)

    @cached_property
    def _spec(self) -> EnvironmentSpec:
        silos = self._config.silos
        if isinstance(silos, EnvironmentSilos):
            # The first client's may have arguments without which there is no such environment.
            return build_spec(self._run.model_copy(update={"environment": self._environments(silos)[0]}))
        return build_spec(self._run)

    @cached_property
    def _shared(self) -> SharedTensors:
        return build_learner(self._run, self._spec).shared()

    @cached_property
    def _policy(self) -> QPolicy:
        return _build_policy(self._run, self._spec)

    @cached_property
    def _validation(self) -> VectorEnvironment:
        return build_environment(self._run.environment, "validation", _TEST_ENVS)


def _build_policy(config: RunConfig, spec: EnvironmentSpec) -> QPolicy:
    return build_policy(config.network, config.value, spec, config.learner.exploration_top, config.encoding)


def _mean(returns: np.ndarray) -> float:
    return float(returns.mean(dtype=np.float64))


def _shapes(spec: EnvironmentSpec) -> str:
    return ", ".join(f"{field.dtype}{list(field.shape)}" for field in spec.observation.values())
