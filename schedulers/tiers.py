"""FedAT: synchronous rounds within tiers of clients alike in speed, the tiers asynchronous to one another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from .events import Token
from .federated import Client, FederatedScheduler, Piece, Result, Silence
from .rounds import Round, RoundShare, check_sampling, round_weights, sample
from .speed import FEDCOMPASS_SPEED, SpeedOptions


@dataclass(slots=True)
class Tier:
    """Clients alike in speed.

    Attributes:
        bound: seconds that the slowest of them was expected to take when the tier was made.
        updates: commits, with the round in which everybody's speed was taken.
        members: who is there and answers.
        idle: those of them that wait for the tier's next round.
        round: the one that runs.
    """

    bound: float = math.inf
    updates: int = 1
    members: dict[str, None] = field(default_factory=dict)
    idle: dict[str, None] = field(default_factory=dict)
    round: Round | None = None

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "bound": None if self.bound == math.inf else self.bound,
            "updates": self.updates,
            "members": list(self.members),
            "idle": list(self.idle),
            "round": None if self.round is None else self.round.state_dict(),
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Tier:
        """The inverse of `state_dict`."""
        return cls(
            math.inf if state["bound"] is None else state["bound"],
            state["updates"],
            dict.fromkeys(state["members"]),
            dict.fromkeys(state["idle"]),
            None if state["round"] is None else Round.of(state["round"]),
        )


def tier_weights(updates: list[int]) -> list[float]:
    """How much each tier counts in the global model, ``T_{M+1-m} / T``: as often as its mirror image was updated.

    Chai et al. 2021, section 4.3: tiers that are updated rarely count more, so that the model does not lean to the fast
    ones. The weights sum to 1.

    Args:
        updates: of each tier, the fastest first.
    """
    total = sum(updates)
    return [count / total for count in reversed(updates)]


class FedAT(FederatedScheduler):
    """Synchronous rounds within tiers, the tiers asynchronous to one another.

    Chai et al. 2021, "FedAT: a high-performance and communication-efficient federated learning system with asynchronous
    tiers" (https://arxiv.org/abs/2010.05958), algorithm 2. The first round takes everybody in, as a round of FedAvg,
    and measures the speeds; then the clients are divided into tiers of equal size. Each tier runs rounds of its own,
    from the newest version at each round's beginning.

    The paper's: tiers by measured speed, rounds within them with weights ``n_k / N_c``, and the global model as the
    weighted sum ``sum_m T_{M+1-m} / T * w_m`` of the tiers' models; see `tier_weights`. The translation: the paper
    keeps a model for each tier and adds them up anew at each commit. A commit here adds changes to the global model, so
    a round of tier m adds ``T_{M+1-m} / T * sum_k n_k / N_c * delta_k``. With one tier both are FedAvg; with tiers of
    equal pace both move by the mean of their changes in the time of a round. What is left out is the paper's pull of
    the global model back to the older models of the other tiers. The round that measures the speeds is counted as one
    update of each tier: with the paper's start from zero the fastest tier would count nothing until the slowest has
    been updated. The paper's client penalty (FedProx) is the client's affair.

    A client of unknown speed joins the slowest tier's next round, then the tier that its speed belongs in. All tiers
    are made anew after ``retier_rounds`` rounds of the slowest, when a tier has lost all its clients, and while there
    are fewer tiers than wanted and clients for more. If their number changes, the updates are counted anew.

    Args:
        attempt: of the run, at least 1.
        steps: local steps of a piece of work.
        tiers: how many, at most as many as clients are measured.
        clients_per_round: how many of a tier are drawn for each round, by ``seed``; None: all.
        least_clients: so many must be free for the first round to begin.
        profile_seconds: deadline of the first round; who comes later is dropped once. None: it waits for all.
        retier_rounds: rounds of the slowest tier after which the tiers are made anew.
        share: what a result counts within its round.
        seed: of the draws.
        speed, silence, most_failures: see `FederatedScheduler`.

    Raises:
        ValueError: a number below its least, or an unknown word.
    """

    name: ClassVar[str] = "fedat"

    def __init__(
        self,
        attempt: int,
        *,
        steps: int = 100,
        tiers: int = 3,
        clients_per_round: int | None = None,
        least_clients: int = 1,
        profile_seconds: float | None = None,
        retier_rounds: int = 10,
        share: RoundShare = "samples",
        seed: int = 0,
        speed: SpeedOptions = FEDCOMPASS_SPEED,
        silence: Silence | None = None,
        most_failures: int = 3,
    ) -> None:
        super().__init__(attempt, speed=speed, silence=silence, most_failures=most_failures)
        check_sampling(
            share,
            seed,
            steps=steps,
            tiers=tiers,
            clients_per_round=clients_per_round,
            least_clients=least_clients,
            retier_rounds=retier_rounds,
        )
        if profile_seconds is not None and not profile_seconds > 0:
            raise ValueError(f"profile_seconds is {profile_seconds}: it must be above 0, or None to wait for all")
        self._steps = steps
        self._wanted = tiers
        self._clients_per_round = clients_per_round
        self._least_clients = least_clients
        self._profile_seconds = profile_seconds
        self._retier_rounds = retier_rounds
        self._share = share
        self._seed = seed
        self._number = 0
        self._tiers = [Tier()]
        self._tier_of: dict[str, int] = {}
        self._newcomers: dict[str, None] = {}
        self._slowest_rounds = 0
        self._due = False

    def on_ready(self, client: Client) -> None:
        """Into its tier, or the slowest one where it has none."""
        if self._tier_of.get(client.name, len(self._tiers)) >= len(self._tiers):
            self._tier_of[client.name] = len(self._tiers) - 1
            self._newcomers[client.name] = None
        tier = self._tiers[self._tier_of[client.name]]
        tier.members[client.name] = tier.idle[client.name] = None

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        """Into the round that waits for it; dropped where none does."""
        for tier in self._tiers:
            if tier.round is not None and result.token in tier.round.out:
                tier.round.arrive(result.token)
                return
        self.drop(result, "late: its round ended without it")
        self._bring_home(client)

    def on_lost(self, client: Client, piece: Piece | None) -> None:
        """Its tier does not count it any longer."""
        if client.name in self._tier_of:
            tier = self._tiers[self._tier_of[client.name]]
            tier.members.pop(client.name, None)
            tier.idle.pop(client.name, None)
        for tier in self._tiers:
            if tier.round is not None and piece is not None:
                tier.round.out.pop(piece.token, None)

    def on_tick(self) -> None:
        """End one round that is over; make tiers anew where it is time; begin rounds where none runs."""
        for index, tier in enumerate(self._tiers):
            if tier.round is not None and (not tier.round.out or (self.now >= tier.round.deadline and tier.round.back)):
                self._end(index, tier, tier.round)
                if not self.ready:
                    return
        lost = any(not tier.members for tier in self._tiers) and any(tier.members for tier in self._tiers)
        if self._due or lost:
            self._make_tiers()
        for tier in self._tiers:
            if tier.round is None and len(tier.idle) >= (1 if self._number else self._least_clients):
                self._begin(tier)

    def extra_state(self) -> dict[str, Any]:
        """The tiers with their rounds, and whose speed is not known."""
        return {
            "number": self._number,
            "tiers": [tier.state_dict() for tier in self._tiers],
            "tier_of": dict(self._tier_of),
            "newcomers": list(self._newcomers),
            "slowest_rounds": self._slowest_rounds,
            "due": self._due,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        self._number = state["number"]
        self._tiers = [Tier.of(tier) for tier in state["tiers"]]
        self._tier_of = dict(state["tier_of"])
        self._newcomers = dict.fromkeys(state["newcomers"])
        self._slowest_rounds = state["slowest_rounds"]
        self._due = state["due"]

    def check_valid(self) -> None:
        """Assert the invariants: a client is in one tier, who is idle is free, what waits is a running round's."""
        super().check_valid()
        members = [name for tier in self._tiers for name in tier.members]
        assert len(set(members)) == len(members), "a client is in two tiers"
        assert all(name in self._tiers[self._tier_of[name]].members for name in members)
        assert all(tier.idle.keys() <= tier.members.keys() for tier in self._tiers)
        assert all(self.clients[name].free for tier in self._tiers for name in tier.idle)
        if not self.ready:
            return
        rounds = [tier.round for tier in self._tiers if tier.round is not None]
        back = [token for current in rounds for token in current.back]
        assert sorted(back) == sorted(self.waiting), "a result waits for no round"
        out = [token for current in rounds for token in current.out]
        assert all(token in self.clients[token.worker].pieces for token in out), "a round waits for work that ended"
        assert len(set(out)) == len(out), "two rounds wait for the same work"

    def _begin(self, tier: Tier) -> None:
        measuring = self._number == 0
        self._number += 1
        tier.round = Round(self._number, self.now)
        count = None if measuring else self._clients_per_round
        for name in sample(list(tier.idle), count, self._seed, self._number):
            del tier.idle[name]
            tier.round.out[self.give(self.clients[name], self._steps).token] = None
        if measuring and self._profile_seconds is not None:
            tier.round.deadline = self.now + self._profile_seconds
            self.wake_at(tier.round.deadline)

    def _end(self, index: int, tier: Tier, current: Round) -> None:
        tier.round = None
        results = sorted((self.waiting[token] for token in current.back), key=lambda result: result.token.sequence)
        for result in results:
            self._bring_home(self.clients[result.worker])
        if not results:
            return
        if self._number > 1:
            tier.updates += 1
        of_tier = tier_weights([each.updates for each in self._tiers])[index]
        weights = round_weights([self.clients[result.worker].samples for result in results], self._share)
        self.commit([(result, of_tier * weight) for result, weight in zip(results, weights, strict=True)])
        self._slowest_rounds += index == len(self._tiers) - 1
        if len(self._tiers) < self._wanted:
            self._due = sum(client.speed.known for client in self._living()) > len(self._tiers)
        else:
            self._due = self._slowest_rounds >= self._retier_rounds

    def _bring_home(self, client: Client) -> None:
        if not client.free:
            return
        if client.name in self._newcomers and len(self._tiers) == self._wanted:
            del self._newcomers[client.name]
            self._tiers[self._tier_of[client.name]].members.pop(client.name, None)
            seconds = client.speed.duration(self._steps)
            fitting = (index for index, tier in enumerate(self._tiers) if seconds <= tier.bound)
            self._tier_of[client.name] = next(fitting, len(self._tiers) - 1)
        tier = self._tiers[self._tier_of[client.name]]
        tier.members[client.name] = tier.idle[client.name] = None

    def _living(self) -> list[Client]:
        return [client for client in self.clients.values() if client.present and not client.silent]

    def _make_tiers(self) -> None:
        """Divide the clients by speed, anew; the rounds that run go on."""
        self._due, self._slowest_rounds = False, 0
        members = [self.clients[name] for tier in self._tiers for name in tier.members]
        idle = {name for tier in self._tiers for name in tier.idle}
        seconds = {client.name: client.speed.duration(self._steps) for client in members if client.speed.known}
        measured = sorted(seconds, key=lambda name: (seconds[name], name))
        count = max(1, min(self._wanted, len(measured)))
        cuts = [index * len(measured) // count for index in range(count + 1)]
        groups = [measured[low:high] for low, high in pairwise(cuts)]
        self._newcomers = {client.name: None for client in members if not client.speed.known}
        bounds = [seconds[group[-1]] if group else math.inf for group in groups]
        groups[-1] += self._newcomers
        made = [
            Tier(bound, 1, dict.fromkeys(group), {name: None for name in group if name in idle})
            for bound, group in zip(bounds, groups, strict=True)
        ]
        for index, old in enumerate(self._tiers):
            if len(self._tiers) == count:
                made[index].updates = old.updates
            if old.round is not None:
                made[min(index, count - 1)].round = _together(made[min(index, count - 1)].round, old.round)
        self._tiers = made
        self._tier_of = {name: index for index, tier in enumerate(made) for name in tier.members}


def _together(first: Round | None, second: Round) -> Round:
    if first is None:
        return second
    out: dict[Token, None] = {**first.out, **second.out}
    deadline = max(first.deadline, second.deadline)
    return Round(second.number, second.begun, deadline, out, {**first.back, **second.back})
