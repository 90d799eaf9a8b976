"""Federated classification as a task: whose data it is, the model, its clients, the server's test."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, lru_cache
from typing import Any, Protocol, assert_never

import numpy as np

from ...learners.learner import AverageKind
from ...learners.plugins import Plugin
from ...learners.randomness import stream
from .classifier import ClassifierClient, Samples, initial_model, scores
from .client import Model, Silo
from .config import (
    ClassifierConfig,
    ClassPartitionConfig,
    CustomDataConfig,
    DigitsConfig,
    DualDirichletPartitionConfig,
    EvenPartitionConfig,
)
from .digits import CLASSES, load_digits
from .partition import Parts, class_partition, dual_dirichlet_partition, even_partition, with_least


class LabelledData(Protocol):
    """Labelled samples of every silo, and the server's own for testing. The contract of data of one's own.

    Features are ``[N, F] float32`` and finite, labels ``[N] int64`` in 0..C-1, at least one sample.
    """

    @property
    def features(self) -> int:
        """F."""
        ...

    @property
    def classes(self) -> int:
        """C, at least 2."""
        ...

    def load(self, silo: Silo) -> tuple[np.ndarray, np.ndarray]:
        """A silo's features and labels; called where the silo's client runs, once for each of its lives."""
        ...

    def test(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The server's features and labels; None where it has none, and the clients are asked."""
        ...


class DigitsData:
    """The shipped digits, a share of them dealt to the clients."""

    features = 64
    classes = CLASSES

    def __init__(self, config: DigitsConfig) -> None:
        self._config = config

    def load(self, silo: Silo) -> tuple[np.ndarray, np.ndarray]:
        """A silo's part. Raises ValueError where the samples cannot be dealt to so many clients."""
        rows = _digits_parts(self._config, silo.clients, silo.seed)[silo.index]
        images, labels = load_digits()
        return images[rows], labels[rows]

    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """What no client has."""
        images, labels = load_digits()
        _, rows = _digits_split(self._config.train_share, self._config.split_seed)
        return images[rows], labels[rows]


class CustomData:
    """Data of own code: what it raises names it, and what it gives is checked."""

    def __init__(self, config: CustomDataConfig) -> None:
        self._plugin = Plugin("data", config.class_)
        self._data = self._plugin.make(**config.kwargs)
        self._plugin.require(self._data, ("load", "test"))
        self.features = self._number("features", 1)
        self.classes = self._number("classes", 2)

    def load(self, silo: Silo) -> tuple[np.ndarray, np.ndarray]:
        """A silo's samples. Raises PluginError, as `test` does."""
        with self._plugin.running(f"load for {silo.name}"):
            given = self._data.load(silo)
        return self._checked(f"load for {silo.name}", given)

    def test(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The server's own."""
        with self._plugin.running("test"):
            given = self._data.test()
        return None if given is None else self._checked("test", given)

    def _number(self, name: str, least: int) -> int:
        with self._plugin.running(name):
            value = getattr(self._data, name, None)
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise self._plugin.error(f"{name} is {value!r}, expected a whole number of at least {least}")
        return int(value)

    def _checked(self, what: str, given: Any) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(given, tuple) or len(given) != 2:
            raise self._plugin.error(f"{what} gave a {type(given).__name__}, expected (features, labels)")
        features, labels = given
        size = len(labels) if getattr(labels, "shape", ()) else 0
        if size == 0:
            raise self._plugin.error(f"{what} gave no samples: a silo without data cannot take part")
        self._plugin.check_array(f"{what} gave labels as", labels, (size,), "int64")
        self._plugin.check_array(f"{what} gave features as", features, (size, self.features), "float32")
        if not np.isfinite(features).all():
            row = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise self._plugin.error(f"{what} gave features that are not finite, first in row {row}")
        if labels.min() < 0 or labels.max() >= self.classes:
            wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
            raise self._plugin.error(f"{what} gave label {wrong}, expected 0 to {self.classes - 1}")
        return features, labels


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
        config = self._config.data
        return DigitsData(config) if isinstance(config, DigitsConfig) else CustomData(config)

    @cached_property
    def _test(self) -> Samples | None:
        test = self._data.test()
        return None if test is None else Samples(*test, self._data.classes)

    @cached_property
    def _widths(self) -> tuple[int, ...]:
        return self._data.features, *self._config.hidden, self._data.classes


@lru_cache(maxsize=4)
def _digits_split(train_share: float, split_seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows that clients have, and rows that the server tests on."""
    size = len(load_digits()[1])
    order = stream(split_seed, "digits split").permutation(size)
    trained = int(train_share * size)
    if not 0 < trained < size:
        raise ValueError(
            f"train_share is {train_share}: of {size} digits it leaves none to train on, or none to test on"
        )
    return np.sort(order[:trained]), np.sort(order[trained:])


@lru_cache(maxsize=4)
def _digits_parts(config: DigitsConfig, clients: int, seed: int) -> Parts:
    """Rows of each client. Cached, for every client of a process asks for them."""
    rows, _ = _digits_split(config.train_share, config.split_seed)
    labels = load_digits()[1][rows]
    generator = stream(seed, "partition")
    match config.partition:
        case EvenPartitionConfig():
            parts = even_partition(labels, clients, generator)
        case ClassPartitionConfig(fewest=fewest, most=most):
            parts = class_partition(labels, clients, fewest, most, generator)
        case DualDirichletPartitionConfig(size_alpha=size_alpha, class_alpha=class_alpha):
            parts = dual_dirichlet_partition(labels, clients, size_alpha or clients, class_alpha, generator)
        case _ as unknown:
            assert_never(unknown)
    return [rows[part] for part in with_least(parts, config.partition.least_samples, generator)]
