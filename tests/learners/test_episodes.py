"""Episodes' rewards against a slow reading, however the rollouts are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.learners.replay.episodes import EpisodeAssembler
from isogon.learners.replay.transitions import Arrays

from .test_transitions import make_columns


def slow_episodes(columns: Arrays) -> dict[int, list[tuple[list[float], bool]]]:
    """By environment: each ended episode, step by step."""
    steps, envs = columns["valid"].shape
    found: dict[int, list[tuple[list[float], bool]]] = {env: [] for env in range(envs)}
    for env in range(envs):
        rewards: list[float] = []
        for t in range(steps):
            if columns["valid"][t, env]:
                rewards.append(float(columns["reward"][t, env]))
                if columns["terminated"][t, env] or columns["truncated"][t, env]:
                    found[env].append((rewards, bool(columns["terminated"][t, env])))
                    rewards = []
    return found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 3), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_episodes_are_whole_however_they_are_cut(seed: int, envs: int, pieces: list[int]) -> None:
    columns = make_columns(sum(pieces), envs, seed)
    assembler = EpisodeAssembler()
    found = []
    begin = 0
    for piece in pieces:
        part = {name: column[begin : begin + piece] for name, column in columns.items()}
        found += [(rewards.tolist(), ended) for rewards, ended in assembler.add(part, continues=True)]
        begin += piece
    expected = [episode for episodes in slow_episodes(columns).values() for episode in episodes]
    assert sorted(found) == sorted(expected)
    played = sum(len(rewards) for rewards, _ in found) + sum(map(len, assembler.unfinished()))
    assert played == columns["valid"].sum()


def test_what_does_not_follow_is_forgotten() -> None:
    columns = make_columns(4, 1, 0)
    for name in ("terminated", "truncated"):
        columns[name][:] = False
    columns["valid"][:] = True
    ended = {**columns, "terminated": columns["terminated"].copy()}
    ended["terminated"][-1] = True
    assembler = EpisodeAssembler()
    assert list(assembler.add(columns, continues=False)) == []
    ((rewards, _),) = assembler.add(ended, continues=True)
    assert rewards.tolist() == pytest.approx([*columns["reward"][:, 0], *columns["reward"][:, 0]])
    assert list(assembler.add(columns, continues=False)) == []
    ((rewards, _),) = assembler.add(ended, continues=False)
    assert rewards.tolist() == pytest.approx([*columns["reward"][:, 0]])
