"""Synchronous rounds: everybody starts from the same version, and one commit takes all results in.

FedAvg (McMahan et al. 2017, https://arxiv.org/abs/1602.05629, algorithm 1), and what differs from it in the server's
rule alone (FedAvgM, FedAdam, FedYogi), in the client's loss alone (FedProx) or in the weights alone (FedNova).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from .events import Token
from .federated import Client, FederatedScheduler, Piece, Result, Silence
from .speed import FEDCOMPASS_SPEED, SpeedOptions

RoundShare: TypeAlias = Literal["samples", "equal"]
"""What a result of a round counts: ``n_i / sum n_i`` over those committed together, or one in their number."""


@dataclass(slots=True)
class Round:
    """Work that is waited for together.

    Attributes:
        number: of the round, from 1.
        begun: in run seconds.
        deadline: when it ends without those that are out; infinite where it waits for all.
        out: pieces in hand.
        back: results that arrived, in the order of arrival.
    """

    number: int
    begun: float
    deadline: float = math.inf
    out: dict[Token, None] = field(default_factory=dict)
    back: dict[Token, None] = field(default_factory=dict)

    def arrive(self, token: Token) -> None:
        """Move a piece from ``out`` to ``back``."""
        del self.out[token]
        self.back[token] = None

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "number": self.number,
            "begun": self.begun,
            "deadline": None if self.deadline == math.inf else self.deadline,
            "out": [str(token) for token in self.out],
            "back": [str(token) for token in self.back],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Round:
        """The inverse of `state_dict`."""
        deadline = math.inf if state["deadline"] is None else state["deadline"]
        out, back = (dict.fromkeys(Token.parse(text) for text in state[key]) for key in ("out", "back"))
        return cls(state["number"], state["begun"], deadline, out, back)


def sample(names: Sequence[str], count: int | None, seed: int, number: int) -> list[str]:
    """Who takes part in a round: ``count`` of the names, in their order; all where ``count`` is None or not below.

    The same for the same names, seed and round, whatever happened before.
    """
    if count is None or count >= len(names):
        return list(names)
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))
    return [names[index] for index in sorted(generator.choice(len(names), count, replace=False))]


def round_weights(samples: Sequence[int], share: RoundShare) -> list[float]:
    """Weights that sum to 1: in proportion to the samples, or equal."""
    if share == "equal":
        return [1.0 / len(samples)] * len(samples)
    total = sum(samples)
    return [count / total for count in samples]


def step_normalised(weights: Sequence[float], steps: Sequence[int]) -> list[float]:
    """FedNova's weights ``p_i * tau_eff / tau_i`` with ``tau_eff = sum p_i * tau_i``.

    A client that made more local steps does not pull harder. Wang et al. 2020, https://arxiv.org/abs/2007.07481,
    equation 10, for plain local SGD, in which a step's weight is 1.

    Args:
        weights: ``p_i``, which sum to 1.
        steps: ``tau_i``, local steps made.
    """
    effective = sum(weight * made for weight, made in zip(weights, steps, strict=True))
    return [weight * effective / made for weight, made in zip(weights, steps, strict=True)]


def check_sampling(share: str, seed: int, **least_one: int | None) -> None:
    """Refuse what no round can be made of; None is nothing said. Raises ValueError."""
    for name, value in least_one.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
    if share not in ("samples", "equal"):
        raise ValueError(f"share is {share!r}: expected 'samples' or 'equal'")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}: it must be at least 0 and below 2**64")


class Rounds(FederatedScheduler):
    """Synchronous rounds, one commit each.

    A round begins as soon as the last one is published and enough clients are free. It ends when nobody is out any
    more: a client that is lost does not hold it up. With a deadline it ends then, if enough results are there, and with
    the next result that makes them enough if not. Who comes later is dropped and free for the next round; who joins or
    fails during a round takes part in the next. A round with too few results left to wait for comes to nothing, and so
    does one that the run's end cuts short: a part of it would lean to the fast clients.

    Args:
        attempt: of the run, at least 1.
        steps: local steps of a piece of work.
        steps_by: ``"equal"``: the same for everybody; ``"samples"``: in proportion to the client's samples, ``steps``
            at the mean over all clients, which is the same number of passes over the data for everybody.
        clients_per_round: how many are drawn for a round, by ``seed`` and the round's number; None: all that are free.
        least_clients: so many must be free for a round to begin.
        round_seconds: a round's deadline; None: it waits for all.
        least_results: so many are needed for a commit.
        share: what a result counts within its round.
        normalise_steps: FedNova's weights; see `step_normalised`.
        seed: of the draws.
        speed, silence, most_failures: see `FederatedScheduler`.

    Raises:
        ValueError: a number below its least, an unknown word, or more results wanted than a round is sure to have
            clients.
    """

    name: ClassVar[str] = "rounds"

    def __init__(
        self,
        attempt: int,
        *,
        steps: int = 100,
        steps_by: Literal["equal", "samples"] = "equal",
        clients_per_round: int | None = None,
        least_clients: int = 1,
        round_seconds: float | None = None,
        least_results: int = 1,
        share: RoundShare = "samples",
        normalise_steps: bool = False,
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
            clients_per_round=clients_per_round,
            least_clients=least_clients,
            least_results=least_results,
        )
        if steps_by not in ("equal", "samples"):
            raise ValueError(f"steps_by is {steps_by!r}: expected 'equal' or 'samples'")
        if round_seconds is not None and not round_seconds > 0:
            raise ValueError(f"round_seconds is {round_seconds}: it must be above 0, or None to wait for all")
        surely = least_clients if clients_per_round is None else min(least_clients, clients_per_round)
        if least_results > surely:
            raise ValueError(
                f"least_results is {least_results}, and a round may have {surely} clients: "
                "raise least_clients and clients_per_round to it, or lower it"
            )
        self._steps = steps
        self._steps_by = steps_by
        self._clients_per_round = clients_per_round
        self._least_clients = least_clients
        self._round_seconds = round_seconds
        self._least_results = least_results
        self._share = share
        self._normalise_steps = normalise_steps
        self._seed = seed
        self._number = 0
        self._round: Round | None = None
        self._idle: dict[str, None] = {}

    def on_ready(self, client: Client) -> None:
        """It takes part in the next round."""
        self._idle[client.name] = None

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        """Into the round that waits for it; dropped where none does."""
        if self._round is not None and result.token in self._round.out:
            self._round.arrive(result.token)
        else:
            self.drop(result, f"late: its round, from version {result.version}, ended without it")
            if client.free:
                self._idle[client.name] = None

    def on_lost(self, client: Client, piece: Piece | None) -> None:
        """No round waits for it any longer."""
        self._idle.pop(client.name, None)
        if self._round is not None and piece is not None:
            self._round.out.pop(piece.token, None)

    def on_tick(self) -> None:
        """End the round if it is over, begin the next one if none runs."""
        if self._round is not None and self._over(self._round):
            self._end(self._round)
        if self._round is None and self.ready and len(self._idle) >= self._least_clients:
            self._begin()

    def extra_state(self) -> dict[str, Any]:
        """The round that runs, its number, who is idle."""
        return {
            "number": self._number,
            "round": None if self._round is None else self._round.state_dict(),
            "idle": list(self._idle),
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        self._number = state["number"]
        self._round = None if state["round"] is None else Round.of(state["round"])
        self._idle = dict.fromkeys(state["idle"])

    def check_valid(self) -> None:
        """Assert the invariants: who is idle is free, and what waits is the running round's."""
        super().check_valid()
        assert all(self.clients[name].free for name in self._idle), "a client is idle and not free"
        if not self.ready:
            return
        back = self._round.back if self._round is not None else {}
        assert back.keys() == self.waiting.keys(), "a result waits for no round"
        out = self._round.out if self._round is not None else {}
        assert all(token in self.clients[token.worker].pieces for token in out), "a round waits for work that ended"

    def _begin(self) -> None:
        self._number += 1
        self._round = Round(self._number, self.now)
        for name in sample(list(self._idle), self._clients_per_round, self._seed, self._number):
            del self._idle[name]
            client = self.clients[name]
            self._round.out[self.give(client, self._steps_of(client)).token] = None
        if self._round_seconds is not None:
            self._round.deadline = self.now + self._round_seconds
            self.wake_at(self._round.deadline)

    def _steps_of(self, client: Client) -> int:
        if self._steps_by == "equal":
            return self._steps
        return max(1, round(self._steps * self.share_of(client) * len(self.clients)))

    def _over(self, current: Round) -> bool:
        return not current.out or (self.now >= current.deadline and len(current.back) >= self._least_results)

    def _end(self, current: Round) -> None:
        self._round = None
        # In token order, so that the next round does not hang on who came first in this one.
        results = sorted((self.waiting[token] for token in current.back), key=lambda result: result.token.sequence)
        for result in results:
            if self.clients[result.worker].free:
                self._idle[result.worker] = None
        if len(results) < self._least_results:
            for result in results:
                self.drop(result, f"round came to nothing: {len(results)} of at least {self._least_results} results")
            return
        weights = round_weights([self.clients[result.worker].samples for result in results], self._share)
        if self._normalise_steps:
            weights = step_normalised(weights, [result.amount for result in results])
        self.commit(zip(results, weights, strict=True))
