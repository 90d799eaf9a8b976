"""A federation of clients of one's own: a class that the config names, checked where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...actors.federation.client import FederatedClient, LocalModel, LocalWork, Model, Silo
from ...learners.learner import AverageKind
from ...learners.plugins import Plugin
from .config import CustomTaskConfig

_METHODS = ("train", "evaluate")


class CustomTask:
    """A `FederatedTask` of a class of one's own.

    The class is constructed as ``Class(silo, **kwargs)`` where its silo's data are. It has

    * a static or class method ``initial_model(seed, **kwargs)``: named numpy arrays, the model at its beginning;
    * ``samples``, an attribute or property: the size of its data, at least 1;
    * ``train(model, work)``, which gives a `LocalModel`, and ``evaluate(model, amount, generator)``, which gives
      figures by name, ``score`` among them; see `FederatedClient`;
    * where it has anything to free, ``close()``;
    * where the server has test data, a static or class method ``evaluate_on_server(model, **kwargs)``, as `evaluate`.

    Arrays of whole numbers are counts, and all others are averaged.

    Args:
        config: names the class.
        seed: the run's.

    Raises:
        PluginError: the class is not what it must be.
    """

    def __init__(self, config: CustomTaskConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._plugin = Plugin("task", config.class_)
        self._class = self._plugin.load()
        self._plugin.require(self._class, ("initial_model", *_METHODS))

    def __reduce__(self) -> tuple[type[CustomTask], tuple[CustomTaskConfig, int]]:
        return CustomTask, (self._config, self._seed)

    def initial_model(self) -> Model:
        """As the class has it."""
        made: Any = self._class
        with self._plugin.running("initial_model"):
            model = made.initial_model(self._seed, **self._config.kwargs)
        if not isinstance(model, Mapping) or not model:
            raise self._plugin.error(f"initial_model gave a {type(model).__name__}, expected named numpy arrays")
        for name, array in model.items():
            if not isinstance(name, str) or not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
                raise self._plugin.error(f"initial_model gave {name!r} as a {type(array).__name__}, expected an array")
        return dict(model)

    def kinds(self) -> Mapping[str, AverageKind]:
        """By dtype."""
        return {name: "mean" if part.dtype.kind == "f" else "integer" for name, part in self.initial_model().items()}

    def make_client(self, silo: Silo) -> FederatedClient:
        """An instance, made where it runs."""
        client = self._plugin.make(silo, **self._config.kwargs)
        self._plugin.require(client, _METHODS)
        samples = getattr(client, "samples", None)
        if not isinstance(samples, int | np.integer) or isinstance(samples, bool) or samples < 1:
            raise self._plugin.error(f"{silo.name} has samples {samples!r}, expected a whole number of at least 1")
        return _CheckedClient(self._plugin, client)

    def evaluate(self, model: Model) -> Mapping[str, float]:
        """As the class has it; empty where it has no ``evaluate_on_server``."""
        evaluate = getattr(self._class, "evaluate_on_server", None)
        if evaluate is None:
            return {}
        with self._plugin.running("evaluate_on_server"):
            return _checked_scores(self._plugin, "evaluate_on_server", evaluate(model, **self._config.kwargs))

    def evaluate_final(self, model: Model) -> Mapping[str, float]:
        """The same."""
        return self.evaluate(model)


class _CheckedClient:
    """A client of own code: whatever it raises is a PluginError that names its file and line."""

    def __init__(self, plugin: Plugin, client: Any) -> None:
        self._plugin = plugin
        self._client = client

    @property
    def samples(self) -> int:
        return int(self._client.samples)

    def train(self, model: Model, work: LocalWork) -> LocalModel:
        with self._plugin.running("train"):
            trained = self._client.train(model, work)
        if not isinstance(trained, LocalModel):
            raise self._plugin.error(f"train gave a {type(trained).__name__}, expected a LocalModel")
        return trained

    def evaluate(self, model: Model, amount: int, generator: np.random.Generator) -> Mapping[str, float]:
        with self._plugin.running("evaluate"):
            return _checked_scores(self._plugin, "evaluate", self._client.evaluate(model, amount, generator))

    def close(self) -> None:
        if callable(close := getattr(self._client, "close", None)):
            with self._plugin.running("close"):
                close()


def _checked_scores(plugin: Plugin, what: str, scores: Any) -> Mapping[str, float]:
    if not isinstance(scores, Mapping) or "score" not in scores:
        raise plugin.error(f"{what} gave {scores!r:.80}, expected figures by name with 'score' among them")
    return {str(name): float(value) for name, value in scores.items()}
