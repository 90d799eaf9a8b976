from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogon.schedulers.speed import FASTEST, FEDCOMPASS_SPEED, Speed, SpeedOptions
from isogon.schedulers.staleness import constant, hinge, polynomial

SECONDS = st.floats(0.001, 1000)


@given(st.lists(SECONDS, min_size=1, max_size=20), st.floats(0.01, 1.0))
def test_the_running_mean_in_closed_form(observed: list[float], momentum: float) -> None:
    speed = Speed(SpeedOptions(momentum))
    for seconds in observed:
        speed.observe(7 * seconds, 7, 123.0, 456.0)
    last = len(observed) - 1
    weights = [(1.0 if index == 0 else momentum) * (1 - momentum) ** (last - index) for index, _ in enumerate(observed)]
    assert math.isclose(sum(weights), 1.0)
    assert math.isclose(speed.step, sum(w * o for w, o in zip(weights, observed, strict=True)))
    assert speed.link == 0.0


def test_one_outlier_does_not_move_the_median() -> None:
    mean, median = Speed(FEDCOMPASS_SPEED), Speed(SpeedOptions(median_of=5))
    for seconds in (1.0, 1.1, 500.0, 0.9, 1.0):
        mean.observe(10 * seconds, 10, 0.0, 0.0)
        median.observe(10 * seconds, 10, 0.0, 0.0)
        if seconds == 500.0:
            assert mean.step > 400
            assert median.step == pytest.approx(1.1)
    assert median.step == pytest.approx(1.0)
    for _ in range(3):
        median.observe(20.0, 10, 0.0, 0.0)
    assert median.step == pytest.approx(2.0), "the last five count and no others"


def test_the_link_is_told_apart_from_the_steps() -> None:
    """Two pieces of 10 and 100 steps at 0.5 s a step and 30 s on the link."""
    whole, apart = Speed(), Speed(SpeedOptions(separate_link=True))
    for amount in (10, 100):
        compute = 0.5 * amount
        apart.observe(compute + 30.0, amount, compute, 30.0)
        whole.observe(compute + 30.0, amount, compute, 30.0)
        assert (apart.step, apart.link) == pytest.approx((0.5, 30.0))
    assert apart.duration(40) == pytest.approx(50.0)
    assert apart.steps_within(50.1) == 40
    assert apart.steps_within(49.9) == 39
    assert apart.steps_within(29.0) < 0
    assert whole.step == pytest.approx(0.1 * 3.5 + 0.9 * 0.8)


@given(st.integers(1, 1000), SECONDS)
def test_steps_within_a_duration_are_the_steps(amount: int, seconds: float) -> None:
    speed = Speed()
    speed.observe(amount * seconds, amount, 0.0, 0.0)
    assert speed.steps_within(speed.duration(amount) * (1 + 1e-12)) == amount
    assert speed.steps_within(speed.duration(amount) * (1 - 1e-12)) == amount - 1


def test_no_time_at_all_is_a_speed_all_the_same() -> None:
    speed = Speed()
    speed.observe(0.0, 10, 0.0, 0.0)
    assert speed.step == FASTEST
    speed.observe(-5.0, 10, 0.0, 0.0)
    assert speed.step == FASTEST


@given(st.lists(st.tuples(SECONDS, st.integers(1, 100), SECONDS, SECONDS), max_size=6), st.integers(0, 4))
def test_the_state_comes_back(observed: list[tuple[float, int, float, float]], median_of: int) -> None:
    options = SpeedOptions(separate_link=True, median_of=median_of)
    speed = Speed(options)
    for observation in observed:
        speed.observe(*observation)
    copy = Speed.of(json.loads(json.dumps(speed.state_dict())), options)
    for each in (speed, copy):
        each.observe(3.0, 10, 2.0, 1.0)
    assert copy.state_dict() == speed.state_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"momentum": 0.0}, "momentum is 0.0"), ({"momentum": 1.1}, "1.1"), ({"median_of": -1}, "median_of is -1")],
)
def test_options_that_mean_nothing(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpeedOptions(**settings)  # type: ignore[arg-type]


def test_staleness_in_closed_form() -> None:
    assert [constant()(u) for u in (0, 5)] == [1.0, 1.0]
    assert [polynomial(0.5)(u) for u in (0, 3, 8)] == pytest.approx([1, 1 / 2, 1 / 3])
    assert [hinge(2.0, 4.0)(u) for u in (0, 4, 5, 7)] == pytest.approx([1, 1, 1 / 3, 1 / 7])
    assert polynomial(0.0)(9) == 1.0


@given(st.floats(0, 5), st.floats(0, 9))
def test_staleness_never_grows_and_stays_above_zero(slope: float, free: float) -> None:
    for function in (polynomial(slope), hinge(slope, free)):
        values = [function(u) for u in range(50)]
        assert values[0] == 1.0
        assert values == sorted(values, reverse=True)
        assert values[-1] > 0


def test_staleness_that_would_grow_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exponent is -0\.5"):
        polynomial(-0.5)
    with pytest.raises(ValueError, match="slope is -1"):
        hinge(-1, 0)
    with pytest.raises(ValueError, match="free nan"):
        hinge(1, math.nan)
