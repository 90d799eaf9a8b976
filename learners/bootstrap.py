"""Targets that bootstrap: the reward, and the value of the state that follows by a network that lags behind.

B states, A actions, K bins.
"""

from __future__ import annotations

from typing import cast

import torch

from .batch import Batch, Observation
from .networks.value_module import ValueModule
from .values.kinds import C51, CategoricalTarget, Target


@torch.no_grad()
def bootstrapped_target(online: ValueModule, slow: ValueModule, batch: Batch, *, double_q: bool) -> Target:
    """``reward_t + discount_t * Q_slow(s_t, a*)`` of transitions (`learners.batch`).

    Args:
        online: the network that is trained.
        slow: the target network; of C51 in the same bins.
        batch: ``reward_t``, ``discount_t`` and, unless every discount is 0, ``observation_t`` and perhaps ``legal_t``.
        double_q: a* is chosen by the online network (van Hasselt et al. 2016, eq. 4), and not by the slow one.

    Returns:
        Values ``[B]``, or for C51 the distribution of what follows.
    """
    reward, discount = batch["reward_t"], batch["discount_t"]
    if not bool(discount.any()):
        return cast(torch.Tensor, reward)
    observation, legal = cast(Observation, batch["observation_t"]), batch.get("legal_t")
    if legal is not None:
        # Where nothing follows, nothing need be legal, but an argmax wants something to choose from.
        legal = legal | (discount == 0)[:, None]
    hidden = slow.encode(observation, legal)
    if double_q:
        _, best = online.head.best(online.encode(observation, legal), legal)
    else:
        _, best = slow.head.best(hidden, legal)
    if isinstance(slow.head.kind, C51):
        if slow.head.scale is not None and online.head.scale is not None:
            # Atoms are in units of the slow head's scale, and the target's are to be in the online head's.
            discount = discount * (slow.head.scale / online.head.scale)
        return CategoricalTarget(reward, discount, slow.head.distribution(hidden, best))
    return cast(torch.Tensor, reward + discount * slow.head.values_at(hidden, best[:, None])[:, 0])
