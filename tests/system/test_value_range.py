"""The range of values: found from the first games, kept through a run's life, and told of where it clips."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isogon.learners.randomness import stream
from isogon.learners.replay.transitions import Arrays
from isogon.learners.values import support_of
from isogon.system.api import evaluate, report, train
from isogon.system.builder import build_spec
from isogon.system.callbacks import Callback, Progress
from isogon.system.cli.figures import Figures
from isogon.system.config.files import ConfigError, load_config
from isogon.system.config.run import RunConfig
from isogon.system.errors import ExitCode, explain
from isogon.system.evaluation import check_poolable
from isogon.system.reports.groups import group_runs
from isogon.system.reports.run_data import RunData
from isogon.system.runs.checkpoints import CheckpointInvalid
from isogon.system.runs.directory import RunDirectory
from isogon.system.training import first_games
from isogon.system.training.attempt import range_of
from isogon.system.training.first_games import find_range, first_episodes, play_first_games

from .test_training import CARTPOLE, assert_same, final_state, run_until_killed, short_wordle

AUTO = ["value.vmin=auto", "value.vmax=auto"]
SHORT = [*CARTPOLE, "budget.env_steps=1200", "checkpoints.every_updates=30"]


class Heard(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.metrics: list[dict[str, float]] = []

    def on_message(self, text: str) -> None:
        self.lines.append(text)

    def on_progress(self, progress: Progress) -> None:
        self.metrics.append(dict(progress.metrics))


def found(config: RunConfig) -> tuple[list[float] | None, list[str]]:
    lines: list[str] = []
    return range_of(find_range(config, build_spec(config), None, lines.append).value), lines


# Finding it.


@pytest.mark.parametrize(
    ("environment", "options", "expected"),
    [
        # Its untrained player balances for some 20 steps; a good one goes on for ever, at a discount of 0.99.
        ("CartPole-v1", [], [-9.0, 110.0]),
        ("CartPole-v1", ["value.range_from_games.margin=0"], [1.0, 100.0]),
        ("CartPole-v1", ["replay.discount=1.0", "value.range_from_games.margin=0"], [1.0, 500.0]),
        ("MountainCar-v0", [], [-110.0, 9.0]),
        ("FrozenLake-v1", ["value.kind=c51"], [-0.1, 1.1]),
    ],
)
def test_what_the_first_games_of_known_environments_give(
    environment: str, options: list[str], expected: list[float]
) -> None:
    options = [f"environment.id={environment}", *options]
    if environment == "MountainCar-v0":
        options += ["value.range_from_games.episodes=3"]
    config = load_config("cartpole", [*AUTO, *options])
    ends, (line,) = found(config)
    assert ends == pytest.approx(expected)
    assert line.startswith(f"values range from {expected[0]:g} to {expected[1]:g}: ")
    assert found(config) == (ends, [line])


def test_an_end_that_is_set_stays_and_transforms_are_followed() -> None:
    ends, _ = found(load_config("cartpole", ["value.vmin=0", "value.vmax=auto"]))
    assert ends == [0.0, 110.0]
    squashed = load_config("cartpole", [*AUTO, "value.transform=symlog"])
    ends, _ = found(squashed)
    assert ends == pytest.approx([-9.0, 110.0])
    value = find_range(squashed, build_spec(squashed), None, lambda text: None).value
    assert value.found_range == pytest.approx((-np.log1p(9), np.log1p(110)))
    # A preset that leaves the range to the environment.
    ends, _ = found(load_config("cartpole", [*AUTO, "value.preset=reppo", "value.bins=null"]))
    assert ends == [-9.0, 110.0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["environment.id=FrozenLake-v1", "value.range_from_games.episodes=1", *AUTO],
            "in the first 1 games every reward was 0",
        ),
        (["value.vmin=200", "value.vmax=auto"], "range from -9 to 110, and vmin is 200.0 and vmax 110.0"),
    ],
)
def test_games_that_give_no_range_end_the_run_with_a_line(options: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        train(load_config("cartpole", [*SHORT, *options]), run_dir=tmp_path / "run")
    assert explain(caught.value).code == ExitCode.CONFIG


def test_a_word_that_is_no_end_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="'best' is neither a number nor auto") as caught:
        load_config("cartpole", ["value.vmax=best"])
    assert str(caught.value).startswith("value.vmax in --set value.vmax=best: ")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="both fit returns and range"):
        load_config("cartpole", ["value.vmax=auto", "value.normalise_returns=true"])


def test_as_many_games_of_each_environment_are_looked_at() -> None:
    """Those that end first are the short ones: they would be the poor ones where a step is worth 1."""
    config = load_config("cartpole", [*AUTO, "actors.envs_per_worker=4"])
    spec = build_spec(config)
    games = list(play_first_games(config, spec, 10))
    assert len(games) == 10
    assert all(terminated and len(reward) >= 8 for reward, terminated in games)
    again = list(play_first_games(config, spec, 10))
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(games, again, strict=True))
    other_seed = list(play_first_games(config.model_copy(update={"seed": 1}), spec, 10))
    assert Counter(len(one[0]) for one in games) != Counter(len(one[0]) for one in other_seed)


def test_games_without_an_end_are_looked_at_as_far_as_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_games, "_MOST_STEPS_AN_EPISODE", 50)
    config = load_config("cartpole", [*AUTO, "environment.id=MountainCar-v0", "actors.envs_per_worker=2"])
    games = list(play_first_games(config, build_spec(config), 2))
    assert [(len(reward), terminated) for reward, terminated in games] == [(64, False)] * 2


def test_the_first_games_of_a_recording() -> None:
    reward = stream(0, "test").normal(size=(9, 2)).astype(np.float32)
    ends = np.zeros((9, 2), bool)
    ends[[0, 2, 4, 6], 0] = True
    ends[[3, 7], 1] = True
    columns: Arrays = {
        "reward": reward, "terminated": ends, "truncated": np.zeros_like(ends), "valid": np.ones_like(ends),
    }  # fmt: skip
    told = [rewards.tolist() for rewards, _ in first_episodes(columns, 3)]
    assert told == [reward[:1, 0].tolist(), reward[1:3, 0].tolist(), reward[:4, 1].tolist()]


# Keeping it.


def test_a_run_keeps_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("cartpole", [*SHORT, *AUTO])
    heard = Heard()
    result = train(config, run_dir=tmp_path / "run", callbacks=[heard])
    assert sum(line.startswith("values range from -9 to 110") for line in heard.lines) == 1
    assert result.summary["found_range"] == [-9.0, 110.0]
    assert result.summary["targets_clipped"] == 0.0
    saved = load_config(str(tmp_path / "run" / "config.yaml"))
    assert saved.value.found_range == (-9.0, 110.0)
    assert (saved.value.vmin, saved.value.vmax) == ("auto", "auto")
    checkpoint = RunDirectory.open(tmp_path / "run").latest_checkpoint(pytest.fail)
    assert checkpoint is not None
    assert checkpoint.info["value_range"] == [-9.0, 110.0]
    # Neither a resumed run nor whoever plays it looks for a range again.
    with monkeypatch.context() as patch:
        patch.setattr("isogon.system.training.attempt.find_range", pytest.fail)
        longer = ["budget.env_steps=1500"]
        resumed = train(load_config("cartpole", [*SHORT, *AUTO, *longer]), run_dir=tmp_path / "run", resume=True)
        assert resumed.summary["found_range"] == [-9.0, 110.0]
        assert evaluate([tmp_path / "run"])["evaluation_return"] == resumed.summary["evaluation_return"]
    page = report([tmp_path / "run"]).read_text()
    assert "<dd>−9 to 110, from the first games</dd>" in page
    # A new run by that config finds its own.
    heard = Heard()
    train(saved, run_dir=tmp_path / "other", callbacks=[heard])
    assert any(line.startswith("values range from") for line in heard.lines)


def test_a_killed_run_that_normalises_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    options = ["value.vmax=1", "value.normalise_returns=true"]
    config = load_config("cartpole", [*SHORT, *options])
    train(config, run_dir=tmp_path / "whole")
    run_until_killed(config, tmp_path / "killed", tmp_path, checkpoints=1)
    train(config, run_dir=tmp_path / "killed", resume=True)
    one, other = final_state(tmp_path / "whole"), final_state(tmp_path / "killed")
    assert_same(one["learner"], other["learner"])
    assert_same(one["replay"], other["replay"])
    assert float(one["learner"]["module"]["head.scale"]) == pytest.approx(100.0)


def test_a_run_killed_before_its_first_checkpoint_keeps_its_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("cartpole", [*SHORT, *AUTO])
    directory = RunDirectory.create(tmp_path / "run")
    value = config.value.model_copy(update={"found_range": (-7.0, 70.0)})
    directory.write_config(config.model_copy(update={"value": value}).model_dump(mode="json"))
    monkeypatch.setattr("isogon.system.training.attempt.find_range", pytest.fail)
    assert train(config, run_dir=tmp_path / "run", resume=True).summary["found_range"] == [-7.0, 70.0]


def test_offline_games_are_the_first_games(tmp_path: Path) -> None:
    config = short_wordle(tmp_path)
    value = config.value.model_copy(update={"vmin": "auto", "vmax": "auto"})
    config = config.model_copy(update={"value": value})
    heard = Heard()
    summary = train(config, run_dir=tmp_path / "run", callbacks=[heard]).summary
    assert summary["found_range"] == pytest.approx([-6.6, 0.6])
    assert sum("recording" in line for line in heard.lines) == 1, "the games were recorded twice"
    assert any("100 offline games returned -6 to 0" in line for line in heard.lines)


def test_outputs_are_never_read_off_other_bins(tmp_path: Path) -> None:
    train(load_config("cartpole", SHORT), run_dir=tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    file.write_text(file.read_text().replace("vmax: 100.0", "vmax: 50.0"))
    with pytest.raises(
        CheckpointInvalid, match=r"values in \[0.0, 100.0\], and config.yaml says \[0.0, 50.0\]"
    ) as error:
        evaluate([tmp_path / "run"])
    assert explain(error.value).code == ExitCode.CHECKPOINT


def test_runs_that_found_other_ranges_are_of_one_config() -> None:
    config = load_config("cartpole", AUTO)
    runs = [
        config.model_copy(update={"seed": seed, "value": config.value.model_copy(update={"found_range": ends})})
        for seed, ends in enumerate([(0.0, 1.0), (0.0, 2.0)])
    ]
    check_poolable(runs)
    data = [RunData(Path(str(one.seed)), one.model_dump(mode="json"), one, [], None, "stopped", []) for one in runs]
    assert [group.label for group in group_runs(data)] == ["cartpole"]
    assert support_of(runs[1].value) != support_of(runs[0].value)


# Telling of what is clipped.


def test_a_range_that_is_too_narrow_is_told_once(tmp_path: Path) -> None:
    heard = Heard()
    config = load_config("cartpole", [*SHORT, "value.vmax=5"])
    summary = train(config, run_dir=tmp_path / "run", callbacks=[heard]).summary
    told = [line for line in heard.lines if "of the targets" in line]
    assert len(told) == 1
    assert re.match(r"\d\d\.\d% of the targets lie outside the range, 0 to 5, and are clipped to it", told[0])
    assert "value.vmin and value.vmax wider, or to auto" in told[0]
    last = RunDirectory.open(tmp_path / "run").read_metrics()[-1]
    share = last["isogon_learner_targets_clipped_total"] / last["isogon_learner_targets_total"]
    assert last["isogon_learner_targets_total"] == 128 * last["isogon_learner_updates_total"]
    assert summary["targets_clipped"] == share
    assert 0.2 < share <= 1
    ratios = [row["isogon_learner_targets_clipped_ratio"] for row in heard.metrics[1:]]
    assert all(0 <= ratio <= 1 for ratio in ratios)
    assert ratios[-1] > 0.2
    page = report([tmp_path / "run"]).read_text()
    assert f"<dt>targets clipped</dt><dd>{share:.1%}</dd>" in page
    # It has been told, also after a resume.
    heard = Heard()
    longer = config.model_copy(update={"budget": config.budget.model_copy(update={"env_steps": 1400})})
    resumed = train(longer, run_dir=tmp_path / "run", resume=True, callbacks=[heard]).summary
    assert not any("of the targets" in line for line in heard.lines)
    assert resumed["targets_clipped"] > 0.2


@pytest.mark.parametrize(
    ("ratio", "phrase"), [(0.0, None), (0.032, "clipped 3.2%"), (1.0, "clipped 100.0%"), (1e-5, "clipped <0.1%")]
)
def test_progress_shows_what_is_clipped(ratio: float, phrase: str | None) -> None:
    figures = Figures()
    figures.take(Progress(0.5, "online", 1.0, 1, 1, 1, {"isogon_learner_targets_clipped_ratio": ratio}))
    assert [one for one in figures.phrases() if "clipped" in one] == ([phrase] if phrase else [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["value.vmin=0", "value.vmax=1", "value.normalise_returns=true"], "0 to 1 of the returns' scale"),
        (["value.vmin=auto", "value.found_range=[-3, null]"], "-3 to 100, which the first games gave"),
    ],
)
def test_the_advice_is_for_the_way_that_the_range_came_about(options: list[str], words: str) -> None:
    assert words in first_games.clipping_advice(load_config("cartpole", options))


def test_a_checkpoint_that_counted_no_targets_can_go_on(tmp_path: Path) -> None:
    """Written by a version that knew of no shares."""
    from isogon.system.metrics.exporters import NullExporter
    from isogon.system.metrics.recorder import MetricsRecorder
    from isogon.system.training.monitor import RunMonitor

    monitor = RunMonitor(MetricsRecorder("run", NullExporter()), [], lambda row: None)
    state: dict[str, Any] = json.loads(json.dumps(monitor.state_dict()))
    monitor.load_state_dict({name: state[name] for name in ("metrics", "dropped")})
    assert monitor.share_clipped() is None
