"""Q-learning with any value head: Monte-Carlo, n-step or bootstrapped targets, double Q, CQL, averaged weights.

B states, P pairs, A actions, K bins. What is bootstrapped is said by the batch: a transition whose ``discount_t`` is 0
is its return, and a batch of pairs has targets ready (`learners.batch`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from .batch import Batch
from .bootstrap import bootstrapped_target
from .learner import Loss, SharedTensors, UpdateFailed, UpdateStats
from .networks.value_module import ValueModule, check_fit
from .policy import QPolicy
from .proximal import Penalty
from .q_learning_config import QLearningConfig
from .randomness import restore_stream, stream_state
from .values.kinds import Target
from .values.returns import ReturnBounds, fitting_scale


class QLearner:
    """A `Learner` of action values.

    Attributes:
        module: what is trained; data-parallel training replaces it by a wrapper of the same call.
        updates: steps made so far.
    """

    module: nn.Module

    def __init__(
        self,
        module: ValueModule,
        config: QLearningConfig,
        generator: np.random.Generator,
        *,
        contrast_actions: np.ndarray | None = None,
        returns: ReturnBounds | None = None,
        device: str = "cpu",
    ) -> None:
        """Take a module in training.

        Args:
            module: torso and head, with its first weights.
            config: how to learn.
            generator: stream of the conservative regulariser's actions, and of noisy layers.
            contrast_actions: ``[C] int64``, the actions that the regulariser may draw; None for all. What training
                must never see stays out here.
            returns: what the scale of a module that normalises is taken from; None for any other.
            device: where to compute.

        Raises:
            ValueError: no action is left to the regulariser, or one is not of the module's; or only one of module and
                ``returns`` normalises.
        """
        if (module.head.scale is None) != (returns is None):
            raise ValueError("returns must be given where the module's head normalises, and only there")
        self._plain = module.to(device)
        self.module = self._plain
        # Followers play and judge: dropout is off in them, and a batch norm uses the averages that the learner keeps.
        self._target = copy.deepcopy(self._plain).requires_grad_(False).eval()
        self._average = copy.deepcopy(self._plain).requires_grad_(False).eval()
        self._config = config
        self._generator = generator
        self._contrast_actions = _checked_contrast(contrast_actions, module.num_actions)
        self._returns = returns
        self._scaled = False
        self._device = device
        self._parameters = [p for p in self._plain.parameters() if p.requires_grad]
        self._optimiser = torch.optim.Adam(self._parameters, lr=0.0, eps=config.adam_epsilon, fused=True)
        self._progress = 0.0
        self.updates = 0

    def loss(self, batch: Batch) -> Loss:
        """Mean loss over the batch's pairs, plus the conservative penalty by its weight. Noise is drawn anew."""
        batch = _to_device(batch, self._device)
        row, action, target = self._pairs(batch)
        self._plain.head.form.draw_noise(self._generator)
        cql_weight = self._config.cql_weight.at(self._progress)
        contrast = self._draw_contrast() if cql_weight > 0 else None
        head, penalty = self.module(batch["observation_tm1"], row, action, target, batch.get("weight"), contrast)
        value = head.loss.mean()
        weight = batch.get("weight")
        stats = {
            "loss": value.detach(),
            "targets": torch.tensor(head.loss.numel()) if weight is None else weight.count_nonzero(),
            "targets_clipped": head.clipped,
            "value_mean": head.value.mean(),
        }
        if penalty is not None:
            value = value + cql_weight * penalty.mean()
            stats["cql_penalty"] = penalty.detach().mean()
        return Loss(value, head.td_error, {name: float(number) for name, number in stats.items()})

    def observe_episode(self, reward: np.ndarray, terminated: bool) -> None:
        """Take in an episode's rewards ``[T]``; updates from now on normalise for it.

        Raises:
            ValueError: this learner does not normalise, or as `ReturnBounds.observe`.
        """
        if self._returns is None:
            raise ValueError("an episode was given to a learner whose head does not normalise returns")
        self._returns.observe(reward, terminated)

    def update(
        self, batch: Batch, progress: float, *, rate_scale: float = 1.0, penalty: Penalty | None = None
    ) -> UpdateStats:
        """One step of Adam, then of the averaged and the target weights.

        Args:
            batch: see `learners.batch`.
            progress: share of the run that is done, which drives the schedules.
            rate_scale: multiplies the learning rate.
            penalty: is added to the loss, and told in the stats.

        Raises:
            UpdateFailed: the gradient is not finite, or targets are out of range and ``out_of_range`` is ``error``.
        """
        self._progress = progress
        self._rescale()
        learning_rate = self._learning_rate(progress) * rate_scale
        self._optimiser.zero_grad(set_to_none=True)
        try:
            loss = self.loss(batch)
        except ValueError as error:
            raise UpdateFailed(f"update {self.updates + 1}: {error}") from error
        value, stats = loss.value, loss.stats
        if penalty is not None:
            added = penalty(self._plain)
            value, stats = value + added, {**stats, "penalty": float(added.detach())}
        value.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._config.max_gradient_norm))
        if not np.isfinite(norm):
            raise UpdateFailed(
                f"update {self.updates + 1}: the gradient's norm is {norm} and the loss {float(value.detach())}; "
                "lower learner.learning_rate, or look for rewards that are not bounded"
            )
        self._optimiser.param_groups[0]["lr"] = learning_rate
        self._optimiser.step()
        self.updates += 1
        self._follow()
        return UpdateStats(float(value.detach()), norm, learning_rate, loss.td_error, stats)

    def restart(self, *, keep_optimiser: bool) -> None:
        """Begin anew from the module's weights, as after `load_shared`: they become the target's and the averages'.

        An average over weights from before would pull what is played, and what is bootstrapped from, back to them.

        Args:
            keep_optimiser: keep Adam's moments; otherwise they begin anew too. Steps made so far stay counted.
        """
        for follower in (self._target, self._average):
            follower.load_state_dict(self._plain.state_dict())
        if not keep_optimiser:
            self._optimiser.state.clear()

    def policy(self) -> QPolicy:
        """A policy with the averaged weights as they are now; later updates do not change it."""
        return QPolicy(copy.deepcopy(self._average).to("cpu"), self._config.exploration_top)

    def policy_tensors(self) -> dict[str, np.ndarray]:
        """The averaged weights, copied."""
        return {name: part.detach().cpu().numpy().copy() for name, part in self._average.state_dict().items()}

    def shared(self) -> SharedTensors:
        """The module's parameters, as means, and its persistent buffers: the weights themselves, not copies."""
        parameters: SharedTensors = {name: (part.detach(), "mean") for name, part in self._plain.named_parameters()}
        persistent = self._plain.state_dict()
        for name, part in self._plain.named_buffers():
            if name in persistent:
                parameters[name] = (part, "statistic" if part.is_floating_point() else "integer")
        return parameters

    def load_shared(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over parameters and buffers.

        Raises:
            ValueError: other names or shapes than `shared` gives.
        """
        own = self.shared()
        check_fit("shared tensors are", tensors, {name: part for name, (part, _) in own.items()})
        with torch.no_grad():
            for name, (part, _) in own.items():
                part.copy_(tensors[name])

    def state_dict(self) -> dict[str, Any]:
        """Weights, target, averages, Adam's moments by parameter name, step, progress, stream: copies."""
        names = [name for name, p in self._plain.named_parameters() if p.requires_grad]
        moments = {
            name: {key: part.detach().clone() for key, part in self._optimiser.state[parameter].items()}
            for name, parameter in zip(names, self._parameters, strict=True)
            if parameter in self._optimiser.state
        }
        state = {
            "updates": self.updates,
            "progress": self._progress,
            "stream": stream_state(self._generator),
            "module": _copied(self._plain),
            "target": _copied(self._target),
            "average": _copied(self._average),
            "adam": moments,
        }
        if self._returns is not None:
            state["returns"] = {**self._returns.state_dict(), "scaled": self._scaled}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`.

        Raises:
            ValueError: it is of another network.
        """
        modules = {"module": self._plain, "target": self._target, "average": self._average}
        for name, module in modules.items():
            check_fit(f"the checkpoint's {name} weights are", state[name], module.state_dict())
        for name, module in modules.items():
            module.load_state_dict(state[name])
        self._optimiser.state.clear()
        parameters = dict(self._plain.named_parameters())
        for name, moments in state["adam"].items():
            parameter = parameters[name]
            self._optimiser.state[parameter] = {
                key: part.to(parameter.device, copy=True) for key, part in moments.items()
            }
        if self._returns is not None:
            self._returns.load_state_dict(state["returns"])
            self._scaled = bool(state["returns"]["scaled"])
        self._generator = restore_stream(state["stream"])
        self._progress = float(state["progress"])
        self.updates = int(state["updates"])

    def _learning_rate(self, progress: float) -> float:
        warmup = min((self.updates + 1) / (self._config.warmup_updates + 1), 1.0)
        return self._config.learning_rate.at(progress) * warmup

    def _pairs(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, Target]:
        if "target" in batch:
            return batch["row"], batch["action"], batch["target"]
        action = batch["action_tm1"]
        slow = self._target if self._config.target_update_every else self._average
        # The choice of the next action, its value and the loss have noise of their own each (Fortunato et al. 2018):
        # noise that they had in common would bias the target.
        for module in (self._plain, slow):
            module.head.form.draw_noise(self._generator)
        target = bootstrapped_target(self._plain, slow, batch, double_q=self._config.double_q)
        return torch.arange(len(action), device=action.device), action, target

    def _rescale(self) -> None:
        """Let the online head's scale fit the returns observed so far.

        The target network keeps the scale that its weights were learnt under until it takes them over anew, and the
        averaged scale follows as the averaged weights do. Only the first scale is everybody's: before it there was no
        unit that anything could have been learnt in.
        """
        scale = self._plain.head.scale
        if self._returns is None or scale is None or not self._returns.episodes:
            return
        bounds = self._returns.bounds()
        if bounds == (0.0, 0.0):
            return
        support = self._plain.head.kind.support
        lowest, highest = (support.lowest, support.highest) if support else (-1.0, 1.0)
        scale.fill_(fitting_scale(bounds, lowest, highest))
        if not self._scaled:
            for module in (self._target, self._average):
                cast(torch.Tensor, module.head.scale).copy_(scale)
            self._scaled = True

    def _draw_contrast(self) -> torch.Tensor:
        drawn = self._contrast_actions
        if 0 < self._config.cql_actions < len(drawn):
            drawn = self._generator.choice(drawn, size=self._config.cql_actions, replace=False)
        return torch.from_numpy(np.asarray(drawn, dtype=np.int64)).to(self._device)

    @torch.no_grad()
    def _follow(self) -> None:
        # A young average forgets fast, so that first weights do not linger in it.
        decay = min(self._config.average_decay, self.updates / (self.updates + 19.0))
        averages: list[torch.Tensor] = list(self._average.parameters())
        newest: list[torch.Tensor] = list(self._plain.parameters())
        if self._average.head.scale is not None and self._plain.head.scale is not None:
            averages.append(self._average.head.scale)
            newest.append(self._plain.head.scale)
        torch._foreach_lerp_(averages, newest, 1.0 - decay)
        # Buffers hold counts, which have no mean worth the name.
        for average, newest_buffer in zip(self._average.buffers(), self._plain.buffers(), strict=True):
            average.copy_(newest_buffer)
        every = self._config.target_update_every
        if every and self.updates % every == 0:
            self._target.load_state_dict(self._plain.state_dict())


def _checked_contrast(actions: np.ndarray | None, num_actions: int) -> np.ndarray:
    if actions is None:
        return np.arange(num_actions)
    if actions.ndim != 1 or not actions.size or actions.dtype.kind != "i":
        raise ValueError(f"contrast_actions is {actions.dtype}{list(actions.shape)}: it must be [C] int64, C >= 1")
    if actions.min() < 0 or actions.max() >= num_actions:
        raise ValueError(f"contrast_actions span {actions.min()}..{actions.max()}, expected 0..{num_actions - 1}")
    return actions


def _copied(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: part.detach().clone() for name, part in module.state_dict().items()}


def _to_device(batch: Batch, device: str) -> Batch:
    if device == "cpu":
        return batch
    moved: dict[str, Any] = {}
    for name, part in batch.items():
        if isinstance(part, Mapping):
            moved[name] = {field: tensor.to(device, non_blocking=True) for field, tensor in part.items()}
        else:
            moved[name] = part.to(device, non_blocking=True)
    return moved
