from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from isogon.actors.federation.client import LocalModel, LocalWork, Model, Silo
from isogon.actors.federation.throttle import Throttle
from isogon.actors.federation.worker import ClientWorker, make_update
from isogon.learners.randomness import stream
from isogon.schedulers.events import WorkKind

from .client_pool_suite import SEED, global_model, work
from .regression import FEATURES, Regression, RegressionClient

SILO = Silo("north", 0, 3, SEED)
START = {"a": np.arange(4.0, dtype=np.float32), "b": np.array(2.0), "n": np.array(7)}
KINDS = {"a": "mean", "b": "statistic", "n": "integer"}


@dataclass
class Slept:
    """A clock that only sleeping and working move."""

    now: float = 100.0
    sleeps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def test_an_update_is_the_change_of_what_is_trained_and_the_value_of_what_is_not() -> None:
    local = {"n": np.array(9), "b": np.array(0.5), "a": np.array([1, 1, 1, 1], np.float32)}
    update = make_update("north", START, local, KINDS)  # type: ignore[arg-type]
    assert list(update) == ["a", "b", "n"]
    np.testing.assert_array_equal(update["a"], np.array([1, 0, -1, -2], np.float32), strict=True)
    np.testing.assert_array_equal(update["b"], np.array(0.5), strict=True)
    # The client goes on: what crosses the link stays.
    local["n"][...] = 0
    assert update["n"] == np.array(9)


def test_a_trained_scalar_crosses_as_an_array() -> None:
    update = make_update("north", {"a": np.array(1.0)}, {"a": np.array(3.0)}, {"a": "mean"})
    assert isinstance(update["a"], np.ndarray)
    assert update["a"].shape == ()


@pytest.mark.parametrize(
    ("local", "message"),
    [
        ({"a": START["a"]}, "north answered with tensors a: the global model has a, b, n"),
        ({**START, "c": START["b"]}, "north answered with tensors a, b, c, n: the global model has a, b, n"),
        (
            {**START, "a": np.zeros(5, np.float32)},
            r"north answered with a of shape \(5,\): the global model's is \(4,\)",
        ),
        ({**START, "n": np.array(7.0)}, "north answered with n of dtype float64: the global model's is int64"),
    ],
)
def test_an_answer_that_does_not_fit_is_named(local: Model, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_update("north", START, local, KINDS)  # type: ignore[arg-type]


def test_kinds_must_name_the_models_tensors() -> None:
    with pytest.raises(ValueError, match="the task's kinds are of tensors a: the global model has a, b, n"):
        make_update("north", START, START, {"a": "mean"})


def test_training_is_named_by_seed_client_and_sequence() -> None:
    def weight(sequence: int, seed: int = SEED) -> list[float]:
        worker = ClientWorker(Regression(), replace(SILO, seed=seed))
        return list(worker.run(work("north", sequence), global_model(1)).payload["weight"])

    assert weight(3) == weight(3)
    assert weight(3) != weight(4)
    assert weight(3) != weight(3, seed=SEED + 1)
    client = RegressionClient(SILO, None)
    start = global_model(1).tensors
    local = client.train(start, LocalWork(7, 1, stream(SEED, "client", 0, 3), rate_scale=0.5))
    assert weight(3) == list(local.tensors["weight"] - start["weight"])


def test_what_a_client_must_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = ClientWorker(Regression(), SILO)
    with pytest.raises(ValueError, match="asks for version 2, and the weights are 1's"):
        worker.run(work("north", 0, version=2), global_model(1))
    with pytest.raises(ValueError, match="is of kind 'rollout': a client does 'train' and 'evaluate'"):
        worker.run(work("north", 0, kind="rollout"), global_model(1))
    monkeypatch.setattr(RegressionClient, "train", lambda self, model, work: LocalModel(model, 0))
    with pytest.raises(ValueError, match="north answered with 0 steps: at least 1 of 7"):
        worker.run(work("north", 0), global_model(1))
    monkeypatch.setattr(RegressionClient, "evaluate", lambda self, *_: {"loss": 1.0})
    kind: WorkKind = "evaluate"
    with pytest.raises(ValueError, match="north evaluated loss: 'score' is missing"):
        worker.run(work("north", 0, kind=kind), global_model(1))


def test_a_client_without_samples_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RegressionClient, "samples", 0)
    with pytest.raises(ValueError, match="north has 0 samples: a client needs at least 1"):
        ClientWorker(Regression(), SILO)


def test_a_client_begins_anew_when_told() -> None:
    made: list[RegressionClient] = []

    class Remembered(Regression):
        def make_client(self, silo: Silo) -> RegressionClient:
            made.append(RegressionClient(silo, None))
            return made[-1]

    worker = ClientWorker(Remembered(), SILO)
    worker.reset()
    assert [client.closed for client in made] == [True, False]
    worker.close()
    assert [client.closed for client in made] == [True, True]


def test_a_throttled_client_sleeps_what_is_missing() -> None:
    slept = Slept()
    throttle = Throttle(0.5, clock=lambda: slept.now, sleep=slept.sleep)
    worker = ClientWorker(Regression(), SILO, throttle=throttle)
    worker.run(work("north", 0, amount=4), global_model(1))
    assert slept.now == pytest.approx(102.0)
    # Idle time is not saved up.
    slept.now += 50.0
    worker.run(work("north", 1, amount=2), global_model(1))
    assert slept.sleeps == pytest.approx([0.5] * 6)


def test_a_throttle_evens_out_steps_of_its_own_assignment() -> None:
    slept = Slept()
    throttle = Throttle(1.0, clock=lambda: slept.now, sleep=slept.sleep)
    throttle.begin()
    for seconds in (0.25, 1.5, 0.25, 0.25):
        slept.now += seconds
        throttle.after_step()
    assert slept.sleeps == pytest.approx([0.75, 0.25, 0.75])
    assert slept.now == pytest.approx(104.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_throttle_wants_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds_per_step is"):
        Throttle(seconds)


def test_the_global_model_is_left_as_it_is() -> None:
    state = global_model(1)
    for array in state.tensors.values():
        array.flags.writeable = False
    ClientWorker(Regression(), SILO).run(work("north", 0), state)
    assert state.tensors["weight"].shape == (FEATURES,)
