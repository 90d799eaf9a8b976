"""HL-Gauss, and every other value head of Isogon, in RLlib's DQN: an RLModule and a Learner.

Both plug in by RLlib's own extension points: the module offers what RLlib asks of any DQN module (``QNetAPI``,
``TargetNetworkAPI``, ``InferenceOnlyAPI``), and the learner overrides ``compute_loss_for_module``. Replay, exploration,
target updates, checkpoints and Tune stay RLlib's. It is the one module under ``learners`` that knows of Ray.

B transitions, A actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import gymnasium
import torch
from pydantic import ValidationError

try:
    from ray.rllib.algorithms.dqn.dqn_learner import (
        QF_LOSS_KEY,
        QF_MAX_KEY,
        QF_MEAN_KEY,
        QF_MIN_KEY,
        QF_PREDS,
        TD_ERROR_MEAN_KEY,
    )
    from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.learner.utils import make_target_network
    from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, QNetAPI, TargetNetworkAPI
    from ray.rllib.core.rl_module.torch import TorchRLModule
    from ray.rllib.utils.metrics import TD_ERROR_KEY
    from ray.rllib.utils.schedules.scheduler import Scheduler
except ImportError as error:
    raise ImportError(f"RLlib is not whole here ({error}): pip install 'isogon[rllib]'") from error

from .batch import Observation
from .bootstrap import bootstrapped_target
from .encodings.spec import ArraySpec, EnvironmentSpec
from .networks.config import MLPConfig, NetworkConfig
from .networks.value_module import ValueModule, build_value_module
from .settings import Settings
from .values.config import ValueConfig

HIDDEN = "hidden"
"""In what ``forward_train`` gives: the torso's output for the batch's observations."""
_TARGETS_CLIPPED = "targets_clipped"


class ValueModelConfig(Settings):
    """What is read of RLlib's ``model_config``; its other keys are RLlib's own."""

    network: NetworkConfig = MLPConfig()
    value: ValueConfig


class IsogonDQNModule(TorchRLModule, InferenceOnlyAPI, TargetNetworkAPI, QNetAPI):  # type: ignore[misc]
    """A network and a value head of Isogon as a DQN module of RLlib.

    ``model_config`` holds ``value``, a `ValueConfig`, and may hold ``network``, a `NetworkConfig`, both as mappings. It
    must be given to ``DQNConfig.rl_module(model_config=...)``: RLlib adds the exploration's ``epsilon`` only there.
    Observations are a ``Box`` (the field ``observation``) or a ``Dict`` of them.

    Raises:
        ValueError: a space, a network or a value head that does not fit, with what to set instead.
    """

    values: ValueModule
    _target_values: ValueModule

    def setup(self) -> None:
        """Build the network; RLlib calls it once."""
        config = _read(self.model_config)
        # RLlib seeds torch's own generator, and from there the first weights come.
        seed = int(torch.randint(2**63 - 1, ()))
        spec = _spec(self.observation_space, self.action_space)
        self.values = build_value_module(config.network, config.value, spec, torch.Generator().manual_seed(seed))
        self._epsilon = Scheduler(fixed_value_or_schedule=self.model_config["epsilon"], framework=self.framework)

    def get_non_inference_attributes(self) -> list[str]:
        """What actors do without."""
        return ["_target_values"]

    def make_target_networks(self) -> None:
        """Copy the network."""
        self._target_values = make_target_network(self.values)

    def get_target_network_pairs(self) -> list[tuple[ValueModule, ValueModule]]:
        """The network and its copy, which RLlib brings up to date."""
        return [(self.values, self._target_values)]

    @torch.no_grad()
    def forward_target(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The target network's Q-values ``[B, A]``."""
        return {QF_PREDS: self._q_values(self.target_values, batch)}

    def compute_q_values(self, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Q-values ``[B, A]``, in units of return."""
        return {QF_PREDS: self._q_values(self.values, batch)}

    @property
    def target_values(self) -> ValueModule:
        """The target network, as it judges: RLlib turns training mode on in it too, and so dropout."""
        return self._target_values.eval()

    def _q_values(self, values: ValueModule, batch: Mapping[str, Any]) -> torch.Tensor:
        return values.head.values(values.encode(observation_of(batch[Columns.OBS]), None))

    @torch.no_grad()
    def _forward_inference(self, batch: Mapping[str, Any], **_: Any) -> dict[str, torch.Tensor]:
        return {Columns.ACTIONS: self._greedy(batch)}

    @torch.no_grad()
    def _forward_exploration(self, batch: Mapping[str, Any], t: int, **_: Any) -> dict[str, torch.Tensor]:
        greedy = self._greedy(batch)
        self._epsilon.update(t)
        stray = torch.rand(greedy.shape, device=greedy.device) < self._epsilon.get_current_value()
        return {Columns.ACTIONS: torch.where(stray, torch.randint_like(greedy, self.values.num_actions), greedy)}

    def _greedy(self, batch: Mapping[str, Any]) -> torch.Tensor:
        return self.values.head.best(self.values.encode(observation_of(batch[Columns.OBS]), None))[1]

    def _forward_train(self, batch: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        return {HIDDEN: self.values.encode(observation_of(batch[Columns.OBS]), None)}


class IsogonDQNLearner(DQNTorchLearner):  # type: ignore[misc]
    """RLlib's DQN learner with the loss of an `IsogonDQNModule`'s value head.

    Of ``DQNConfig`` it follows ``gamma``, ``n_step``, ``double_q``, the target network's settings, the optimiser's and
    the replay buffer's; the head takes the place of ``td_error_loss_fn``, ``num_atoms``, ``v_min``, ``v_max`` and
    ``dueling``. Priorities are absolute TD errors.
    """

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, Any], fwd_out: Mapping[str, Any]
    ) -> torch.Tensor:
        """The batch's mean loss, importance weights applied."""
        module = cast(IsogonDQNModule, self.module[module_id].unwrapped())
        action = batch[Columns.ACTIONS].long()
        transitions = {
            "reward_t": batch[Columns.REWARDS].float(),
            # An episode that was cut off goes on; one that ended does not.
            "discount_t": config.gamma ** batch["n_step"].float() * ~batch[Columns.TERMINATEDS].bool(),
            "observation_t": observation_of(batch[Columns.NEXT_OBS]),
        }
        target = bootstrapped_target(module.values, module.target_values, transitions, double_q=config.double_q)
        row = torch.arange(len(action), device=action.device)
        seen = module.values.head.loss(fwd_out[HIDDEN], row, action, target, batch["weights"])
        loss, td_error = seen.loss.mean(), seen.td_error.abs()
        # One for each transition, also where several learners shared the batch: the buffer wants its priorities back.
        self.metrics.log_value(key=(module_id, TD_ERROR_KEY), value=td_error, reduce="item_series")
        self.metrics.log_dict(
            {
                QF_LOSS_KEY: loss,
                QF_MEAN_KEY: seen.value.mean(),
                QF_MAX_KEY: seen.value.max(),
                QF_MIN_KEY: seen.value.min(),
                TD_ERROR_MEAN_KEY: td_error.mean(),
                _TARGETS_CLIPPED: seen.clipped.float(),
            },
            key=module_id,
            window=1,
        )
        return loss


def observation_of(given: torch.Tensor | Mapping[str, torch.Tensor]) -> Observation:
    """RLlib's observations as the mapping that networks read."""
    return given if isinstance(given, Mapping) else {"observation": given}


def _read(model_config: Mapping[str, Any]) -> ValueModelConfig:
    if "epsilon" not in model_config:
        raise ValueError(
            "model_config has no epsilon, which RLlib adds to what DQNConfig.rl_module(model_config=...) gets, and not "
            "to the model_config of an RLModuleSpec: give it there"
        )
    if model_config.get("num_atoms", 1) != 1:
        raise ValueError(
            f"num_atoms is {model_config['num_atoms']}: bins are set in model_config['value'], as bins, vmin and vmax"
        )
    own = {name: model_config[name] for name in ValueModelConfig.model_fields if name in model_config}
    try:
        config = ValueModelConfig.model_validate(own)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"model_config: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if config.value.normalise_returns or config.value.awaits_range:
        raise ValueError(
            "model_config['value'] asks for normalise_returns or for a range that is auto, which a run of Isogon finds "
            "from its games: in RLlib set vmin and vmax to numbers"
        )
    if config.value.noisy_sigma is not None:
        raise ValueError(
            f"model_config['value'] asks for noisy_sigma={config.value.noisy_sigma:g}, whose noise Isogon's own "
            "workers and learner draw: in RLlib explore by epsilon"
        )
    return config


def _spec(observation: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> EnvironmentSpec:
    if not isinstance(action, gymnasium.spaces.Discrete) or action.start != 0:
        raise ValueError(f"the action space is {action}: it must be Discrete and start from 0")
    spaces = observation.spaces if isinstance(observation, gymnasium.spaces.Dict) else {"observation": observation}
    fields = {name: _field(name, space) for name, space in spaces.items()}
    return EnvironmentSpec("rllib", fields, int(action.n))


def _field(name: str, space: gymnasium.Space[Any]) -> ArraySpec:
    if not isinstance(space, gymnasium.spaces.Box):
        raise ValueError(
            f"observation space {name!r} is {space}: it must be a Box; RLlib's FlattenObservations connector makes one "
            "of it"
        )
    return ArraySpec(space.shape, str(space.dtype))
