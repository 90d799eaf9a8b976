"""Server optimisers against loops over single numbers, written from the papers."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from isogon.learners.state import decode_state, encode_state
from isogon.schedulers.aggregation import (
    Adam,
    Add,
    AveragedStep,
    AverageKind,
    Momentum,
    ServerOptimiser,
    WeightedSum,
    Yogi,
)

KINDS: dict[str, AverageKind] = {"w": "mean", "x": "mean", "running_mean": "statistic", "n": "integer"}
RULES: dict[str, ServerOptimiser] = {
    "add": Add(),
    "momentum": Momentum(beta=0.7, rate=0.3),
    "adam": Adam(rate=0.05),
    "yogi": Yogi(rate=0.05, tau=0.01),
}


def update_of(round_number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(round_number)
    scale = 0.1 ** (round_number % 4)
    return {
        "w": rng.normal(size=(2, 3)) * scale,
        "x": np.array(rng.normal() * scale),
        "running_mean": rng.normal(size=2),
        "n": np.array(round_number),
    }


def model_at_first() -> dict[str, np.ndarray]:
    return {**update_of(100), "n": np.array(0)}


def momentum_by_hand(x: float, changes: list[float]) -> float:
    v = 0.0
    for change in changes:
        v = 0.7 * v + change
        x = x + 0.3 * v
    return x


def adam_by_hand(x: float, changes: list[float]) -> float:
    m, v = 0.0, 1e-3**2
    for change in changes:
        m = 0.9 * m + 0.1 * change
        v = 0.99 * v + 0.01 * change**2
        x = x + 0.05 * m / (math.sqrt(v) + 1e-3)
    return x


def yogi_by_hand(x: float, changes: list[float]) -> float:
    m, v = 0.0, 0.01**2
    for change in changes:
        m = 0.9 * m + 0.1 * change
        v = v - 0.01 * change**2 * ((v > change**2) - (v < change**2))
        x = x + 0.05 * m / (math.sqrt(v) + 0.01)
    return x


BY_HAND = {
    "add": lambda x, changes: x + math.fsum(changes),
    "momentum": momentum_by_hand,
    "adam": adam_by_hand,
    "yogi": yogi_by_hand,
}


@pytest.mark.parametrize("name", RULES)
def test_many_rounds_are_those_of_a_loop_by_hand(name: str) -> None:
    rule, model = AveragedStep(WeightedSum(), RULES[name]), model_at_first()
    first = model
    changes = []
    for number in range(25):
        one, other = update_of(2 * number), update_of(2 * number + 1)
        changes.append({key: 0.4 * one[key] + 0.2 * other[key] for key in ("w", "x")})
        model = rule.apply(model, [(one, 0.4), (other, 0.2)], KINDS)
    for key in ("w", "x"):
        for index in np.ndindex(first[key].shape):
            expected = BY_HAND[name](float(first[key][index]), [float(change[key][index]) for change in changes])
            assert model[key][index] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", RULES)
def test_statistics_and_counts_are_none_of_the_optimisers_business(name: str) -> None:
    plain, rule = AveragedStep(WeightedSum(), Add()), AveragedStep(WeightedSum(), RULES[name])
    expected = model = model_at_first()
    for number in range(3):
        expected = plain.apply(expected, [(update_of(number), 0.5)], KINDS)
        model = rule.apply(model, [(update_of(number), 0.5)], KINDS)
    for key in ("running_mean", "n"):
        assert model[key].tobytes() == expected[key].tobytes()
    assert set(rule.state_dict()["slots"]) <= {"w", "x"}


@pytest.mark.parametrize("name", RULES)
def test_state_goes_on_in_another_rule_bit_by_bit(name: str) -> None:
    rule, model = AveragedStep(WeightedSum(), RULES[name]), model_at_first()
    for number in range(4):
        model = rule.apply(model, [(update_of(number), 0.5)], KINDS)
    state: dict[str, Any] = decode_state(*encode_state(rule.state_dict()))
    other = AveragedStep(WeightedSum(), RULES[name])
    other.load_state_dict(state)
    for number in range(4, 7):
        expected = rule.apply(model, [(update_of(number), 0.5)], KINDS)
        found = other.apply(model, [(update_of(number), 0.5)], KINDS)
        assert {key: array.tobytes() for key, array in found.items()} == {
            key: array.tobytes() for key, array in expected.items()
        }
        model = found


def test_a_state_is_a_snapshot() -> None:
    rule, model = AveragedStep(WeightedSum(), Momentum()), model_at_first()
    model = rule.apply(model, [(update_of(0), 0.5)], KINDS)
    state = rule.state_dict()
    text = json.dumps(state, default=lambda array: array.tolist())
    rule.apply(model, [(update_of(1), 0.5)], KINDS)
    assert json.dumps(state, default=lambda array: array.tolist()) == text


def test_slots_of_half_precision_are_kept_in_float32() -> None:
    rule = AveragedStep(WeightedSum(), Adam(rate=0.1))
    new = rule.apply({"w": np.zeros(2, np.float16)}, [({"w": np.full(2, 1e-4, np.float16)}, 1.0)], {"w": "mean"})
    assert new["w"].dtype == np.float16
    slots = rule.state_dict()["slots"]["w"]
    assert {array.dtype.name for array in slots.values()} == {"float32"}
    np.testing.assert_allclose(slots["v"], 0.99e-6 + 0.01e-8, rtol=1e-3)


def test_states_of_others_are_refused() -> None:
    rule = AveragedStep(WeightedSum(), Momentum())
    rule.apply({"w": np.zeros(2)}, [({"w": np.ones(2)}, 1.0)], {"w": "mean"})
    with pytest.raises(ValueError, match="state is of the server optimiser 'momentum' and this one is 'yogi'"):
        AveragedStep(WeightedSum(), Yogi(rate=0.1)).load_state_dict(rule.state_dict())
    with pytest.raises(ValueError, match=r"velocity of 'w' has the shape \[2\] and the model's tensor \[3\]"):
        rule.apply({"w": np.zeros(3)}, [({"w": np.ones(3)}, 1.0)], {"w": "mean"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Momentum(beta=1.0), "beta is 1.0"),
        (lambda: Momentum(rate=0.0), "rate is 0.0"),
        (lambda: Adam(rate=0.1, tau=0.0), "tau is 0.0"),
        (lambda: Yogi(rate=math.nan), "rate is nan"),
    ],
)
def test_constants_are_checked(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
