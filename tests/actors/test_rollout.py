from __future__ import annotations

import numpy as np
import pytest

from isogon.actors.columns import Columns, check_columns
from isogon.actors.environments.contract import Observation
from isogon.actors.rollout import Rollout, record
from isogon.learners.learner import GREEDY, Exploration
from isogon.learners.randomness import stream

from .toys import ACTIONS, Corridor, Shift

STRAY = Exploration(epsilon=0.5)


def roll(environment: Corridor, runs: list[int], policy: Shift | None = None, **settings: bool) -> list[Columns]:
    rollout = Rollout(environment, stream(1, "rollout"), **settings)
    act = (policy or Shift()).act
    explore = stream(1, "explore")
    return [rollout.run(act, steps, STRAY, explore, version) for version, steps in enumerate(runs, start=1)]


def join(parts: list[Columns]) -> Columns:
    ends = {name: parts[-1][name][-1:] for name in parts[-1] if name.startswith(("observation", "legal"))}
    rows = {name: [part[name][: len(part["action"])] for part in parts] for name in parts[0]}
    return {name: np.concatenate([*rows[name], ends[name]] if name in ends else rows[name]) for name in rows}


@pytest.mark.parametrize("has_legal", [False, True])
def test_columns_are_valid_and_go_on_where_they_stopped(has_legal: bool) -> None:
    parts = roll(Corridor(3, has_legal=has_legal), [12, 1, 7], record_legal=has_legal)
    (whole,) = roll(Corridor(3, has_legal=has_legal), [24], record_legal=has_legal)
    for part in parts:
        check_columns(part, Corridor(3, has_legal=has_legal).spec)
    assert [len(part["action"]) for part in parts] == [4, 1, 3]
    assert [np.unique(part["version"]).tolist() for part in parts] == [[1], [2], [3]]
    joined = join(parts)
    for name in whole.keys() - {"version"}:
        np.testing.assert_array_equal(joined[name], whole[name], err_msg=name)


def test_rows_tell_what_was_played() -> None:
    environment = Corridor(3)
    (columns,) = roll(environment, [300])
    valid, episode = columns["valid"], columns["episode"]
    position, length = columns["observation/position"][..., 0], columns["observation/length"]
    ended = columns["terminated"] | columns["truncated"]
    np.testing.assert_array_equal(columns["action"][valid], np.stack(environment.actions)[valid])
    np.testing.assert_array_equal(~valid[1:], ended[:-1])
    np.testing.assert_array_equal(ended, valid & (position[1:] == length[1:]))
    assert valid[0].all()
    assert columns["truncated"].any()
    assert columns["terminated"].any()
    assert (columns["reward"][~valid] == 0).all()
    assert (np.floor(columns["reward"][valid] + 1e-4) == columns["action"][valid]).all()
    np.testing.assert_array_equal(position[1:][valid], position[:-1][valid] + 1)
    np.testing.assert_array_equal(position[1:][~valid], 0)
    np.testing.assert_array_equal(episode[1:] != episode[:-1], ~valid[:-1])
    for slot in range(3):
        numbers = episode[:, slot]
        assert (np.diff(numbers) >= 0).all()
    assert len(np.unique(episode)) == 3 + (~valid[:-1]).sum()


def test_a_policy_sees_only_living_episodes_and_a_player_all() -> None:
    policy = Shift()
    (columns,) = roll(Corridor(3), [90], policy)
    living = columns["valid"].sum(axis=1)
    assert policy.batches == living[living > 0].tolist()
    assert min(policy.batches) < 3
    seen: list[int] = []

    def player(
        observation: Observation, legal: np.ndarray | None, exploration: Exploration, generator: np.random.Generator
    ) -> np.ndarray:
        assert exploration == GREEDY
        seen.append(len(observation["length"]))
        return np.full(len(observation["length"]), 2)

    recorded = record(Corridor(3), player, 90, stream(1, "data"))
    check_columns(recorded, Corridor(3).spec)
    assert seen == [3] * 30
    assert (recorded["action"] == np.where(recorded["valid"], 2, 0)).all()
    assert (recorded["version"] == 0).all()


def test_a_vector_in_which_all_have_ended_asks_nobody() -> None:
    policy = Shift()
    (columns,) = roll(Corridor(2, lengths=(2, 2)), [18], policy)
    np.testing.assert_array_equal(columns["valid"][:, 0], [True, True, False] * 3)
    assert policy.batches == [2] * 6


def test_totals_count_each_episode_where_it_ends() -> None:
    environment = Corridor(2, lengths=(2, 5))
    rollout = Rollout(environment, stream(1, "rollout"), first_episode=100)
    explore = stream(1, "explore")
    parts, totals = [], []
    for _ in range(6):
        parts.append(rollout.run(Shift().act, 4, STRAY, explore, 1))
        totals.append(rollout.totals)
    # Twelve rows: environment 0 ends its episodes in rows 1, 4, 7, 10, environment 1 in 4 and 10.
    assert [total.count for total in totals] == [1, 0, 2, 1, 0, 2]
    assert [total.length_sum for total in totals] == [2, 0, 7, 2, 0, 7]
    rewards = join(parts)["reward"].astype(np.float64)
    assert sum(total.return_sum for total in totals) == pytest.approx(rewards[:11].sum())
    np.testing.assert_array_equal(parts[0]["episode"], [[100, 101], [100, 101]])
    np.testing.assert_array_equal(join(parts)["episode"][:, 0], [100] * 3 + [102] * 3 + [103] * 3 + [105] * 3)


def test_environments_that_do_not_act_are_given_an_allowed_action() -> None:
    environment = Corridor(3, has_legal=True)
    (columns,) = roll(environment, [120], record_legal=True)
    legal = columns["legal"][:-1]
    chosen = np.take_along_axis(legal, columns["action"][..., None], axis=2)[..., 0]
    assert chosen.all()
    assert not columns["valid"].all()
    assert legal.shape == (40, 3, ACTIONS)


def test_what_it_refuses() -> None:
    rollout = Rollout(Corridor(2), stream(1, "rollout"))
    with pytest.raises(ValueError, match="steps is 0"):
        rollout.run(Shift().act, 0, GREEDY, stream(1, "explore"), 1)
    with pytest.raises(ValueError, match="record_legal is True"):
        Rollout(Corridor(2), stream(1, "rollout"), record_legal=True)
