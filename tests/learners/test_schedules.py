from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.schedules import Schedule
from isogon.learners.settings import Settings, may_change_on_resume

Moving = Literal["linear", "geometric", "cosine"]
MOVING: list[Moving] = ["linear", "geometric", "cosine"]


@pytest.mark.parametrize("kind", MOVING)
def test_ends_are_met_and_held(kind: Moving) -> None:
    schedule = Schedule(kind=kind, start=2.0, end=0.5, begin=0.25, until=0.75)
    assert [schedule.at(p) for p in (0.0, 0.25)] == pytest.approx([2.0, 2.0])
    assert [schedule.at(p) for p in (0.75, 1.0)] == pytest.approx([0.5, 0.5])
    assert [schedule.at(p) for p in (-1.0, 2.0)] == pytest.approx([2.0, 0.5])


def test_middles_are_the_arithmetic_and_the_geometric_mean() -> None:
    middles = {kind: Schedule(kind=kind, start=8.0, end=2.0).at(0.5) for kind in MOVING}
    assert middles == pytest.approx({"linear": 5.0, "geometric": 4.0, "cosine": 5.0})
    # Loshchilov & Hutter 2017 (SGDR), eq. 5, at a third of the way: cos(60 degrees) is one half.
    assert Schedule(kind="cosine", start=1.0, end=0.0).at(1 / 3) == pytest.approx(0.75)


@given(
    st.sampled_from(MOVING),
    st.floats(1e-6, 10.0),
    st.floats(1e-6, 10.0),
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6),
)
def test_the_way_is_monotone_and_inside(kind: Moving, start: float, end: float, progress: list[float]) -> None:
    schedule = Schedule(kind=kind, start=start, end=end, begin=0.1, until=0.9)
    values = [schedule.at(p) for p in sorted(progress)]
    slack = 1e-9 * max(start, end)
    assert all(min(start, end) - slack <= value <= max(start, end) + slack for value in values)
    rising = [later - earlier >= -slack for earlier, later in itertools.pairwise(values)]
    falling = [later - earlier <= slack for earlier, later in itertools.pairwise(values)]
    assert all(rising if end >= start else falling)


def test_constant_stays() -> None:
    assert {Schedule(start=0.3).at(p) for p in (0.0, 0.4, 1.0)} == {0.3}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "linear", "start": 1.0}, "linear schedule needs `end`"),
        ({"kind": "geometric", "start": 1.0, "end": 0.0}, "above 0, not 1.0 and 0.0"),
        ({"kind": "geometric", "start": -1.0, "end": 1.0}, "above 0, not -1.0 and 1.0"),
        ({"kind": "linear", "start": 1.0, "end": 0.0, "begin": 0.5, "until": 0.5}, "begin must be the smaller"),
        ({"start": math.nan}, "finite"),
        ({"start": 1.0, "stop": 2.0}, "stop"),
    ],
)
def test_wrong_schedules_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Schedule(**fields)


@pytest.mark.parametrize("name", ["learning_rate", "cql_weight"])
@pytest.mark.parametrize("schedule", [{"start": -1e-3}, {"kind": "linear", "start": 1e-3, "end": -1e-3}])
def test_what_must_not_be_negative_is_refused(name: str, schedule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="neither may be negative"):
        QLearningConfig(**{name: schedule})


def test_settings_are_frozen_and_say_what_a_resumed_run_may_change() -> None:
    class Part(Settings):
        fixed: int = 1
        free: int = may_change_on_resume(2, ge=0)

    part = Part()
    with pytest.raises(ValidationError, match="frozen"):
        part.fixed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        Part(free=-1)
    assert Part.model_fields["free"].json_schema_extra == {"may_change_on_resume": True}
    assert Part.model_fields["fixed"].json_schema_extra is None
