"""What a full replay takes, told before it is filled: against the arrays of one that is full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from isogon import load_config
from isogon.actors.work import PolicyState
from isogon.actors.worker import Worker
from isogon.learners.learner import Exploration
from isogon.schedulers.events import Assign, Token
from isogon.system.builder import build_intake, build_learner, build_replay, build_spec, build_worker_spec
from isogon.system.config.files import ConfigError
from isogon.system.config.run import RunConfig
from isogon.system.training import memory
from isogon.system.training.memory import check_memory, replay_bytes

SMALL = ["actors.envs_per_worker=4", "actors.steps_per_assignment=64", "replay.capacity=500", "replay.min_size=10"]


def config(preset: str, *overrides: str) -> RunConfig:
    return load_config(preset, [*SMALL, *overrides])


def arrays(thing: Any, seen: set[int]) -> Iterator[np.ndarray]:
    """Every array that hangs on an object of ours."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, np.ndarray):
        yield thing
    elif isinstance(thing, dict):
        for part in thing.values():
            yield from arrays(part, seen)
    elif type(thing).__module__.startswith("isogon"):
        yield from arrays(vars(thing), seen)


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("atari", ["network.hidden=8"]),
        ("atari", ["network.hidden=8", "replay.sampling=prioritised", "replay.n_step=3"]),
        ("minatar", []),
        ("cartpole", ["replay.sampling=prioritised"]),
    ],
)
def test_it_is_what_the_arrays_come_to(preset: str, overrides: list[str]) -> None:
    run = config(preset, *overrides)
    spec = build_spec(run)
    replay = build_replay(run, spec, 2)
    worker, intake = Worker(0, build_worker_spec(run, spec)), build_intake(run, replay)
    state = PolicyState(1, build_learner(run, spec).policy_tensors(), Exploration(epsilon=1.0))
    result = worker.run(Assign("env-0", Token(1, "env-0", 0), "rollout", 64, 1), state)
    intake.add(result.payload, continues=False)
    worker.close()
    taken = sum(part.nbytes for part in arrays(replay, set()))
    assert taken == pytest.approx(replay_bytes(run, spec, 2), rel=0.01)


def test_a_million_steps_of_atari_take_seven_and_a_quarter_gigabytes() -> None:
    run = load_config("atari", ["replay.capacity=1000000", "replay.sampling=prioritised"])
    assert 7.0e9 < replay_bytes(run, build_spec(run), 1) < 7.5e9


def test_too_much_is_refused_with_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 2**30)
    run = load_config("atari", ["replay.capacity=1000000"])
    spec = build_spec(run)
    message = r"replay\.capacity is 1,000,000: full it needs 6\.7 GiB, and 1\.0 GiB are free; set it to 13\d,\d\d\d"
    with pytest.raises(ConfigError, match=message):
        check_memory(run, spec, 1)
    fitting = load_config("atari", ["replay.capacity=130000"])
    check_memory(fitting, spec, 1)
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    check_memory(run, spec, 1)


def test_whole_episodes_of_histories_are_refused() -> None:
    run = config("atari", "replay.returns=monte_carlo")
    with pytest.raises(
        ConfigError, match=r"replay\.returns is monte_carlo, and of atari pong 4 frames are seen together"
    ):
        build_replay(run, build_spec(run))
