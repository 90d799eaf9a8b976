"""A run's whole config: the parts' configs, composed. What each part means stands beside the part."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from ...actors.config import ActorsConfig
from ...actors.environments.config import EnvironmentConfig
from ...actors.offline_games import OfflineGamesConfig
from ...learners.encodings.custom import EncodingConfig
from ...learners.networks.config import MLPConfig, NetworkConfig, WordNetworkConfig
from ...learners.plugins import PluginConfig
from ...learners.q_learning_config import QLearningConfig
from ...learners.replay.config import ReplayConfig
from ...learners.settings import Settings, may_change_on_resume
from ...learners.values.config import ValueConfig
from ...learners.values.presets import check_range


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


class OfflineConfig(OfflineGamesConfig):
    """Learning from games that poor players played, before the run's own."""

    budget_share: float = Field(
        0.2, gt=0, le=1, description="share of the run's budget before actors play; 1 learns offline alone"
    )


class EvaluationConfig(Settings):
    """How good the policy is: by the averaged weights."""

    every_share: float = Field(0.1, gt=0, le=1, description="share of the budget between two evaluations")
    episodes: int = Field(20, ge=1, description="episodes in one; Wordle plays each word of a set once instead")
    epsilon: float = Field(
        0.0, ge=0, le=1, description="probability of a random action; 0 plays greedily, Atari's custom is 0.001"
    )
    filter_games: int = Field(200, ge=1, description="Wordle: games of each word by perfect filtering, to compare with")


class CheckpointConfig(Settings):
    """What a killed run can go on from."""

    every_updates: int | None = may_change_on_resume(None, ge=1, description="updates between two checkpoints")
    every_seconds: float | None = may_change_on_resume(30.0, gt=0, description="seconds between two checkpoints")
    keep: int = may_change_on_resume(3, ge=1, description="newest checkpoints that are kept")
    keep_best: int = may_change_on_resume(
        1,
        ge=0,
        description="checkpoints that are kept besides for the best validation return; above 0 each evaluation of the "
        "run writes a checkpoint of what it plays",
    )


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


class CallbackConfig(PluginConfig):
    """A callback of one's own: a subclass of isogon.Callback."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"class": value} if isinstance(value, str) else value


def check_together(
    environment: EnvironmentConfig,
    encoding: EncodingConfig | None,
    network: NetworkConfig,
    value: ValueConfig,
    offline: OfflineGamesConfig | None,
) -> None:
    """Check that these sections of a config go together. Raises ValueError, which names the field and the remedy."""
    if isinstance(network, WordNetworkConfig):
        if environment.kind != "wordle":
            raise ValueError(
                f"network.kind is {network.kind}, which reads Wordle boards: use mlp for a Gymnasium environment"
            )
        if encoding is not None:
            raise ValueError(
                f"network.kind is {network.kind}, which reads Wordle boards as they are: use mlp behind an encoding"
            )
        if value.form != "tilt":
            raise ValueError(
                f"network.kind is {network.kind}, which scores words: value.form must be tilt, not {value.form}"
            )
    if offline and environment.kind != "wordle":
        raise ValueError("offline is set: there is a data policy for Wordle only")
    # Bins and range may come from a preset: whether they are all there shows only here.
    check_range(value)


class RunConfig(Settings):
    """Everything that fixes a run."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]*$", description="of the preset; run directories are called after it"
    )
    seed: int = Field(0, ge=0, description="of every random stream but the word split's")
    environment: EnvironmentConfig
    encoding: EncodingConfig | None = None
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
    callbacks: tuple[CallbackConfig, ...] = may_change_on_resume(
        (), description="told what happens: module:Class, or class and kwargs of each"
    )

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        check_together(self.environment, self.encoding, self.network, self.value, self.offline)
        if self.learner.precision == "bf16" and isinstance(self.network, WordNetworkConfig):
            raise ValueError(f"learner.precision is bf16, and network.kind {self.network.kind} computes in fp32 alone")
        if self.deterministic:
            self._check_deterministic()
        return self

    def _check_deterministic(self) -> None:
        wanted = {
            "actors.pool": (self.actors.pool, "in_process"),
            "device": (self.device, "cpu"),
            "budget.seconds": (self.budget.seconds, None),
            "checkpoints.every_seconds": (self.checkpoints.every_seconds, None),
            "replay.keep_in_checkpoint": (self.replay.keep_in_checkpoint, True),
            "actors.split": (self.actors.split, "equal"),
            "actors.updates_per_step set": (self.actors.updates_per_step is not None, True),
        }
        for name, (value, needed) in wanted.items():
            if value != needed:
                raise ValueError(f"deterministic is true and {name} is {value}: it must be {needed}")
