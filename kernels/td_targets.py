"""Temporal-difference targets from a Q-head, without logits of every action.

B states, A actions, D features, K bins.
"""

from __future__ import annotations

from typing import TypeAlias

import torch

from .backends import Impl
from .q_head import q_chosen, q_max
from .q_head_checks import check_layer, check_legal_shape, check_samples
from .support import Support

Layer: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Features ``[B, D]`` with a head's weight ``[A, K, D]`` and bias ``[A, K]``."""


@torch.no_grad()
def td_target(
    reward: torch.Tensor,
    discount: torch.Tensor,
    hidden_target: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Support,
    *,
    legal: torch.Tensor | None = None,
    online: Layer | None = None,
    validate: bool = False,
    impl: Impl = "auto",
) -> torch.Tensor:
    """``reward + discount * max_a Q(next state, a)``, without a gradient.

    With ``online`` it is double Q-learning's (van Hasselt et al. 2016, arXiv 1509.06461, equation 4): the online
    network chooses the action and the target network says its value. Only the chosen actions' blocks of its weights are
    read.

    Where the discount is 0 the target is the reward, whatever the next state's features are, and whether or not it has
    a legal action.

    Args:
        reward: ``[B]`` floating; several steps' discounted sum for n-step targets.
        discount: ``[B]`` floating; 0 where the episode ends.
        hidden_target: ``[B, D]``, the target network's features of the next states; this and the next three as in
            `hl_gauss_q_loss`.
        weight: ``[A, K, D]``, the target network's.
        bias: ``[A, K]`` or None, the target network's.
        support: the bins.
        legal: ``[B, A]`` bool or None for all, in the next states.
        online: None, or the online network's (features of the next states, weight, bias).
        validate: see `q_max`. Without it, on CUDA, states without a legal action have a target of minus infinity times
            the discount.
        impl: see `hl_gauss_q_loss`.

    Returns:
        ``[B]`` float32, or float64 for float64 features.

    Raises:
        ValueError: shapes, dtypes or devices do not fit, ``impl`` cannot do it, or a state has no legal action.
    """
    check_layer(hidden_target, weight, bias, support)
    states = hidden_target.shape[0]
    for name, tensor in (("reward", reward), ("discount", discount)):
        check_samples(name, tensor.detach(), "states", states, hidden_target.device)
    check_legal_shape(legal, hidden_target, weight.shape[0])
    if online is not None:
        _check_online(online, hidden_target, weight, support)
    live = discount != 0
    if hidden_target.device.type == "cpu" and not torch.compiler.is_compiling():
        place = live.nonzero().flatten()
        legal = None if legal is None else legal[place]
        online = online and (online[0][place], *online[1:])
        found = _next_value(hidden_target[place], weight, bias, support, legal, online, validate, impl)
        value = found.new_zeros(states).index_copy_(0, place, found)
    else:
        # Which states live on is not known here: those that do not get features and actions that do no harm.
        ended = ~live.unsqueeze(-1)
        legal = None if legal is None else legal | ended
        online = online and (online[0].masked_fill(ended, 0), *online[1:])
        features = hidden_target.masked_fill(ended, 0)
        value = _next_value(features, weight, bias, support, legal, online, validate, impl)
    reward = reward.to(value.dtype)
    return torch.where(live, reward + discount.to(value.dtype) * value, reward)


def _next_value(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Support,
    legal: torch.Tensor | None,
    online: Layer | None,
    validate: bool,
    impl: Impl,
) -> torch.Tensor:
    if online is None:
        return q_max(hidden, weight, bias, support, legal=legal, validate=validate, impl=impl)[0]
    _, action = q_max(*online, support, legal=legal, validate=validate, impl=impl)
    value = q_chosen(hidden, weight, bias, None, action, support, impl=impl)
    return value.masked_fill(action < 0, -torch.inf)


def _check_online(online: Layer, hidden: torch.Tensor, weight: torch.Tensor, support: Support) -> None:
    check_layer(*online, support)
    if online[0].shape[0] != hidden.shape[0] or online[1].shape[0] != weight.shape[0]:
        raise ValueError(
            f"online has features {tuple(online[0].shape)} and weight {tuple(online[1].shape)}, the target network "
            f"{tuple(hidden.shape)} and {tuple(weight.shape)}: states and actions must be the same"
        )
