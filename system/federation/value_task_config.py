"""What a federation learns values of, and what each client has of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ...actors.config import ActorsConfig
from ...actors.environments.config import EnvironmentConfig
from ...actors.federation.value_config import ValueClientConfig, ValueSilos
from ...actors.offline_games import OfflineGamesConfig
from ...learners.encodings.custom import EncodingConfig
from ...learners.networks.config import MLPConfig, NetworkConfig, WordNetworkConfig
from ...learners.q_learning_config import QLearningConfig
from ...learners.replay.config import ReplayConfig
from ...learners.settings import Settings
from ...learners.values.config import ValueConfig
from ..config.run import BudgetConfig, RunConfig, check_together


class ValueTaskConfig(Settings):
    """What is learnt, as in a run's config, and what each client has of it."""

    kind: Literal["value"] = "value"
    environment: EnvironmentConfig
    encoding: EncodingConfig | None = None
    network: NetworkConfig = MLPConfig()
    value: ValueConfig
    learner: QLearningConfig = QLearningConfig()
    replay: ReplayConfig = Field(ReplayConfig(), description="of each client")
    offline: OfflineGamesConfig | None = Field(
        None, description="Wordle: games that are in each client's replay before it plays, over its own words"
    )
    silos: ValueSilos
    client: ValueClientConfig = ValueClientConfig()

    @model_validator(mode="after")
    def _check(self) -> ValueTaskConfig:
        check_together(self.environment, self.encoding, self.network, self.value, self.offline)
        if (self.environment.kind == "wordle") != (self.silos.kind == "wordle"):
            raise ValueError(
                f"silos.kind is {self.silos.kind} and environment.kind {self.environment.kind}: wordle goes with "
                "wordle, environment with any other"
            )
        if self.environment.kind == "wordle" and not isinstance(self.network, WordNetworkConfig):
            raise ValueError(
                f"network.kind is {self.network.kind}, whose weights are of one list of words, and clients have "
                "different ones: use letter_tied, letter_belief or letter_untied"
            )
        if self.value.awaits_range:
            raise ValueError(
                "value.vmin or value.vmax is auto, which each client would find differently from its own games: set "
                "both to numbers"
            )
        if self.value.normalise_returns:
            raise ValueError(
                "value.normalise_returns is true: weights that clients learnt under scales of their own have no mean; "
                "set it to false, and value.vmin and value.vmax in units of return"
            )
        return self

    def run_config(self, seed: int) -> RunConfig:
        """These sections as a run's config, from which `system.builder` builds."""
        return RunConfig(
            name="federation",
            seed=seed,
            environment=self.environment,
            encoding=self.encoding,
            network=self.network,
            value=self.value,
            learner=self.learner,
            replay=self.replay,
            actors=ActorsConfig(envs_per_worker=self.client.envs, steps_per_assignment=self.client.steps_per_rollout),
            budget=BudgetConfig(updates=self.client.schedule_steps),
        )
