"""A client that learns values: it plays environments of its own and trains the spine's Q-learner on what it played."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import torch

from ...learners.learner import Exploration, Policy, UpdateStats
from ...learners.proximal import proximal_penalty
from ...learners.q_learning import QLearner
from ...learners.randomness import stream
from ...learners.replay.intake import RolloutIntake
from ...learners.replay.replay import Replay
from ..columns import Columns
from ..environments.contract import VectorEnvironment
from ..evaluation import play_episodes
from ..rollout import EpisodeTotals, Rollout
from .client import LocalModel, LocalWork, Model
from .value_config import ValueClientConfig

_FRUITLESS_STEPS = 1_000
"""Environment steps played for each transition wanted, after which no more are hoped for."""


class ValueClient:
    """A `FederatedClient` whose data are environments, and perhaps games that others played in them before.

    It trains from the model that it is given: target and averaged weights begin there, because an average over its own
    earlier weights would undo what the others have learnt. Replay, environments, Adam's moments (by choice) and the
    count of local steps, which drives the schedules, go on from one assignment to the next; a client whose process was
    replaced begins anew in all of them.

    An assignment's generator draws its exploration; the first one's also names the streams of the environments. Replay
    and learner have streams of their own: two clients made alike and given the same assignments come to the same bits.

    Args:
        config: how it plays and learns.
        learner: with any weights.
        replay: empty.
        intake: into ``replay``.
        environment: what it trains in; closed with the client.
        test_environment: what it is evaluated in; closed with the client.
        policy: of the learner's network, with any weights: it plays evaluations.
        samples: size of its data set.
        min_replay: transitions that there must be before the first local step; the client plays until they are there.
        record_legal: whether transitions tell which actions were legal.
        first_games: columns that are in the replay before it plays.
    """

    def __init__(
        self,
        config: ValueClientConfig,
        *,
        learner: QLearner,
        replay: Replay,
        intake: RolloutIntake,
        environment: VectorEnvironment,
        test_environment: VectorEnvironment,
        policy: Policy,
        samples: int,
        min_replay: int,
        record_legal: bool = False,
        first_games: Columns | None = None,
    ) -> None:
        self._config = config
        self._learner = learner
        self._replay = replay
        self._intake = intake
        self._environment = environment
        self._test_environment = test_environment
        self._policy = policy
        self._samples = samples
        self._min_replay = min_replay
        self._record_legal = record_legal
        self._rollout: Rollout | None = None
        self._owed = 0.0
        if first_games is not None:
            intake.add(first_games, continues=False)

    @property
    def samples(self) -> int:
        """Size of its data set."""
        return self._samples

    def train(self, model: Model, work: LocalWork) -> LocalModel:
        """Make ``work.steps`` updates from the global model, and play at the pace that the config says.

        Returns:
            The module's weights, not the averaged ones, and as stats means over the updates of ``loss,
            gradient_norm, learning_rate, value_mean`` and the like; ``targets_clipped``, a share of all targets;
            ``env_steps, episodes`` played, and, where one ended, ``episode_return, episode_length``.

        Raises:
            ValueError: the model is of another network, or what is played gives no transitions.
            UpdateFailed: see `learners.learner`.
        """
        self._learner.load_shared({name: torch.from_numpy(np.array(part)) for name, part in model.items()})
        self._learner.restart(keep_optimiser=self._config.keep_optimiser)
        penalty = None
        if self._config.proximal:
            given = {name: part for name, (part, kind) in self._learner.shared().items() if kind == "mean"}
            penalty = proximal_penalty(given, self._config.proximal)
        tally = _Tally()
        self._fill(work, tally)
        for _ in range(work.steps):
            self._owed += self._config.env_steps_per_update
            while self._owed >= self._config.steps_per_rollout:
                self._owed -= self._play(work, tally)
            progress = self._progress()
            batch = self._replay.next_batch(progress)
            update = self._learner.update(batch, progress, rate_scale=work.rate_scale, penalty=penalty)
            self._replay.update_priorities(batch["index"], update.td_error)
            tally.updated(update)
            work.after_step()
        tensors = {name: part.cpu().numpy().copy() for name, (part, _) in self._learner.shared().items()}
        return LocalModel(tensors, work.steps, tally.stats())

    def evaluate(self, model: Model, amount: int, generator: np.random.Generator) -> Mapping[str, float]:
        """Greedy episodes in the test environment: ``score`` is their mean return.

        Raises:
            ValueError: the model is of another network, or ``amount`` is less than 1.
        """
        self._policy.load_tensors(model)
        scores = play_episodes(self._test_environment, self._policy.act, amount, generator)
        return {
            "score": float(scores["return"].mean(dtype=np.float64)),
            "episode_length": float(scores["length"].mean()),
            "episodes": float(amount),
        }

    def close(self) -> None:
        """Close its environments."""
        self._environment.close()
        self._test_environment.close()

    def _progress(self) -> float:
        return min(self._learner.updates / self._config.schedule_steps, 1.0)

    def _fill(self, work: LocalWork, tally: _Tally) -> None:
        played = 0
        while len(self._replay) < self._min_replay:
            if played > _FRUITLESS_STEPS * self._min_replay:
                raise ValueError(
                    f"{played} environment steps gave {len(self._replay)} transitions, and replay.min_size is "
                    f"{self._min_replay}: with replay.returns monte_carlo episodes that are cut off give none"
                )
            played += self._play(work, tally)

    def _play(self, work: LocalWork, tally: _Tally) -> int:
        """Play one rollout with the weights of now; returns its environment steps."""
        begins = self._rollout is None
        if self._rollout is None:
            environments = stream(int(work.generator.integers(2**63)), "rollout")
            self._rollout = Rollout(self._environment, environments, record_legal=self._record_legal)
        progress = self._progress()
        exploration = Exploration(self._config.epsilon.at(progress), self._config.temperature.at(progress))
        policy = self._learner.policy()
        policy.draw_noise(work.generator)
        steps = self._config.steps_per_rollout
        columns = self._rollout.run(policy.act, steps, exploration, work.generator, version=work.version)
        self._intake.add(columns, continues=not begins)
        tally.played(columns, self._rollout.totals)
        return int(columns["action"].size)


class _Tally:
    """What an assignment came to."""

    def __init__(self) -> None:
        self._updates = 0
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._env_steps = 0
        self._episodes = np.zeros(3)

    def updated(self, update: UpdateStats) -> None:
        self._updates += 1
        main = {"loss": update.loss, "gradient_norm": update.gradient_norm, "learning_rate": update.learning_rate}
        for name, number in {**update.stats, **main}.items():
            self._sums[name] += number

    def played(self, columns: Columns, totals: EpisodeTotals) -> None:
        self._env_steps += int(columns["valid"].sum())
        self._episodes += [totals.count, totals.return_sum, totals.length_sum]

    def stats(self) -> dict[str, float]:
        sums = dict(self._sums)
        targets, clipped = sums.pop("targets", 0), sums.pop("targets_clipped", 0)
        stats = {name: total / self._updates for name, total in sums.items()}
        stats |= {"targets_clipped": clipped / max(targets, 1), "env_steps": float(self._env_steps)}
        episodes, returned, length = self._episodes.tolist()
        stats["episodes"] = episodes
        if episodes:
            stats |= {"episode_return": returned / episodes, "episode_length": length / episodes}
        return stats
