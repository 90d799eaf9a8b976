"""A run's whole config: the parts' configs, composed. What each part means stands beside the part."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ...actors.config import ActorsConfig
from ...actors.environments.config import EnvironmentConfig
from ...learners.networks.config import MLPConfig, NetworkConfig, WordNetworkConfig
from ...learners.q_learning_config import QLearningConfig
from ...learners.replay.config import ReplayConfig
from ...learners.settings import Settings, may_change_on_resume
from ...learners.values.config import ValueConfig
from ...learners.values.presets import support_of


class BudgetConfig(Settings):
    """When a run is done: at the first limit that it reaches. Schedules follow the share of that limit."""

    seconds: float | None = may_change_on_resume(None, gt=0, description="of training, standstills not counted")
    updates: int | None = may_change_on_resume(None, ge=1, description="learner updates")
    env_steps: int | None = may_change_on_resume(None, ge=1, description="environment steps")

    @model_validator(mode="after")
    def _check(self) -> BudgetConfig:
        if self.seconds is None and self.updates is None and self.env_steps is None:
            raise ValueError("a budget needs at least one of seconds, updates, env_steps")
        return self


class OfflineConfig(Settings):
    """Learning from games that poor players played, before the run's own."""

    steps: int = Field(180_000, ge=1, description="environment steps that the data policy plays")
    smart_share: float = Field(
        0.5, ge=0, le=1, description="Wordle: probability that it guesses a consistent word; else any word"
    )
    budget_share: float = Field(
        0.2, gt=0, le=1, description="share of the run's budget before actors play; 1 learns offline alone"
    )


class EvaluationConfig(Settings):
    """How good the policy is: greedy, by the averaged weights."""

    every_share: float = Field(0.1, gt=0, le=1, description="share of the budget between two evaluations")
    episodes: int = Field(20, ge=1, description="episodes in one; Wordle plays each word of a set once instead")
    filter_games: int = Field(200, ge=1, description="Wordle: games of each word by perfect filtering, to compare with")


class CheckpointConfig(Settings):
    """What a killed run can go on from."""

    every_updates: int | None = may_change_on_resume(None, ge=1, description="updates between two checkpoints")
    every_seconds: float | None = may_change_on_resume(30.0, gt=0, description="seconds between two checkpoints")
    keep: int = may_change_on_resume(3, ge=1, description="newest checkpoints that are kept")


class RayConfig(Settings):
    """Which Ray does the work. RAY_ADDRESS, where it is set, has the same meaning as ``address``."""

    address: str | None = may_change_on_resume(None, description="of a running cluster; None starts a local one")
    start_timeout_seconds: float = may_change_on_resume(
        60.0, gt=0, description="how long to wait for the cluster and for the first worker"
    )


class MetricsConfig(Settings):
    """Where Prometheus finds the metrics."""

    port: int | None = may_change_on_resume(
        None,
        ge=1,
        le=65535,
        description="of this machine. None: a local Ray takes a free port, a run without Ray serves none. "
        "A cluster that runs already has ports of its own",
    )


class RunConfig(Settings):
    """Everything that fixes a run."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$", description="of the preset; run directories are called after it"
    )
    seed: int = Field(0, ge=0, description="of every random stream but the word split's")
    environment: EnvironmentConfig
    network: NetworkConfig = MLPConfig()
    value: ValueConfig
    learner: QLearningConfig = QLearningConfig()
    replay: ReplayConfig = ReplayConfig()
    actors: ActorsConfig = ActorsConfig()
    offline: OfflineConfig | None = None
    budget: BudgetConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    learners: Literal[0] = Field(0, description="0: the learner runs in the driver's process")
    device: Literal["cpu", "cuda"] = may_change_on_resume("cpu", description="where the learner computes")
    torch_threads: int = may_change_on_resume(
        1, ge=1, description="of the learner; two collapse where actors share cores"
    )
    deterministic: bool = Field(
        False, description="bitwise the same weights from the same seed, also across a kill and a resume"
    )
    ray: RayConfig = RayConfig()
    metrics: MetricsConfig = MetricsConfig()

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        if isinstance(self.network, WordNetworkConfig):
            self._check_words(self.network.kind)
        if self.offline and self.environment.kind != "wordle":
            raise ValueError("offline is set: there is a data policy for Wordle only")
        # Bins and range may come from a preset: whether they are all there shows only here.
        support_of(self.value)
        if self.deterministic:
            self._check_deterministic()
        return self

    def _check_words(self, network: str) -> None:
        if self.environment.kind != "wordle":
            raise ValueError(
                f"network.kind is {network}, which reads Wordle boards: use mlp for a Gymnasium environment"
            )
        if self.value.form != "tilt":
            raise ValueError(
                f"network.kind is {network}, which scores words: value.form must be tilt, not {self.value.form}"
            )

    def _check_deterministic(self) -> None:
        wanted = {
            "actors.pool": (self.actors.pool, "in_process"),
            "device": (self.device, "cpu"),
            "budget.seconds": (self.budget.seconds, None),
            "checkpoints.every_seconds": (self.checkpoints.every_seconds, None),
            "replay.keep_in_checkpoint": (self.replay.keep_in_checkpoint, True),
            "actors.updates_per_step set": (self.actors.updates_per_step is not None, True),
        }
        for name, (value, needed) in wanted.items():
            if value != needed:
                raise ValueError(f"deterministic is true and {name} is {value}: it must be {needed}")
