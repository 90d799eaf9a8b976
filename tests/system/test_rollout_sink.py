"""From a pool's results to replay: only rollouts that follow on each other are joined."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from isogon.actors.columns import Columns
from isogon.actors.work import WorkResult
from isogon.learners.encodings.spec import ArraySpec, EnvironmentSpec
from isogon.learners.randomness import stream
from isogon.learners.replay import Replay, RolloutIntake
from isogon.schedulers.events import Arrived, Token
from isogon.system.training.rollout_sink import RolloutSink

SPEC = EnvironmentSpec("toy", {"x": ArraySpec((1,), "float32")}, num_actions=2)
ARRIVED = Arrived(0.0, "env-0", Token(1, "env-0", 0), 1, 2, 2, 0, 0.1, 0.0)


def result(
    sequence: int, first_step: int, stream_begin: int, *, ends: bool = False, worker: str = "env-0"
) -> WorkResult:
    """Two steps of one environment; reward 1 a step."""
    flags = np.zeros((2, 1), bool)
    terminated = flags.copy()
    terminated[-1] = ends
    columns: Columns = {
        "observation/x": np.arange(3, dtype=np.float32).reshape(3, 1, 1),
        "action": np.zeros((2, 1), np.int64),
        "reward": np.ones((2, 1), np.float32),
        "terminated": terminated,
        "truncated": flags,
        "valid": ~flags,
        "episode": np.zeros((2, 1), np.int64),
        "version": np.ones((2, 1), np.int64),
    }
    stats = {"episodes": float(ends), "return_sum": 4.0 * ends, "length_sum": 4.0 * ends}
    token = Token(1, worker, sequence)
    return WorkResult(token, "rollout", 1, 2, 2, columns, 0.1, stats, stream_begin, first_step)


@pytest.fixture
def replay() -> Replay:
    return Replay(100, 4, stream(0, "replay"))


@pytest.fixture
def sink(replay: Replay) -> RolloutSink:
    return RolloutSink(SPEC, partial(RolloutIntake, replay, None, 1.0))


def replayed(replay: Replay) -> list[float]:
    transitions = replay.state_dict()["transitions"]
    return sorted(transitions["reward_t"].tolist()) if transitions else []


def test_an_episode_over_two_results_is_whole(sink: RolloutSink, replay: Replay) -> None:
    sink.commit([(result(0, 0, 0), 1.0)])
    assert replayed(replay) == []
    sink.commit([(result(1, 2, 0, ends=True), 1.0)])
    assert replayed(replay) == [1.0, 2.0, 3.0, 4.0]
    assert sink.env_steps == 4
    assert sink.take_finished() == (1, 4.0, 4.0)
    assert sink.take_finished() == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("first_step", "stream_begin"), [(4, 0), (0, 1), (2, 1)], ids=["a lost piece", "a new worker", "both"]
)
def test_what_does_not_follow_on_is_not_joined(
    sink: RolloutSink, replay: Replay, first_step: int, stream_begin: int
) -> None:
    sink.commit([(result(0, 0, 0), 1.0)])
    sink.commit([(result(2, first_step, stream_begin, ends=True), 1.0)])
    assert replayed(replay) == [1.0, 2.0]


def test_workers_are_kept_apart(sink: RolloutSink, replay: Replay) -> None:
    sink.commit([(result(0, 0, 0), 1.0), (result(1, 2, 0, ends=True, worker="env-1"), 1.0)])
    assert replayed(replay) == [1.0, 2.0]


def test_unfinished_episodes_are_forgotten_on_request(sink: RolloutSink, replay: Replay) -> None:
    sink.commit([(result(0, 0, 0), 1.0)])
    sink.forget_unfinished()
    sink.commit([(result(1, 2, 0, ends=True), 1.0)])
    assert replayed(replay) == [1.0, 2.0]


def test_a_broken_rollout_is_refused(sink: RolloutSink) -> None:
    broken = result(0, 0, 0)
    assert isinstance(broken.payload, dict)
    broken.payload["reward"][0] = np.nan
    with pytest.raises(ValueError, match="reward"):
        sink.admit(broken, ARRIVED)
    token = Token(1, "env-0", 1)
    scores = {"return": np.array([np.inf], np.float32), "length": np.array([1])}
    with pytest.raises(ValueError, match="finite"):
        sink.admit(WorkResult(token, "evaluate", 1, 1, 1, scores, 0.1), ARRIVED)


def test_recorded_games_count_as_no_steps(sink: RolloutSink, replay: Replay) -> None:
    payload = result(0, 0, 0, ends=True).payload
    sink.insert_recorded(payload)
    assert replayed(replay) == [1.0, 2.0]
    assert sink.env_steps == 0
