"""A small federation: linear regression on drawn data, whose every step is known in closed form."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from isogon.actors.federation.client import FederatedClient, LocalModel, LocalWork, Model, Silo
from isogon.actors.federation.throttle import Throttle
from isogon.actors.federation.worker import ClientWorker
from isogon.learners.learner import AverageKind

FEATURES = 3
BREAKS, HANGS, GROWS = 13, 666, 17
"""Amounts at which a client raises, waits for the task's file, or answers with a weight too many."""


class RegressionClient:
    """Its data are drawn by its index; each step is one of stochastic gradient descent on two rows."""

    def __init__(self, silo: Silo, released: Path | None) -> None:
        generator = np.random.default_rng(silo.index)
        self.rows = generator.normal(size=(10 + silo.index, FEATURES))
        self.targets = self.rows @ np.arange(1.0, FEATURES + 1)
        self.released = released
        self.closed = False

    @property
    def samples(self) -> int:
        return len(self.rows)

    def train(self, model: Model, work: LocalWork) -> LocalModel:
        if work.steps == BREAKS:
            raise ArithmeticError("the sum came out wrong")
        while work.steps == HANGS and self.released is not None and not self.released.exists():
            time.sleep(0.02)
        weight = model["weight"].copy()
        for _ in range(work.steps):
            chosen = work.generator.integers(self.samples, size=2)
            error = self.rows[chosen] @ weight - self.targets[chosen]
            weight -= 0.05 * work.rate_scale * self.rows[chosen].T @ error
            work.after_step()
        if work.steps == GROWS:
            weight = np.append(weight, 0.0)
        seen = model["seen"] + work.steps
        return LocalModel({"seen": np.asarray(seen), "weight": weight}, work.steps, {"loss": float(error @ error)})

    def evaluate(self, model: Model, amount: int, generator: np.random.Generator) -> Mapping[str, float]:
        error = self.rows @ model["weight"] - self.targets
        return {"score": -float(error @ error), "passes": float(amount)}

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class Regression:
    """The task; a client named ``empty`` has no data. ``released`` is the file that a hung client waits for."""

    released: Path | None = None

    def initial_model(self) -> Model:
        return {"weight": np.zeros(FEATURES), "seen": np.zeros((), np.int64)}

    def kinds(self) -> Mapping[str, AverageKind]:
        return {"weight": "mean", "seen": "integer"}

    def make_client(self, silo: Silo) -> FederatedClient:
        if silo.name == "empty":
            raise ValueError("empty has no data")
        return RegressionClient(silo, self.released)

    def evaluate(self, model: Model) -> Mapping[str, float]:
        return {}

    def evaluate_final(self, model: Model) -> Mapping[str, float]:
        return self.evaluate(model)


def client_factories(
    task: Regression, names: list[str], seed: int, seconds_per_step: float | None = None
) -> dict[str, Callable[[], ClientWorker]]:
    """What makes each client's worker, by name; all are throttled, or none."""
    throttle = None if seconds_per_step is None else Throttle(seconds_per_step)
    silos = [Silo(name, index, len(names), seed) for index, name in enumerate(names)]
    return {silo.name: partial(ClientWorker, task, silo, throttle=throttle) for silo in silos}
