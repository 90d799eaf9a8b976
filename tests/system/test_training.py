"""Whole runs, without Ray: learning, resuming bitwise after a real kill, corrupt checkpoints, full disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from isogon.actors.work import PolicyState
from isogon.learners.batch import Batch
from isogon.learners.learner import UpdateFailed, UpdateStats
from isogon.learners.q_learning import QLearner
from isogon.system.api import evaluate, train
from isogon.system.callbacks import Callback, Progress
from isogon.system.cli.summary import summary_table
from isogon.system.config.files import ConfigError, ResumeRefused, load_config
from isogon.system.config.run import RunConfig
from isogon.system.coordinate import Coordinator
from isogon.system.errors import ExitCode, explain
from isogon.system.runs.checkpoints import CheckpointInvalid
from isogon.system.runs.directory import RunDirectory, RunDirectoryExists, RunDirectoryMissing

CARTPOLE = ["budget.env_steps=3000", "checkpoints.every_updates=60", "evaluation.episodes=4", "replay.min_size=200"]
WORDLE = [
    "deterministic=true",
    "actors.pool=in_process",
    "actors.envs_per_worker=32",
    "actors.steps_per_assignment=64",
    "actors.updates_per_step=0.05",
    "actors.publish_every_updates=5",
    "budget.seconds=null",
    "budget.updates=120",
    "checkpoints.every_seconds=null",
    "checkpoints.every_updates=15",
    "evaluation.filter_games=2",
    "evaluation.every_share=0.25",
    "offline.steps=2000",
    "replay.min_size=500",
    "replay.batch_size=32",
    "network.hidden=16",
    "network.channels=2",
]


def short_wordle(folder: Path) -> RunConfig:
    from isogon.actors.environments.wordle import load_words

    words = folder / "words.txt"
    words.write_text("\n".join(load_words()[::20]) + "\n")
    return load_config("wordle", [*WORDLE, f"environment.word_list={words}"])


def final_state(run_dir: Path) -> dict[str, Any]:
    checkpoint = RunDirectory.open(run_dir).latest_checkpoint(pytest.fail)
    assert checkpoint is not None
    return checkpoint.parts


def assert_same(one: Any, other: Any, path: str = "") -> None:
    if isinstance(one, Mapping):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif hasattr(one, "dtype"):
        assert one.dtype == other.dtype, path
        assert (one == other).all(), path
    else:
        assert one == other, path


def run_until_killed(config: RunConfig, run_dir: Path, folder: Path, checkpoints: int) -> None:
    """Train in a process of its own and SIGKILL it once so many checkpoints stand."""
    file = folder / "config.json"
    file.write_text(config.model_dump_json())
    program = (
        "import sys, pathlib; from isogon import RunConfig, train; "
        "train(RunConfig.model_validate_json(pathlib.Path(sys.argv[1]).read_text()), run_dir=pathlib.Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(file), str(run_dir)])
    deadline = time.monotonic() + 60
    while len(list(run_dir.glob("checkpoints/1-*"))) < checkpoints:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run_dir / "summary.json").exists()


@pytest.mark.parametrize("task", ["cartpole", "noisy cartpole", "wordle"])
def test_a_killed_run_ends_as_the_uninterrupted_one(task: str, tmp_path: Path) -> None:
    noisy = ["value.noisy_sigma=0.5"] if task == "noisy cartpole" else []
    config = short_wordle(tmp_path) if task == "wordle" else load_config("cartpole", [*CARTPOLE, *noisy])
    whole = train(config, run_dir=tmp_path / "whole")
    run_until_killed(config, tmp_path / "killed", tmp_path, checkpoints=3)
    resumed = train(config, run_dir=tmp_path / "killed", resume=True)
    one, other = final_state(tmp_path / "whole"), final_state(tmp_path / "killed")
    assert_same(one["learner"], other["learner"])
    assert_same(one["replay"], other["replay"])
    same = {"seconds"}
    assert {k: v for k, v in one["run"]["counters"].items() if k not in same} == {
        k: v for k, v in other["run"]["counters"].items() if k not in same
    }
    timed = {"train_seconds", "total_seconds", "attempts", "run_dir"}
    assert {k: v for k, v in whole.summary.items() if k not in timed} == {
        k: v for k, v in resumed.summary.items() if k not in timed
    }
    assert resumed.summary["attempts"] == 2
    steps = [row["step"] for row in RunDirectory.open(tmp_path / "killed").read_metrics()]
    assert steps == sorted(steps), "the resumed run's rows do not follow on the kept ones"


def test_two_runs_of_one_seed_are_the_same_and_another_seed_differs(tmp_path: Path) -> None:
    config = load_config("cartpole", [*CARTPOLE, "budget.env_steps=1200"])
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(config.model_copy(update={"seed": seed}), run_dir=tmp_path / name)
    first, again, other = (final_state(tmp_path / name)["learner"]["module"] for name in "abc")
    assert_same(first, again)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_cartpole_learns(tmp_path: Path) -> None:
    """A shorter form of the preset: far above the 9 to 25 of a policy that has learnt nothing."""
    config = load_config("cartpole", ["budget.env_steps=40000", "evaluation.every_share=1.0", "evaluation.episodes=40"])
    summary = train(config, run_dir=tmp_path / "run").summary
    assert summary["evaluation_return"] > 180


def test_wordle_learns_from_poor_players(tmp_path: Path) -> None:
    """A short form of the preset, in this process: it comes to play better than its offline games' players."""
    config = load_config(
        "wordle",
        [
            *WORDLE,
            "budget.updates=400",
            "checkpoints.every_updates=1000",
            "learner.warmup_updates=20",
            "network.hidden=64",
            "network.channels=4",
            "offline.steps=40000",
            "replay.batch_size=128",
            "replay.min_size=2000",
        ],
    )
    summary = train(config, run_dir=tmp_path / "run").summary
    assert summary["never_seen_return"] > summary["data_policy_return"] + 0.4
    assert summary["entropy_search_return"] > summary["filter_return"] > summary["data_policy_return"]


@pytest.mark.parametrize("kind", ["hl_gauss", "two_hot", "c51", "mse", "mse_softmax"])
def test_wordle_trains_with_every_loss_bootstrapped_and_conservative(kind: str, tmp_path: Path) -> None:
    config = short_wordle(tmp_path)
    options = [f"value.kind={kind}", "replay.returns=n_step", "replay.n_step=2", "learner.target_update_every=10"]
    options += ["learner.cql_weight.start=0.5", "learner.cql_actions=8", "budget.updates=40"]
    assert config.environment.kind == "wordle"
    words = f"environment.word_list={config.environment.word_list}"
    summary = train(load_config("wordle", [*WORDLE, words, *options]), run_dir=tmp_path / "run").summary
    assert -6 <= summary["never_seen_return"] <= 0
    state = final_state(tmp_path / "run")
    assert state["replay"]["mask_widths"] == {"legal_t": 105}
    assert state["run"]["counters"]["env_steps"] > 0


def test_the_loop_publishes_explores_less_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the players get and what the schedules are told, over a whole run."""
    published: list[PolicyState] = []
    progress: list[float] = []
    clipped: list[float] = []
    publish, update = Coordinator.publish, QLearner.update

    def publish_and_note(self: Coordinator, state: PolicyState) -> None:
        published.append(state)
        publish(self, state)

    def update_and_note(self: QLearner, batch: Batch, share: float) -> UpdateStats:
        progress.append(share)
        stats = update(self, batch, share)
        clipped.append(stats.stats["targets_clipped"])
        return stats

    monkeypatch.setattr(Coordinator, "publish", publish_and_note)
    monkeypatch.setattr(QLearner, "update", update_and_note)
    options = [
        "value.vmax=2",
        "actors.publish_every_updates=5",
        "actors.epsilon.until=1.0",
        "evaluation.every_share=0.5",
        "checkpoints.keep_best=0",
    ]
    heard = _Heard()
    train(load_config("cartpole", [*CARTPOLE, *options]), run_dir=tmp_path / "run", callbacks=[heard])
    assert len(published) >= len(progress) / 5
    versions = [state.version for state in published]
    assert versions == list(range(1, len(published) + 1))
    epsilons = [state.exploration.epsilon for state in published]
    assert epsilons[0] == 1.0
    assert all(after <= before for before, after in pairwise(epsilons))
    assert epsilons[-1] < 0.05
    weights = [next(iter(state.tensors.values())).tobytes() for state in published[-10:]]
    assert len(set(weights)) == len(weights), "the same weights were published again and again"
    assert progress == sorted(progress)
    assert progress[0] < 0.2 < 0.9 < progress[-1] <= 1
    assert heard.progress[-1].metrics["isogon_learner_targets_clipped_total"] == sum(clipped) > 0
    assert heard.progress[-1].metrics["isogon_learner_updates_total"] == len(progress)


def test_too_few_offline_games_are_an_error_and_no_standstill(tmp_path: Path) -> None:
    config = short_wordle(tmp_path)
    config = config.model_copy(update={"replay": config.replay.model_copy(update={"min_size": 5000})})
    with pytest.raises(
        ConfigError, match=r"offline.steps is 2000 and gives 1\d\d\d transitions, fewer than replay.min"
    ):
        train(config, run_dir=tmp_path / "run")


def test_targets_out_of_range_end_the_run_on_request(tmp_path: Path) -> None:
    options = ["value.vmax=2", "value.out_of_range=error", "deterministic=false"]
    with pytest.raises(UpdateFailed, match=r"update \d+: target has .* outside \[0.0, 2.0\]") as caught:
        train(load_config("cartpole", [*CARTPOLE, *options]), run_dir=tmp_path / "run")
    assert explain(caught.value).code == ExitCode.UPDATE_FAILED
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_run_that_keeps_no_replay_goes_on_all_the_same(tmp_path: Path) -> None:
    """Players and learner must not wait for each other when the replay begins empty and the pace is set."""
    options = ["deterministic=false", "replay.keep_in_checkpoint=false", "replay.min_size=800", "budget.env_steps=6000"]
    config = load_config("cartpole", [*CARTPOLE, *options])
    run_until_killed(config, tmp_path / "run", tmp_path, checkpoints=3)
    summary = train(config, run_dir=tmp_path / "run", resume=True).summary
    assert summary["env_steps"] >= 6000
    assert summary["attempts"] == 2
    assert summary["total_seconds"] > summary["train_seconds"]


def test_a_changed_word_list_is_refused(tmp_path: Path) -> None:
    """In another order, other words would count as never seen."""
    config = short_wordle(tmp_path)
    train(config, run_dir=tmp_path / "run")
    environment = config.environment
    assert environment.kind == "wordle"
    assert environment.word_list is not None
    words = Path(environment.word_list)
    words.write_text("\n".join(reversed(words.read_text().split())) + "\n")
    with pytest.raises(CheckpointInvalid, match="its word list"):
        evaluate([tmp_path / "run"])
    with pytest.raises(CheckpointInvalid, match="its word list"):
        train(config, run_dir=tmp_path / "run", resume=True)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    small, large = (
        load_config("cartpole", [*CARTPOLE, "budget.env_steps=600", f"network.hidden={hidden}"])
        for hidden in ("[16]", "[32]")
    )
    train(small, run_dir=tmp_path / "small")
    train(large, run_dir=tmp_path / "large")
    shutil.rmtree(tmp_path / "large" / "checkpoints")
    shutil.copytree(tmp_path / "small" / "checkpoints", tmp_path / "large" / "checkpoints")
    with pytest.raises(CheckpointInvalid, match="another network"):
        train(large, run_dir=tmp_path / "large", resume=True)


def test_a_start_that_was_killed_leaves_a_directory_to_start_in(tmp_path: Path) -> None:
    (tmp_path / "run" / "attempts").mkdir(parents=True)
    summary = train(load_config("cartpole", [*CARTPOLE, "budget.env_steps=600"]), run_dir=tmp_path / "run").summary
    assert summary["attempts"] == 1


def test_an_environment_without_an_end_ends(tmp_path: Path) -> None:
    """CliffWalking has no limit of steps, and a policy that has learnt nothing walks in circles."""
    options = ["environment.id=CliffWalking-v1", "environment.max_episode_steps=50", "value.vmin=-100"]
    summary = train(load_config("cartpole", [*CARTPOLE, *options]), run_dir=tmp_path / "run").summary
    assert summary["evaluation_return"] >= -50 * 100


def test_corrupt_checkpoints_are_passed_over_with_a_warning(tmp_path: Path) -> None:
    config = load_config("cartpole", CARTPOLE)
    train(config, run_dir=tmp_path / "run")
    newest, before, *_ = RunDirectory.open(tmp_path / "run").checkpoint_line()
    weights = tmp_path / "run" / "checkpoints" / newest.name / "learner.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    heard = _Heard()
    train(config, run_dir=tmp_path / "run", resume=True, callbacks=[heard])
    assert heard.resumed_from == before.name
    assert any(newest.name in message and "learner.safetensors" in message for message in heard.messages)
    evaluated = evaluate([tmp_path / "run"])
    assert summary_table(evaluated).row_count >= 4
    assert (
        evaluated["evaluation_return"]
        == json.loads((tmp_path / "run" / "summary.json").read_text())["evaluation_return"]
    )


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    config = load_config("cartpole", [*CARTPOLE, "budget.env_steps=600"])
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_config(config.model_dump(mode="json"))
    heard = _Heard()
    train(config, run_dir=tmp_path / "run", resume=True, callbacks=[heard])
    assert heard.resumed_from is None
    assert heard.checkpoints
    assert heard.ended


def test_what_may_not_be_resumed_or_begun(tmp_path: Path) -> None:
    config = load_config("cartpole", [*CARTPOLE, "budget.env_steps=600"])
    train(config, run_dir=tmp_path / "run")
    with pytest.raises(RunDirectoryExists):
        train(config, run_dir=tmp_path / "run")
    with pytest.raises(ResumeRefused, match="seed"):
        train(config.model_copy(update={"seed": 1}), run_dir=tmp_path / "run", resume=True)
    with pytest.raises(RunDirectoryMissing):
        train(config, run_dir=tmp_path / "other", resume=True)
    empty = RunDirectory.create(tmp_path / "empty")
    empty.write_config(config.model_dump(mode="json"))
    with pytest.raises(RunDirectoryMissing, match="no whole checkpoint"):
        evaluate([tmp_path / "empty"])


def test_a_full_disk_ends_the_run_and_keeps_its_checkpoints(mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("size=3m")
    command = [sys.executable, "-m", "isogon", "train", "cartpole", "--run-dir", str(disk / "run")]
    sets = [*CARTPOLE, "budget.env_steps=100000", "checkpoints.keep=100"]
    done = subprocess.run(
        command + [part for text in sets for part in ("--set", text)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 13, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(disk) in done.stderr
    assert RunDirectory.open(disk / "run").latest_checkpoint(pytest.fail) is not None
    assert not [path for path in (disk / "run").rglob("*") if "tmp" in path.name.lower()]


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "isogon", "train", "cartpole", "--run-dir", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*command, "--set", "checkpoints.every_updates=60"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("checkpoints/1-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert len(errors.strip().splitlines()) == 1
    assert "--resume" in errors


class _Heard(Callback):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.resumed_from: str | None = None
        self.checkpoints: list[Path] = []
        self.progress: list[Progress] = []
        self.ended = False

    def on_start(self, config: RunConfig, run_dir: Path, resumed_from: str | None) -> None:
        self.resumed_from = resumed_from

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)

    def on_checkpoint(self, path: Path) -> None:
        self.checkpoints.append(path)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self.ended = True
