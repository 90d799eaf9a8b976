"""A small classifier in numpy, and the federated client that trains it: quick, and the same bits every time.

B is the batch size, F the number of features, C of classes, N of samples. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from .client import LocalModel, LocalWork, Model


class Classifier:
    """Fully connected layers with ReLU, softmax on top; the mean cross-entropy of a batch, one SGD step at a time.

    A layer's weights and bias are one matrix, whose last row is the bias, and all matrices lie in one vector, so that a
    step is one subtraction. Nothing is allocated in a step.

    Args:
        widths: F, those of the hidden layers, C.
        batch_size: B of `step`.
    """

    def __init__(self, widths: tuple[int, ...], batch_size: int) -> None:
        shapes = [(inputs + 1, outputs) for inputs, outputs in pairwise(widths)]
        ends = np.cumsum([rows * columns for rows, columns in shapes])
        self._parameters = np.zeros(ends[-1], np.float32)
        self._gradient = np.zeros_like(self._parameters)
        self._layers = _matrices(self._parameters, ends, shapes)
        self._gradients = _matrices(self._gradient, ends, shapes)
        # Layers' inputs end with a column of ones, which the bias is multiplied by.
        self._inputs = [np.ones((batch_size, width + 1), np.float32) for width in widths[:-1]]
        self._hidden = [inputs[:, :-1] for inputs in self._inputs]
        self._active = [np.zeros(hidden.shape, bool) for hidden in self._hidden]
        self._deltas = [np.zeros((batch_size, width), np.float32) for width in widths[1:]]
        self._target = np.zeros((batch_size, widths[-1]), np.float32)
        self._row = np.zeros((batch_size, 1), np.float32)
        self._anchor = np.zeros_like(self._parameters)
        self._batch_size = batch_size

    def load(self, model: Model) -> None:
        """Take over a model's weights. It is what FedProx's penalty pulls towards from now on."""
        for index, layer in enumerate(self._layers):
            layer[:-1] = model[f"layers.{index}.weight"]
            layer[-1] = model[f"layers.{index}.bias"]
        self._anchor[:] = self._parameters

    def model(self) -> dict[str, np.ndarray]:
        """The weights, copied: ``layers.<i>.weight [inputs, outputs]`` and ``layers.<i>.bias [outputs]``."""
        named: dict[str, np.ndarray] = {}
        for index, layer in enumerate(self._layers):
            named[f"layers.{index}.weight"] = layer[:-1].copy()
            named[f"layers.{index}.bias"] = layer[-1].copy()
        return named

    def step(self, data: Samples, rows: np.ndarray, rate: float, proximal: float = 0.0) -> np.ndarray:
        """One step of SGD on the batch's mean cross-entropy and ``proximal / 2 * |w - w_loaded|^2``.

        The penalty is equation 2 of Li et al. 2020, "Federated optimization in heterogeneous networks"
        (https://arxiv.org/abs/1812.06127).

        Args:
            data: where the samples are.
            rows: the batch, ``[B] int64``.
            rate: the learning rate.
            proximal: the penalty's weight.

        Returns:
            ``[B] float32``, the probability that the model gave the right class before the step.
        """
        data.inputs.take(rows, 0, self._inputs[0], "clip")
        data.one_hot.take(rows, 0, self._target, "clip")
        top = len(self._layers) - 1
        for index in range(top):
            np.matmul(self._inputs[index], self._layers[index], out=self._hidden[index + 1])
            np.maximum(self._hidden[index + 1], 0.0, out=self._hidden[index + 1])
        delta = self._deltas[top]
        np.matmul(self._inputs[top], self._layers[top], out=delta)
        _softmax(delta, self._row)
        right: np.ndarray = np.einsum("bc,bc->b", delta, self._target)
        delta -= self._target
        delta *= np.float32(rate / self._batch_size)
        for index in range(top, 0, -1):
            np.matmul(self._inputs[index].T, delta, out=self._gradients[index])
            below = self._deltas[index - 1]
            np.matmul(delta, self._layers[index][:-1].T, out=below)
            np.greater(self._hidden[index], 0.0, out=self._active[index])
            below *= self._active[index]
            delta = below
        np.matmul(self._inputs[0].T, delta, out=self._gradients[0])
        if proximal:
            pull = np.float32(rate * proximal)
            self._gradient += pull * (self._parameters - self._anchor)
        self._parameters -= self._gradient
        return right

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """``[N, C] float32`` for inputs ``[N, F + 1]`` that end with a column of ones."""
        for layer in self._layers[:-1]:
            hidden = np.ones((len(inputs), layer.shape[1] + 1), np.float32)
            np.matmul(inputs, layer, out=hidden[:, :-1])
            np.maximum(hidden, 0.0, out=hidden)
            inputs = hidden
        logits: np.ndarray = np.matmul(inputs, self._layers[-1])
        _softmax(logits, np.empty((len(inputs), 1), np.float32))
        return logits


class Samples:
    """Labelled samples in the form that `Classifier` reads.

    Attributes:
        inputs: ``[N, F + 1] float32``, the features and a column of ones.
        labels: ``[N] int64``.
        one_hot: ``[N, C] float32``.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, classes: int) -> None:
        self.inputs = np.ones((len(features), features.shape[1] + 1), np.float32)
        self.inputs[:, :-1] = features
        self.labels = labels
        self.one_hot = np.zeros((len(labels), classes), np.float32)
        self.one_hot[np.arange(len(labels)), labels] = 1.0

    def __len__(self) -> int:
        return len(self.labels)


def initial_model(widths: tuple[int, ...], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """First weights: normal with variance ``2 / inputs`` (He et al. 2015, https://arxiv.org/abs/1502.01852, eq. 10).

    Biases are 0. Names and shapes are those of `Classifier.model`.
    """
    named: dict[str, np.ndarray] = {}
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        named[f"layers.{index}.weight"] = generator.normal(0.0, (2.0 / inputs) ** 0.5, (inputs, outputs)).astype(
            np.float32
        )
        named[f"layers.{index}.bias"] = np.zeros(outputs, np.float32)
    return named


def scores(widths: tuple[int, ...], model: Model, data: Samples) -> dict[str, float]:
    """How good a model is: ``score``, the accuracy, and ``loss``, the mean cross-entropy."""
    classifier = Classifier(widths, 1)
    classifier.load(model)
    given = classifier.probabilities(data.inputs)
    right = given[np.arange(len(data)), data.labels]
    return {"score": float((given.argmax(axis=1) == data.labels).mean()), "loss": _cross_entropy(right)}


class ClassifierClient:
    """A federated client that trains a `Classifier` on its own samples.

    Batches are cut from one shuffled pass over the samples after the other; all are full, so that one may hold the end
    of a pass and the beginning of the next.

    Args:
        name: the silo's.
        widths: of the classifier.
        train: the samples that it trains on, at least 1.
        test: those that it is tested on.
        batch_size: samples in a local step.
        learning_rate: of SGD.
        proximal: FedProx's mu.
    """

    def __init__(
        self,
        name: str,
        widths: tuple[int, ...],
        train: Samples,
        test: Samples,
        *,
        batch_size: int,
        learning_rate: float,
        proximal: float = 0.0,
    ) -> None:
        self._name = name
        self._widths = widths
        self._train = train
        self._test = test
        self._batch_size = batch_size
        self._learning_rate = learning_rate
        self._proximal = proximal

    @property
    def samples(self) -> int:
        """How many it trains on."""
        return len(self._train)

    def train(self, model: Model, work: LocalWork) -> LocalModel:
        """Train from the global model. Raises ValueError where the weights do not stay finite."""
        # Made for each piece of work: thousands of clients that wait for one need no buffers.
        classifier = Classifier(self._widths, self._batch_size)
        classifier.load(model)
        rate = self._learning_rate * work.rate_scale
        batches = self._batches(work)
        right = np.empty(batches.shape, np.float32)
        # What overflows is not finite in the end, and reported then.
        with np.errstate(over="ignore", invalid="ignore"):
            for index, rows in enumerate(batches):
                right[index] = classifier.step(self._train, rows, rate, self._proximal)
                work.after_step()
        tensors = classifier.model()
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise ValueError(f"{self._name}: training diverged at learning rate {rate:g}: lower learning_rate")
        return LocalModel(tensors, work.steps, {"loss": _cross_entropy(right)})

    def evaluate(self, model: Model, amount: int, generator: np.random.Generator) -> Mapping[str, float]:
        """Accuracy as ``score``, and ``loss``, over its test samples, each of them once whatever the ``amount``."""
        return scores(self._widths, model, self._test)

    def close(self) -> None:
        """Nothing is held."""

    def _batches(self, work: LocalWork) -> np.ndarray:
        """Rows of each step, ``[steps, B] int64``."""
        wanted = work.steps * self._batch_size
        passes = np.tile(np.arange(len(self._train)), (-(-wanted // len(self._train)), 1))
        shuffled: np.ndarray = work.generator.permuted(passes, axis=1)
        return shuffled.reshape(-1)[:wanted].reshape(work.steps, self._batch_size)


def _matrices(vector: np.ndarray, ends: np.ndarray, shapes: list[tuple[int, int]]) -> list[np.ndarray]:
    return [part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), shapes, strict=True)]


def _softmax(logits: np.ndarray, row: np.ndarray) -> None:
    """Softmax in place; ``row [N, 1]`` is scratch."""
    logits.max(axis=1, keepdims=True, out=row)
    logits -= row
    np.exp(logits, out=logits)
    logits.sum(axis=1, keepdims=True, out=row)
    logits /= row


def _cross_entropy(right: np.ndarray) -> float:
    """Mean negative logarithm of the right classes' probabilities, each at least float32's smallest normal number."""
    return float(-np.log(np.maximum(right, np.finfo(np.float32).tiny)).mean(dtype=np.float64))
