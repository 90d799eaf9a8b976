"""Whole runs on Ray: a player is really killed, a Ray of this machine comes and goes, an address is dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isogon.actors.environments.wordle import load_words
from isogon.actors.pools.contract import Pool
from isogon.actors.pools.ray_pool import RayPool
from isogon.learners.encodings.spec import EnvironmentSpec
from isogon.system import builder
from isogon.system.api import train
from isogon.system.callbacks import Callback, Progress
from isogon.system.config.run import RunConfig
from isogon.system.runs.directory import RunDirectory
from isogon.system.training import attempt

pytestmark = pytest.mark.ray

SHORT = [
    "actors.envs_per_worker=32",
    "actors.steps_per_assignment=128",
    "budget.seconds=null",
    "budget.updates=600",
    "evaluation.filter_games=2",
    "evaluation.every_share=0.5",
    "offline.steps=2000",
    "offline.budget_share=0.1",
    "replay.min_size=500",
    "replay.batch_size=32",
    "network.hidden=16",
    "network.channels=2",
]


def short_options(folder: Path) -> list[str]:
    words = folder / "words.txt"
    words.write_text("\n".join(load_words()[::20]) + "\n")
    return [*SHORT, f"environment.word_list={words}"]


class _KillsAPlayer(Callback):
    """SIGKILLs the player's process once it has played something."""

    def __init__(self) -> None:
        self.pool: RayPool | None = None
        self.killed: int | None = None
        self.steps_at_kill = 0
        self.last: Progress | None = None
        self.messages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def build_pool(self, build: Callable[..., Pool]) -> Callable[..., Pool]:
        def build_and_keep(config: RunConfig, spec: EnvironmentSpec, clock: Callable[[], float]) -> Pool:
            pool = build(config, spec, clock)
            assert isinstance(pool, RayPool)
            self.pool = pool
            return pool

        return build_and_keep

    def on_progress(self, progress: Progress) -> None:
        self.last = progress
        if self.killed is None and progress.env_steps > 0 and self.pool and self.pool.pids:
            self.killed = self.pool.pids["env-0"]
            self.steps_at_kill = progress.env_steps
            os.kill(self.killed, signal.SIGKILL)


def test_a_killed_player_is_replaced_and_its_work_done_again(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isogon.system.config.files import load_config

    # The learner must wait for play, so that the run cannot end before the player is back.
    config = load_config("wordle", [*short_options(tmp_path), "actors.updates_per_step=0.05"])
    killer = _KillsAPlayer()
    monkeypatch.setattr(attempt, "build_pool", killer.build_pool(builder.build_pool))
    summary = train(config, run_dir=tmp_path / "run", callbacks=[killer]).summary
    assert killer.killed is not None
    assert killer.last is not None
    assert summary["env_steps"] > killer.steps_at_kill
    assert killer.last.metrics["isogon_pool_worker_restarts_total"] == 1
    assert any("lost and is replaced (1 so far)" in message for message in killer.messages)
    assert killer.last.metrics["isogon_pool_results_dropped_total"] >= 1
    checkpoint = RunDirectory.open(tmp_path / "run").latest_checkpoint(pytest.fail)
    assert checkpoint is not None
    ledger = checkpoint.parts["run"]["coordinator"]
    assert ledger["handed_out"] == ledger["committed"] + ledger["dropped"]
    assert summary["env_steps"] == checkpoint.parts["run"]["counters"]["env_steps"]


def run_isogon(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    wanted = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-m", "isogon", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        env={**wanted, "RAY_AUTH_MODE": "disabled", **environment},
    )


def test_a_run_starts_its_own_ray_and_leaves_nothing_behind(tmp_path: Path) -> None:
    sets = [part for text in [*short_options(tmp_path), "budget.updates=150"] for part in ("--set", text)]
    mark = f"isogon-test-{os.getpid()}"
    done = run_isogon("train", "wordle", "--json", "--run-dir", str(tmp_path / "run"), *sets, ISOGON_TEST_MARK=mark)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (
        summary["never_seen_vs_filter_low"] <= summary["never_seen_vs_filter"] <= summary["never_seen_vs_filter_high"]
    )
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["updates"] == 150
    assert not processes_with(f"ISOGON_TEST_MARK={mark}"), "a process of the run's Ray outlived it"


def processes_with(variable: str) -> list[str]:
    """Command lines of the processes that have this environment variable from the run that we started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if variable.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


def test_a_dead_address_is_said_at_once(tmp_path: Path) -> None:
    done = run_isogon("train", "wordle", "--run-dir", str(tmp_path / "run"), RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 15, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "127.0.0.1:1" in line


def test_a_broken_word_list_reaches_the_user_through_ray(local_ray: None, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("crane\nfour\n")
    done = run_isogon("train", "wordle", "--set", f"environment.word_list={words}", "--run-dir", str(tmp_path / "run"))
    assert done.returncode == 18, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "line 2" in line
    assert "four" in line
