"""How old play may be, and how often it is learnt from: bounds that are held."""

from __future__ import annotations

from pathlib import Path

import pytest

from isogon import Callback, Progress, load_config, train


class Watch(Callback):
    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_progress(self, progress: Progress) -> None:
        self.rows.append(dict(progress.metrics))


def watched(folder: Path, *overrides: str) -> list[dict[str, float]]:
    watch = Watch()
    config = load_config(
        "cartpole",
        [
            "deterministic=false",
            "network.hidden=[16]",
            "actors.workers=3",
            "actors.assignments_in_flight=4",
            "actors.steps_per_assignment=32",
            "actors.publish_every_updates=1",
            "actors.updates_per_step=0.5",
            "replay.min_size=64",
            "replay.batch_size=8",
            "budget.env_steps=4000",
            "evaluation.every_share=1",
            "evaluation.episodes=1",
            *overrides,
        ],
    )
    train(config, run_dir=folder / "run", callbacks=[watch])
    return watch.rows


AGE, SAMPLES = "isogon_rollout_age_max_versions", "isogon_replay_samples_per_insert"


def test_play_is_as_old_as_its_wait_without_a_bound_and_never_older_with_one(tmp_path: Path) -> None:
    """Twelve pieces of 32 steps in hand, an update for every second step, a version for every update."""
    free = watched(tmp_path / "free")
    assert max(row.get(AGE, 0) for row in free) > 20
    bounded = watched(tmp_path / "bounded", "actors.max_versions_behind=3")
    ages = [row[AGE] for row in bounded if AGE in row]
    assert ages
    assert 1 <= max(ages) <= 3
    assert bounded[-1]["isogon_policy_version"] > 20


def test_samples_per_insert_keep_to_what_is_asked_for(tmp_path: Path) -> None:
    """Eight samples an update, an update for every second step: four samples a transition once play has begun."""
    rows = watched(tmp_path, "replay.n_step=1")
    assert rows[-1][SAMPLES] <= 4.0
    # What is in hand at the end, a tenth, was never learnt from.
    assert rows[-1][SAMPLES] == pytest.approx(4.0, rel=0.15)
