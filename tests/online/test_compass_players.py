"""FedCompass for players in a run: unequal workers, unequal amounts."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from isogon import Callback, Progress, load_config, train
from isogon.actors.pools.in_process import InProcessPool
from isogon.schedulers import CompassSplit, EqualSplit
from isogon.schedulers.events import Assign
from isogon.system.builder import build_scheduler
from isogon.system.config.files import ConfigError

SMALL = [
    "deterministic=false",
    "network.hidden=[16]",
    "actors.workers=2",
    "actors.envs_per_worker=4",
    "actors.steps_per_assignment=256",
    "actors.split=compass",
    "replay.min_size=64",
    "replay.batch_size=8",
    "actors.updates_per_step=0.02",
    "evaluation={every_share: 1, episodes: 1}",
    "budget={env_steps: 4000}",
]


class Watch(Callback):
    def __init__(self) -> None:
        self.workers = 0.0

    def on_progress(self, progress: Progress) -> None:
        self.workers = max(self.workers, progress.metrics["isogon_pool_workers"])


def test_the_slow_worker_of_a_run_is_asked_for_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, list[int]] = {"env-0": [], "env-1": []}
    submit = InProcessPool.submit

    def noted(pool: InProcessPool, assign: Assign) -> None:
        if assign.kind == "rollout":
            asked[assign.worker].append(assign.amount)
        submit(pool, assign)

    monkeypatch.setattr(InProcessPool, "submit", noted)
    watch = Watch()
    config = load_config("cartpole", [*SMALL, "actors.seconds_per_step=[0.0, 0.004]"])
    train(config, run_dir=tmp_path / "run", callbacks=[watch])
    assert watch.workers == 2
    # How much less hangs on the machine: the fast one is as fast as it is. In virtual time it is tested exactly.
    fast, slow = (median(asked[worker][3:]) for worker in ("env-0", "env-1"))
    assert slow < 0.75 * fast
    assert all(amount % 4 == 0 and 28 <= amount <= 256 for amounts in asked.values() for amount in amounts)


def test_the_config_chooses_the_scheduler() -> None:
    compass = build_scheduler(load_config("cartpole", SMALL), 1)
    assert isinstance(compass, CompassSplit)
    assert isinstance(build_scheduler(load_config("cartpole", []), 1), EqualSplit)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("actors.least_steps_per_assignment=300", "least_steps_per_assignment is 300 and steps_per_assignment 256"),
        ("actors.seconds_per_step=[0.1, 0.1, 0.1]", "seconds_per_step has 3 entries and there are 2 workers"),
        ("deterministic=true", r"deterministic is true and actors\.split is compass: it must be equal"),
    ],
)
def test_what_does_not_go_together_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("cartpole", [*SMALL, override])
