"""A client of own code that a config can name: what it answers follows from who it is and how much it was asked."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from isogon.actors.federation.client import LocalModel, LocalWork, Model, Silo

BY_STEP = {"weight": 1.0, "other": -0.5}


class Counting:
    """Adds ``(1 + index) * BY_STEP`` to the model with each step.

    Args:
        silo: who it is.
        folder: where it leaves its process id under its name, and is told by files to hang or to raise.
        step_seconds: of a step.
    """

    def __init__(self, silo: Silo, folder: str, step_seconds: float = 0.0) -> None:
        self.silo = silo
        self.folder = Path(folder)
        self.step_seconds = step_seconds
        self.samples = 10 + silo.index
        (self.folder / silo.name).write_text(str(os.getpid()))

    @staticmethod
    def initial_model(seed: int, **kwargs: object) -> dict[str, np.ndarray]:
        return {name: np.zeros(2) for name in BY_STEP}

    def train(self, model: Model, work: LocalWork) -> LocalModel:
        if (self.folder / f"raise-{self.silo.name}").exists():
            raise ArithmeticError("told to raise")
        while (self.folder / f"hang-{self.silo.name}").exists():
            time.sleep(0.05)
        for _ in range(work.steps):
            time.sleep(self.step_seconds)
            work.after_step()
        by = work.steps * (1 + self.silo.index)
        return LocalModel({name: model[name] + by * step for name, step in BY_STEP.items()}, work.steps)

    def evaluate(self, model: Model, amount: int, generator: np.random.Generator) -> dict[str, float]:
        return {"score": float(model["weight"][0])}

    @staticmethod
    def evaluate_on_server(model: Model, **kwargs: object) -> dict[str, float]:
        return {"score": float(model["weight"][0])}
