"""What a network sees of an episode: against a window cut out of the whole episode."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isogon.learners.encodings.history import History, stacked_spec
from isogon.learners.encodings.spec import ArraySpec, EnvironmentSpec


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
