"""The numpy classifier against float64, and its client: the same bits wherever it trains."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from isogon.actors.federation.classifier import Classifier, ClassifierClient, Samples, initial_model, scores
from isogon.actors.federation.client import LocalWork, Model
from isogon.learners.randomness import stream

WIDTHS = (7, 6, 5, 4)
B = 9


def made(widths: tuple[int, ...] = WIDTHS, rows: int = 30) -> tuple[Model, Samples]:
    generator = stream(0, "test")
    features = generator.normal(size=(rows, widths[0])).astype(np.float32)
    labels = generator.integers(widths[-1], size=rows)
    model = {name: array + np.float32(0.1) for name, array in initial_model(widths, generator).items()}
    return model, Samples(features, labels, widths[-1])


def objective(model: Model, start: Model, data: Samples, rows: np.ndarray, proximal: float) -> float:
    """FedProx's local objective in float64, straight from its definition."""
    hidden = data.inputs[rows, :-1].astype(np.float64)
    layers = len(model) // 2
    for index in range(layers):
        hidden = hidden @ model[f"layers.{index}.weight"] + model[f"layers.{index}.bias"]
        if index < layers - 1:
            hidden = np.maximum(hidden, 0)
    logarithms = hidden - np.log(np.exp(hidden).sum(axis=1, keepdims=True))
    distance = sum(float(((model[name] - start[name]) ** 2).sum()) for name in model)
    return -float(logarithms[np.arange(len(rows)), data.labels[rows]].mean()) + proximal / 2 * distance


@pytest.mark.parametrize("widths", [WIDTHS, (7, 4), (64, 32, 10)])
@pytest.mark.parametrize("proximal", [0.0, 3.0])
def test_a_step_goes_down_the_gradient(widths: tuple[int, ...], proximal: float) -> None:
    start, data = made(widths)
    classifier = Classifier(widths, B)
    classifier.load(start)
    rows = np.arange(B) * 3
    classifier.step(data, rows, 0.5, proximal)
    before = classifier.model()
    rate = 0.125
    classifier.step(data, rows[::-1].copy(), rate, proximal)
    after = classifier.model()
    generator = stream(1, "test")
    for name, array in before.items():
        for index in map(tuple, generator.integers(array.shape, size=(4, array.ndim))):
            sides = []
            for shift in (1e-5, -1e-5):
                moved = {key: value.astype(np.float64) for key, value in before.items()}
                moved[name][index] += shift
                sides.append(objective(moved, start, data, rows, proximal))
            gradient = (sides[0] - sides[1]) / 2e-5
            assert (array[index] - after[name][index]) / rate == pytest.approx(gradient, rel=1e-3, abs=2e-5), name


def test_probabilities_are_those_before_the_step_and_of_the_right_class() -> None:
    model, data = made()
    classifier = Classifier(WIDTHS, B)
    classifier.load(model)
    rows = np.arange(B)
    expected = classifier.probabilities(data.inputs[rows])
    np.testing.assert_allclose(expected.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(classifier.step(data, rows, 0.1), expected[rows, data.labels[rows]], rtol=1e-5)
    found = scores(WIDTHS, model, data)
    assert found["loss"] == pytest.approx(objective(model, model, data, np.arange(len(data)), 0.0), rel=1e-5)


def test_models_are_copies() -> None:
    model, data = made()
    kept = {name: array.copy() for name, array in model.items()}
    client = client_of(data)
    trained = client.train(model, LocalWork(3, 1, stream(0, "work"))).tensors
    held = {name: array.copy() for name, array in trained.items()}
    client.train(trained, LocalWork(3, 1, stream(0, "work")))
    assert all((model[name] == kept[name]).all() and (trained[name] == held[name]).all() for name in model)
    assert {name: (array.shape, array.dtype) for name, array in trained.items()} == {
        name: (array.shape, array.dtype) for name, array in model.items()
    }


def client_of(data: Samples, rate: float = 0.1, proximal: float = 0.0, batch: int = B) -> ClassifierClient:
    return ClassifierClient("a", WIDTHS, data, data, batch_size=batch, learning_rate=rate, proximal=proximal)


def test_every_sample_is_drawn_once_in_a_pass() -> None:
    _, data = made(rows=30)
    client = client_of(data, batch=9)
    rows = client._batches(LocalWork(10, 1, stream(0, "work"))).ravel()
    assert rows.shape == (90,)
    for begin in (0, 30, 60):
        assert sorted(rows[begin : begin + 30]) == list(range(30))
    assert not (rows[:30] == rows[30:60]).all()


def test_rate_scale_calls_and_steps() -> None:
    model, data = made()
    calls: list[int] = []
    work = LocalWork(5, 1, stream(0, "work"), rate_scale=0.5, after_step=lambda: calls.append(1))
    half = client_of(data, rate=0.2).train(model, work)
    assert (len(calls), half.steps) == (5, 5)
    same = client_of(data, rate=0.1).train(model, LocalWork(5, 1, stream(0, "work")))
    assert all((half.tensors[name] == same.tensors[name]).all() for name in model)


def test_the_penalty_holds_a_client_back() -> None:
    model, data = made()

    def moved(proximal: float) -> float:
        trained = client_of(data, proximal=proximal).train(model, LocalWork(200, 1, stream(0, "work"))).tensors
        return sum(float(((trained[name] - model[name]) ** 2).sum()) for name in model)

    assert moved(0.0) > 2 * moved(1.0) > 4 * moved(10.0) > 0


def test_training_that_diverges_says_so() -> None:
    model, data = made()
    with pytest.raises(ValueError, match=r"a: training diverged at learning rate 1e\+38: lower learning_rate"):
        client_of(data, rate=1e38).train(model, LocalWork(50, 1, stream(0, "work")))


HASH = """
from tests.actors.test_classifier import trained_hash
print(trained_hash())
"""


def trained_hash() -> str:
    widths = (64, 48, 10)
    model, data = made(widths, rows=100)
    client = ClassifierClient("a", widths, data, data, batch_size=32, learning_rate=0.05, proximal=0.1)
    trained = client.train(model, LocalWork(100, 1, stream(0, "work"))).tensors
    return hashlib.sha256(b"".join(trained[name].tobytes() for name in sorted(trained))).hexdigest()


def test_a_hundred_steps_are_the_same_bits_in_another_process_with_another_number_of_threads() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", HASH], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert {trained_hash(), trained_hash()} == {run.stdout.strip()}
