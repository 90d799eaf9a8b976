"""Federated classification as a task: the model, its clients, the server's test."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from ...learners.learner import AverageKind
from ...learners.randomness import stream
from .classifier import ClassifierClient, Samples, initial_model, scores
from .client import Model, Silo
from .config import ClassifierConfig
from .labelled_data import LabelledData, make_data


class ClassifierTask:
    """A federation that trains one classifier.

    Args:
        config: of data, model and clients.
        seed: the run's.
    """

    def __init__(self, config: ClassifierConfig, seed: int) -> None:
        self._config = config
        self._seed = seed

    def __reduce__(self) -> tuple[type[ClassifierTask], tuple[ClassifierConfig, int]]:
        # Data that were loaded here are loaded anew where it is sent.
        return ClassifierTask, (self._config, self._seed)

    def initial_model(self) -> Model:
        """He's first weights, the same at every call."""
        return initial_model(self._widths, stream(self._seed, "initial model"))

    def kinds(self) -> Mapping[str, AverageKind]:
        """All tensors are trained."""
        return dict.fromkeys(self.initial_model(), "mean")

    def make_client(self, silo: Silo) -> ClassifierClient:
        """A client on its silo's samples.

        Raises:
            ValueError: it has none, or `test_share` leaves none on one side.
        """
        features, labels = self._data.load(silo)
        share = self._config.test_share
        tested = round(share * len(labels))
        if share and not 0 < tested < len(labels):
            raise ValueError(
                f"{silo.name} has {len(labels)} samples: test_share {share:g} of them leaves none to train on or none "
                "to test on; change test_share or give it more samples"
            )
        order = stream(silo.seed, "silo test", silo.index).permutation(len(labels))
        test, train = order[:tested], np.sort(order[tested:])
        training = Samples(features[train], labels[train], self._data.classes)
        return ClassifierClient(
            silo.name,
            self._widths,
            training,
            Samples(features[test], labels[test], self._data.classes) if tested else training,
            batch_size=self._config.batch_size,
            learning_rate=self._config.learning_rate,
            proximal=self._config.proximal,
        )

    def evaluate(self, model: Model) -> Mapping[str, float]:
        """Accuracy as ``score``, and ``loss``, over the server's test samples; empty where it has none."""
        return {} if self._test is None else scores(self._widths, model, self._test)

    def evaluate_final(self, model: Model) -> Mapping[str, float]:
        """The same."""
        return self.evaluate(model)

    @cached_property
    def _data(self) -> LabelledData:
        return make_data(self._config.data, self._seed)

    @cached_property
    def _test(self) -> Samples | None:
        test = self._data.test()
        return None if test is None else Samples(*test, self._data.classes)

    @cached_property
    def _widths(self) -> tuple[int, ...]:
        return self._data.features, *self._config.hidden, self._data.classes
