from __future__ import annotations

import numpy as np
import pytest

from isogon.actors.columns import Columns, check_columns
from isogon.actors.rollout import Rollout
from isogon.learners.learner import GREEDY
from isogon.learners.randomness import stream

from .toys import ACTIONS, Corridor, Shift

SPEC = Corridor(2, has_legal=True).spec


@pytest.fixture
def columns() -> Columns:
    rollout = Rollout(Corridor(2, has_legal=True), stream(0, "rollout"), record_legal=True)
    return rollout.run(Shift().act, 20, GREEDY, stream(0, "explore"), 1)


def test_a_rollout_passes(columns: Columns) -> None:
    check_columns(columns, SPEC)
    del columns["legal"]
    check_columns(columns, SPEC)


def test_every_column_but_legal_is_needed(columns: Columns) -> None:
    for name in columns.keys() - {"legal"}:
        with pytest.raises(ValueError, match=f"lacks the columns {name}"):
            check_columns({key: array for key, array in columns.items() if key != name}, SPEC)


def test_every_column_has_its_shape_and_dtype(columns: Columns) -> None:
    for name, array in columns.items():
        for wrong in (array[:-1], array[:, :1], array.astype(np.complex64)):
            with pytest.raises(ValueError, match="column "):
                check_columns({**columns, name: wrong}, SPEC)


def test_unknown_columns_are_named(columns: Columns) -> None:
    with pytest.raises(ValueError, match="unknown columns colour"):
        check_columns({**columns, "colour": columns["action"]}, SPEC)
    with pytest.raises(ValueError, match="unknown columns legal"):
        check_columns(columns, Corridor(2).spec)
    with pytest.raises(ValueError, match=r"shape \(20,\)"):
        check_columns({**columns, "action": columns["action"].reshape(-1)}, SPEC)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["reward", "observation/position"])
def test_numbers_must_be_finite(columns: Columns, name: str, value: float) -> None:
    columns[name].flat[-1] = value
    with pytest.raises(ValueError, match=f"column {name} holds {value}"):
        check_columns(columns, SPEC)


@pytest.mark.parametrize("action", [-1, ACTIONS])
def test_actions_must_be_in_range_where_they_count(columns: Columns, action: int) -> None:
    dead = np.argwhere(~columns["valid"])[0]
    columns["action"][tuple(dead)] = action
    check_columns(columns, SPEC)
    alive = np.argwhere(columns["valid"])[0]
    columns["action"][tuple(alive)] = action
    with pytest.raises(ValueError, match=f"expected 0..{ACTIONS - 1}"):
        check_columns(columns, SPEC)
