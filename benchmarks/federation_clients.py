"""Clients that answer at once, for benchmarks: what a round costs beside training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from isogon.actors.federation.client import LocalModel, LocalWork, Model, Silo


@cache
def model_of(nbytes: int, value: float = 0.0) -> dict[str, np.ndarray]:
    """A float32 model of this size in four tensors, all numbers alike; a process has one, which nobody writes into."""
    numbers = np.full(nbytes // 4, value, np.float32)
    return {f"layer{index}": part for index, part in enumerate(np.array_split(numbers, 4))}


class AnswersAtOnce:
    """A client whose training is done already: its local model is always the same.

    What is left to do for its update, `ClientWorker` does: the difference to the global model, made anew each time. The
    class is given to a federation as own code.

    Args:
        silo: which client it is.
        nbytes: of the model.
    """

    samples = 1

    def __init__(self, silo: Silo, nbytes: int) -> None:
        self._local = model_of(nbytes, 1.0)

    @staticmethod
    def initial_model(seed: int, nbytes: int) -> Model:
        return model_of(nbytes)

    def train(self, model: Model, work: LocalWork) -> LocalModel:
        return LocalModel(self._local, work.steps)

    def evaluate(self, model: Model, amount: int, generator: np.random.Generator) -> Mapping[str, float]:
        return {"score": 0.0}


class BareAnswer:
    """The same payload there and back by a bare actor: no names, versions, checks or sums.

    Args:
        nbytes: of the model.
    """

    def __init__(self, nbytes: int) -> None:
        self._local = model_of(nbytes, 1.0)

    def answer(self, model: Model) -> Model:
        return {name: self._local[name] - part for name, part in model.items()}
