"""Whose data a federation classifies: the shipped digits, synthetic data, data of one's own."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Protocol, assert_never

import numpy as np

from ...learners.plugins import Plugin
from ...learners.randomness import stream
from .client import Silo
from .config import (
    ClassPartitionConfig,
    CustomDataConfig,
    DataConfig,
    DigitsConfig,
    DualDirichletPartitionConfig,
    EvenPartitionConfig,
    SyntheticDataConfig,
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


class SyntheticData:
    """Gaussian clouds around one centre for each class, the same for all; a client has a mix of classes of its own."""

    def __init__(self, config: SyntheticDataConfig, seed: int) -> None:
        self._config = config
        self._seed = seed
        self.features = config.features
        self.classes = config.classes
        centres = stream(seed, "synthetic centres").standard_normal((config.classes, config.features))
        self._centres = config.separation * centres / np.linalg.norm(centres, axis=1, keepdims=True)

    def load(self, silo: Silo) -> tuple[np.ndarray, np.ndarray]:
        """A silo's samples, drawn where it runs: nothing is kept for clients elsewhere."""
        generator = stream(self._seed, "synthetic silo", silo.index)
        size = max(round(self._config.samples * math.exp(self._config.samples_sigma * generator.standard_normal())), 1)
        mix = generator.dirichlet(np.full(self.classes, self._config.class_alpha / self.classes))
        return self._draw(generator.choice(self.classes, size=size, p=mix), generator)

    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """As many of every class."""
        labels = np.arange(self._config.test_samples) % self.classes
        return self._draw(labels, stream(self._seed, "synthetic test"))

    def _draw(self, labels: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        features = self._centres[labels] + generator.standard_normal((len(labels), self.features))
        return features.astype(np.float32), labels


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


def make_data(config: DataConfig, seed: int) -> LabelledData:
    """The data that a config names. Raises PluginError where own code cannot be used."""
    match config:
        case DigitsConfig():
            return DigitsData(config)
        case SyntheticDataConfig():
            return SyntheticData(config, seed)
        case CustomDataConfig():
            return CustomData(config)
        case _ as unknown:
            assert_never(unknown)


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
