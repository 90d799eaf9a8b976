"""How long clients' work takes on the virtual clock.

What is drawn for a client comes from that client's own streams, and what is drawn for a piece of work from the piece's:
no result depends on the order of events, or on how many clients there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from ...learners.randomness import stream
from ..pools.virtual import Duration
from .simulation_config import (
    ExponentialSpeedsConfig,
    HomogeneousSpeedsConfig,
    ListedSpeedsConfig,
    NormalSpeedsConfig,
    SpeedsConfig,
    VirtualClockConfig,
)

_LEAST_JITTERED = 0.01
"""Of a client's seconds per step: no piece of work is faster, whatever is drawn."""


@dataclass(frozen=True, slots=True)
class ClientTimes:
    """What a client is like.

    Attributes:
        seconds_per_step: of training, on average.
        bytes_per_second: of its link; infinite where bytes take no time.
        latency: seconds before the first byte, each way.
        wait: mean seconds in its batch queue.
        joins: when it is first there, in virtual seconds.
        leaves: when it leaves for good; infinite where it never does.
    """

    seconds_per_step: float
    bytes_per_second: float
    latency: float
    wait: float
    joins: float
    leaves: float


class ClientDurations:
    """The durations that a `VirtualClockConfig` describes; a `DurationModel`.

    Seconds per step are ``t_i`` for a client and ``t ~ N(t_i, (jitter t_i)^2)`` for a piece of work.

    Args:
        config: what is known of clients.
        seed: the run's.
    """

    def __init__(self, config: VirtualClockConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._clients: dict[int, ClientTimes] = {}

    def client(self, index: int) -> ClientTimes:
        """What a client is like, whenever it is asked for.

        Raises:
            ValueError: speeds are listed, and not for so many clients.
        """
        if index not in self._clients:
            self._clients[index] = self._draw_client(index)
        return self._clients[index]

    def train(self, index: int, sequence: int, amount: int, nbytes_down: int, nbytes_up: int) -> Duration:
        """The duration of one piece of training; see `DurationModel`."""
        client, dropouts = self.client(index), self._config.dropouts
        generator = stream(self._seed, "duration", index, sequence)
        # All is drawn whether it is needed or not, so that switching one thing on leaves the others as they were.
        jitter, queue = generator.standard_normal(2).tolist()
        lost, gone, hangs, moment = generator.random(4).tolist()
        away = dropouts.away_seconds * generator.standard_exponential()
        step = client.seconds_per_step * max(1.0 + self._config.speeds.jitter * jitter, _LEAST_JITTERED)
        compute = math.inf if hangs < dropouts.hang_probability else amount * step
        down = client.latency + nbytes_down / client.bytes_per_second
        wait = client.wait * _log_normal(queue, self._config.queues.sigma, mean=True)
        if lost < dropouts.probability:
            back_after = math.inf if gone < dropouts.gone_probability else away
            return Duration(down, wait, moment * amount * step, 0.0, lost=True, back_after=back_after)
        return Duration(down, wait, compute, client.latency + nbytes_up / client.bytes_per_second)

    def _draw_client(self, index: int) -> ClientTimes:
        links, queues, presence = self._config.links, self._config.queues, self._config.presence
        generator = stream(self._seed, "client times", index)
        bandwidth, latency, wait = generator.standard_normal(3).tolist()
        late, joins, leaving, leaves = generator.random(4).tolist()
        joined = joins * presence.late_seconds if late < presence.late_share else 0.0
        return ClientTimes(
            seconds_per_step=_seconds_per_step(self._config.speeds, index, generator),
            bytes_per_second=(links.bytes_per_second or math.inf) * _log_normal(bandwidth, links.bandwidth_sigma),
            latency=links.latency * _log_normal(latency, links.latency_sigma),
            wait=queues.mean_seconds * _log_normal(wait, queues.client_sigma, mean=True),
            joins=joined,
            leaves=joined + leaves * presence.leaving_seconds if leaving < presence.leaving_share else math.inf,
        )


def _log_normal(normal: float, sigma: float, *, mean: bool = False) -> float:
    """A log-normal number of median 1, or of mean 1, from a standard normal one."""
    return math.exp(sigma * normal - (sigma**2 / 2 if mean else 0.0))


def _seconds_per_step(speeds: SpeedsConfig, index: int, generator: np.random.Generator) -> float:
    match speeds:
        case HomogeneousSpeedsConfig():
            return speeds.seconds_per_step
        case NormalSpeedsConfig():
            return speeds.seconds_per_step * max(generator.normal(1.0, speeds.spread), speeds.least)
        case ExponentialSpeedsConfig():
            return speeds.seconds_per_step * max(generator.standard_exponential(), speeds.least)
        case ListedSpeedsConfig():
            if index >= len(speeds.seconds_per_step):
                raise ValueError(
                    f"speeds.seconds_per_step lists {len(speeds.seconds_per_step)} clients, and there is one more "
                    f"({index + 1}): list a speed for each client"
                )
            return speeds.seconds_per_step[index]
        case _ as unknown:
            assert_never(unknown)
