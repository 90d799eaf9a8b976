from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.schedulers import Compass, CompassOptions
from isogon.schedulers.events import (
    Assign,
    Command,
    Commit,
    Event,
)
from isogon.schedulers.federated import Silence
from isogon.schedulers.speed import SpeedOptions

from .compass_oracle import Oracle
from .federated_suite import FederatedMachine
from .virtual_clock import Applied, Given, StepTime, VirtualClock

Row: TypeAlias = tuple[float, list[tuple[str, int, int]], list[tuple[str, int, int, float, float]]]
"""At which time are applied (client, steps, staleness), and given (client, steps, group, T_a, T_max)."""


class CompassMachine(FederatedMachine):
    options: ClassVar[CompassOptions] = CompassOptions()
    least: ClassVar[int] = 20
    most: ClassVar[float] = 100

    def make_scheduler(self, attempt: int) -> Compass:
        return Compass(attempt, self.options, silence=Silence(3.0, 30.0))


class EveryOptionMachine(CompassMachine):
    options: ClassVar[CompassOptions] = CompassOptions(7, 7, 1.0, weights="equal", step_normalised=True, rearm=True)
    least = most = 7

    def make_scheduler(self, attempt: int) -> Compass:
        return Compass(attempt, self.options, speed=SpeedOptions(separate_link=True, median_of=3))


TestAnyOrder = CompassMachine.TestCase
TestAnyOrderWithEveryOption = EveryOptionMachine.TestCase


def constant_speeds(**seconds: float) -> StepTime:
    return lambda client, _: seconds[client]


def random_speeds(seed: int, clients: int, spread: float, jitter: float) -> StepTime:
    """Log-normal seconds per step, and noise of its own for each client; whatever the order of events."""
    base = np.exp(spread * np.random.default_rng(seed).standard_normal(clients))
    noise = [np.random.default_rng([seed, client]).standard_normal(1000) for client in range(clients)]
    return lambda client, piece: float(base[int(client)] * max(0.05, 1 + jitter * noise[int(client)][piece]))


GOLDEN: list[Row] = [
    (100, [("c0", 100, 0)], [("c0", 100, 0, 200, 220)]),
    (150, [("c1", 100, 1)], [("c1", 33, 0, 200, 220)]),
    (200, [("c0", 100, 1), ("c1", 33, 0)], [("c0", 100, 1, 300, 320), ("c1", 66, 1, 300, 320)]),
    (300, [("c0", 100, 0), ("c1", 66, 0)], [("c0", 100, 2, 400, 420), ("c1", 66, 2, 400, 420)]),
    (400, [("c2", 100, 4)], [("c2", 30, 3, 520, 544)]),
    (400, [("c0", 100, 1), ("c1", 66, 1)], [("c0", 100, 4, 500, 520), ("c1", 80, 3, 520, 544)]),
    (500, [("c0", 100, 0)], [("c0", 20, 3, 520, 544)]),
    (
        520,
        [("c0", 20, 0), ("c1", 80, 1), ("c2", 30, 2)],
        [("c0", 100, 5, 620, 640), ("c1", 66, 5, 620, 640), ("c2", 25, 5, 620, 640)],
    ),
]
for now in (620, 720, 820, 920):
    group = GOLDEN[-1][2][0][2] + 1
    steady = {"c0": 100, "c1": 66, "c2": 25}
    GOLDEN.append(
        (
            now,
            [(client, steps, 0) for client, steps in steady.items()],
            [(client, steps, group, now + 100, now + 120) for client, steps in steady.items()],
        )
    )


class Watched(VirtualClock):
    """Writes down which group each assignment is in."""

    rows: list[Row]

    def tell(self, event: Event) -> list[Command]:
        if not hasattr(self, "rows"):
            self.rows = []
        commands = super().tell(event)
        assert isinstance(self.scheduler, Compass)
        for command in commands:
            if isinstance(command, Assign) and event.time > 0:
                group = next(g for g in self.scheduler.groups.values() if command.worker in g.working)
                row = (command.worker, command.amount, group.number, group.expected, group.latest)
                self.rows[-1][2].append(row)
        return commands

    def apply(self, time: float, commit: Commit) -> None:
        super().apply(time, commit)
        applied = self.trace[-1]
        assert isinstance(applied, Applied)
        self.rows.append((time, [entry[:3] for entry in applied.entries], []))
        weights = {"c0": 0.9 * 10 / 60, "c1": 0.9 * 20 / 60, "c2": 0.9 * 30 / 60}
        for client, _, behind, weight in applied.entries:
            assert weight == pytest.approx(weights[client] / math.sqrt(1 + behind))


def test_the_golden_trace() -> None:
    samples = {"c0": 10, "c1": 20, "c2": 30}
    clock = Watched(Compass(1), samples, constant_speeds(c0=1.0, c1=1.5, c2=4.0))
    assert [given.steps for given in clock.trace if isinstance(given, Given)] == [100, 100, 100]
    while clock.answers[0][0] <= 920:
        clock.step()
    assert clock.rows == GOLDEN


@given(
    seed=st.integers(0, 10**6),
    clients=st.integers(1, 9),
    spread=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    jitter=st.sampled_from([0.0, 0.05, 0.5]),
    factor=st.sampled_from([1.0, 1.2, 1.5]),
    steps=st.sampled_from([(20, 100), (1, 10), (50, 100), (30, 30)]),
)
@settings(max_examples=300, deadline=None)
def test_as_the_slow_oracle(
    seed: int, clients: int, spread: float, jitter: float, factor: float, steps: tuple[int, int]
) -> None:
    samples = {str(client): 10 + 7 * client for client in range(clients)}
    step_time = random_speeds(seed, clients, spread, jitter)
    options = CompassOptions(*steps, factor)
    played = VirtualClock(Compass(1, options), samples, step_time).play(100)
    slow = Oracle(samples, step_time, *steps, factor).play(100)
    for ours, theirs in zip(played, slow, strict=True):
        assert ours == theirs
