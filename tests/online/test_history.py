"""What a network sees of an episode: against a window cut out of the whole episode."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isogon.actors.environments import Observation, Step
from isogon.actors.evaluation import play_episodes
from isogon.actors.rollout import Rollout
from isogon.learners.encodings.history import History, stacked_spec
from isogon.learners.encodings.spec import ArraySpec, EnvironmentSpec
from isogon.learners.learner import GREEDY
from isogon.learners.randomness import stream


def spec(history: int) -> EnvironmentSpec:
    return EnvironmentSpec("test", {"frame": ArraySpec((2, 3), "uint8")}, 4, history=history)


@given(history=st.integers(2, 5), begins=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_it_is_the_episodes_window_with_its_first_observation_before_it(
    history: int, begins: list[tuple[bool, bool]]
) -> None:
    seen = History(spec(history), 2)
    episodes: list[list[np.ndarray]] = [[], []]
    for step, begin in enumerate(begins):
        newest = np.full((2, 2, 3), step, np.uint8) + np.arange(2, dtype=np.uint8)[:, None, None] * 100
        first = np.array(begin) | (step == 0)
        stacked = seen.add({"frame": newest}, first)["frame"]
        for env in range(2):
            episodes[env] = [*([] if first[env] else episodes[env]), newest[env]]
            window = [episodes[env][max(len(episodes[env]) - history + k, 0)] for k in range(history)]
            np.testing.assert_array_equal(stacked[env], window)


def test_one_observation_is_given_as_it_is() -> None:
    newest = {"frame": np.zeros((2, 2, 3), np.uint8)}
    assert History(spec(1), 2).add(newest, np.ones(2, bool)) is newest
    assert stacked_spec(spec(1)) == spec(1)


def test_a_network_is_built_for_whole_histories() -> None:
    assert stacked_spec(spec(4)).observation == {"frame": ArraySpec((4, 2, 3), "uint8")}
    assert stacked_spec(stacked_spec(spec(4))) == stacked_spec(spec(4))


def test_what_was_given_is_not_changed_by_what_comes() -> None:
    seen = History(spec(2), 2)
    first = seen.add({"frame": np.ones((2, 2, 3), np.uint8)}, np.ones(2, bool))["frame"]
    seen.add({"frame": np.zeros((2, 2, 3), np.uint8)}, np.zeros(2, bool))
    assert (first == 1).all()


class Counting:
    """Shows how far each episode is, and ends it at random; a `VectorEnvironment` of two with a history of three."""

    def __init__(self) -> None:
        self.spec = EnvironmentSpec("counting", {"observation": ArraySpec((2,), "int64")}, 2, history=3)
        self.num_envs = 2

    def reset(self, stream: np.random.Generator) -> Observation:
        self._stream = stream
        self._at = np.stack([100 * np.arange(2), np.zeros(2, np.int64)], axis=1)
        self._ended = np.zeros(2, bool)
        return {"observation": self._at.copy()}

    def step(self, action: np.ndarray) -> Step:
        self._at[:, 1] += 1
        self._at[self._ended] = (int(self._stream.integers(1000)), 0)
        ended = ~self._ended & (self._stream.random(2) < 0.3)
        self._ended = ended
        return Step({"observation": self._at.copy()}, np.zeros(2, np.float32), ended, np.zeros(2, bool))

    def legal(self) -> None:
        return

    def close(self) -> None: ...


def test_players_see_the_history_that_the_columns_have() -> None:
    """Over the ends of episodes, and from one rollout to the next."""
    seen: list[np.ndarray] = []

    def act(observation: Observation, *_: object) -> np.ndarray:
        seen.append(observation["observation"])
        return np.zeros(len(observation["observation"]), np.int64)

    rollout = Rollout(Counting(), stream(0, "environment"), act_on_all=True)
    parts = [rollout.run(act, 20, GREEDY, stream(0, "explore"), version=1) for _ in range(6)]
    frames = np.concatenate([part["observation/observation"][:-1] for part in parts])
    episode = np.concatenate([part["episode"] for part in parts])
    valid = np.concatenate([part["valid"] for part in parts])
    assert valid.sum() < valid.size
    # A row that resets shows an episode's end again to nobody; the next row is the episode's first.
    for row in range(len(frames)):
        for env in np.flatnonzero(valid[row]):
            first = row
            while first and valid[first - 1, env] and episode[first - 1, env] == episode[row, env]:
                first -= 1
            expected = [frames[max(row - back, first), env] for back in (2, 1, 0)]
            np.testing.assert_array_equal(seen[row][env], expected)


def test_evaluations_see_histories_too() -> None:
    seen: list[np.ndarray] = []

    def act(observation: Observation, *_: object) -> np.ndarray:
        seen.append(observation["observation"])
        return np.zeros(len(observation["observation"]), np.int64)

    play_episodes(Counting(), act, 12, stream(1, "evaluation"), act_on_all=True)
    steps = np.stack(seen)
    assert steps.shape[2:] == (3, 2)
    live = steps[steps[..., 1, 0] == steps[..., 2, 0]]
    # Within an episode it counts up by one, or stands still where the first observation stands for those before it.
    differences = np.diff(live[..., 1], axis=-1)
    assert set(differences[:, 1].tolist()) <= {0, 1}
    assert (live[differences[:, 0] == 1][:, 2, 1] >= 2).all()
    assert (live[:, 0, 1] == np.maximum(live[:, 2, 1] - 2, 0)).all()
