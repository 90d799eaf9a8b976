"""The comparison of losses: what is run and when, what counts as a tie, going on after a kill, bad input."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from isogon.actors.environments.wordle import load_words
from isogon.learners.values.presets import support_of
from isogon.system.callbacks import Progress
from isogon.system.cli.app import main
from isogon.system.compare.config import LOSSES, CompareConfig, load_comparison
from isogon.system.compare.directory import ComparisonDirectory
from isogon.system.compare.outcome import build_outcome
from isogon.system.compare.plan import (
    Arm,
    Failed,
    Result,
    Trial,
    arms_of,
    edges,
    expected_trials,
    plan_arm,
    trial_config,
    tries,
    wanted_trials,
)
from isogon.system.compare.session import Watcher, run_comparison
from isogon.system.compare.statistics import difference
from isogon.system.compare.work import CpuClock, do_trial
from isogon.system.config.files import ConfigError, ResumeRefused, load_config
from isogon.system.config.run import RunConfig
from isogon.system.evaluation import Opponents
from isogon.system.runs.errors import RunDirectoryDamaged, RunDirectoryExists, RunDirectoryInUse

WORDS = 30
BEST = {
    "hl_gauss": (1.0, 1e-3),
    "two_hot": (0.3, 2e-3),
    "c51": (3.0, 1e-3),
    "mse_softmax": (1.0, 5e-4),
    "mse": (10, 2e-3),
}
CPU = {"hl_gauss": 20.0, "two_hot": 20.9, "c51": 50.0, "mse_softmax": 19.1, "mse": 16.0}
"""Seconds of 1,000 updates: two_hot and mse_softmax are within 5 % of hl_gauss."""
TINY = [
    "budget.updates=4",
    "offline.steps=1500",
    "replay.min_size=200",
    "replay.batch_size=16",
    "actors.envs_per_worker=16",
    "actors.steps_per_assignment=32",
    "actors.updates_per_step=0.05",
    "network.hidden=16",
    "evaluation.filter_games=2",
]


@pytest.fixture(scope="module")
def config() -> CompareConfig:
    return load_comparison()


def made_up(trial: Trial) -> Result:
    """A result whose validation return is best at the loss's own weight and rate, and which is fixed by the trial."""
    weight, rate = BEST[trial.arm.loss]
    off = abs(np.log10((trial.cql_weight + 0.01) / (weight + 0.01))) + abs(np.log10(trial.learning_rate / rate))
    noise = np.random.default_rng([trial.seed, trial.updates]).normal(0, 0.3, WORDS)
    return Result(
        validation_return=-3.0 - float(off),
        never_seen_returns=tuple(-3.0 + noise),
        cpu_seconds=CPU[trial.arm.loss] * trial.updates / 1000,
        seconds=1.0,
        total_cpu_seconds=30.0,
        env_steps=0,
    )


class FakeRunner:
    """Makes up results, two runs at a time, and is killed after so many, or lets some fail."""

    def __init__(self, kill_after: int | None = None, fails: Callable[[Trial], bool] = lambda trial: False) -> None:
        self.made: list[Trial] = []
        self._queue: list[Trial] = []
        self._kill_after = kill_after
        self._fails = fails

    def submit(self, trial: Trial, config: RunConfig, run_dir: Path) -> None:
        assert run_dir.name == trial.name
        self._queue.append(trial)

    def wait(self, timeout: float) -> list[tuple[Trial, Result | Failed]]:
        ended: list[tuple[Trial, Result | Failed]] = []
        for trial in self._queue[:2]:
            if self._kill_after is not None and len(self.made) >= self._kill_after:
                raise KeyboardInterrupt
            self.made.append(trial)
            ended.append((trial, Failed("it broke") if self._fails(trial) else made_up(trial)))
        self._queue = self._queue[2:]
        return ended


def finished(
    config: CompareConfig, folder: Path, runner: FakeRunner
) -> tuple[dict[Trial, Result], dict[Trial, Failed]]:
    directory = ComparisonDirectory.begin_or_continue(folder, config)
    with directory.hold():
        return run_comparison(config, directory, runner, Watcher())


@pytest.fixture(scope="module")
def part() -> CompareConfig:
    """The second table alone, which is soon done."""
    return load_comparison(tables=["untied"])


@pytest.fixture(scope="module")
def whole(config: CompareConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[Trial, Result]:
    """All results of the whole comparison."""
    results, failed = finished(config, tmp_path_factory.mktemp("whole") / "c", FakeRunner())
    assert not failed
    return results


# What is run.


def test_every_arm_is_tuned_by_the_same_number_of_tries_and_finds_its_own_best(
    config: CompareConfig, whole: dict[Trial, Result]
) -> None:
    assert tries(config) == 7
    arms = arms_of(config)
    assert len(arms) == 2 * 5 + 3
    for arm in arms:
        plan = plan_arm(config, arm, whole)
        assert plan.complete
        assert len(plan.tuning) == 7
        assert {trial.seed for trial in plan.tuning}.isdisjoint(trial.seed for trial in plan.steps)
        assert [trial.seed for trial in plan.steps] == [0, 1, 2, 3, 4]
        assert {(trial.cql_weight, trial.learning_rate) for trial in plan.steps} == {BEST[arm.loss]}
    assert expected_trials(config, whole) == len(whole) == 13 * 12 + 2 * 10 + 5
    assert not wanted_trials(config, whole)


def test_runs_are_asked_for_as_soon_as_what_they_hang_on_is_known(config: CompareConfig) -> None:
    arm = Arm("tied", "offline", "mse")
    first = [trial for trial in wanted_trials(config, {}) if trial.arm == arm]
    assert [trial.cql_weight for trial in first] == [0.1, 0.3, 1.0, 3.0, 10.0]
    assert {trial.learning_rate for trial in first} == {1e-3}
    results = {trial: made_up(trial) for trial in first[:-1]}
    assert [trial for trial in wanted_trials(config, results) if trial.arm == arm] == first[-1:]
    results[first[-1]] = made_up(first[-1])
    then = [trial for trial in wanted_trials(config, results) if trial.arm == arm]
    assert [(trial.cql_weight, trial.learning_rate) for trial in then] == [(10.0, 5e-4), (10.0, 2e-3)]
    assert expected_trials(config, {}) == 13 * 12


def test_runs_are_made_anew_at_equal_time_only_where_the_time_differs(
    config: CompareConfig, whole: dict[Trial, Result]
) -> None:
    for loss, updates in (("hl_gauss", 1000), ("two_hot", 1000), ("mse_softmax", 1000), ("c51", 400), ("mse", 1250)):
        plan = plan_arm(config, Arm("tied", "online", loss), whole)  # type: ignore[arg-type]
        assert plan.time is not None
        assert {trial.updates for trial in plan.time} == {updates}
        assert (plan.time == plan.steps) is (updates == 1000)
        assert {trial.updates for trial in plan.steps} == {1000}


def test_a_run_that_fails_is_passed_over_and_tried_again_the_next_time(part: CompareConfig, tmp_path: Path) -> None:
    def fails(trial: Trial) -> bool:
        best = (trial.cql_weight, trial.learning_rate) == BEST["two_hot"] and trial.arm.loss == "two_hot"
        return best or trial.arm.loss == "mse"

    results, failed = finished(part, tmp_path / "c", FakeRunner(fails=fails))
    _, two_hot, given_up = (plan_arm(part, arm, results, failed) for arm in arms_of(part))
    assert two_hot.tuned is not None
    assert (two_hot.tuned.cql_weight, two_hot.tuned.learning_rate) == (0.3, 1e-3)
    assert (len(two_hot.tuning), len(two_hot.steps)) == (7, 5)
    assert given_up.complete
    assert given_up.tuned is None
    assert not given_up.steps
    again, failed = finished(part, tmp_path / "c", FakeRunner())
    assert not failed
    untroubled, _ = finished(part, tmp_path / "untroubled", FakeRunner())
    assert untroubled.items() <= again.items()


def test_values_at_the_edge_of_what_was_tried_are_named(config: CompareConfig) -> None:
    trial = Trial(Arm("tied", "offline", "mse"), 10.0, 2e-3, 1000, 1000)
    assert edges(config, trial) == ["CQL weight 10 is the largest tried", "learning rate 0.002 is the largest tried"]
    assert edges(config, replace(trial, cql_weight=1.0, learning_rate=1e-3)) == []
    assert edges(config, replace(trial, cql_weight=0.1, learning_rate=1e-3)) == ["CQL weight 0.1 is the smallest tried"]
    # There is nothing below 0.
    online = replace(trial, arm=Arm("tied", "online", "mse"), cql_weight=0.0, learning_rate=1e-3)
    assert edges(config, online) == []


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_differs_from_the_base_in_what_its_trial_says_and_in_nothing_else(
    config: CompareConfig, loss: Any
) -> None:
    assert config.tied is not None
    base = config.tied.base
    offline = trial_config(config, Trial(Arm("tied", "offline", loss), 3.0, 2e-3, 700, 4))
    online = trial_config(config, Trial(Arm("tied", "online", loss), 3.0, 2e-3, 700, 4))
    for run in (offline, online):
        assert (run.seed, run.budget.updates, run.value.kind) == (4, 700, loss)
        assert run.learner.learning_rate.at(0.0) == 2e-3
        assert run.learner.learning_rate.at(1.0) == pytest.approx(6e-5)
        assert run.replay.returns == ("n_step" if loss == "c51" else "monte_carlo")
        if loss != "mse":
            support = support_of(run.value)
            assert support is not None
            outer = support.centres()[[0, -1]] if support.anchor == "atoms" else support.edges()[[0, -1]]
            assert (support.bins, outer.tolist()) == (31, [-6.0, 0.0])
            assert support.anchor == ("atoms" if loss in ("two_hot", "c51") else "edges")
        assert (run.environment, run.network, run.actors) == (base.environment, base.network, base.actors)
    assert offline.offline is not None
    assert online.offline is not None
    assert (offline.offline.budget_share, online.offline.budget_share) == (1.0, 0.3)
    assert [offline.learner.cql_weight.at(share) for share in (0.0, 0.5, 1.0)] == [3.0] * 3
    assert [round(online.learner.cql_weight.at(share), 9) for share in (0.0, 0.15, 0.3, 1.0)] == [3.0, 1.5, 0.0, 0.0]


# What is a tie.


def test_a_shift_that_all_runs_and_words_share_is_found_exactly() -> None:
    returns = np.random.default_rng(0).normal(-3, 1, (5, 40))
    found = difference(returns + 0.25, returns)
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.verdict == "better"
    assert difference(returns, returns + 0.25).verdict == "worse"
    assert difference(returns, returns).verdict == "tie"


def test_seeds_alone_give_students_interval() -> None:
    """Words all alike leave five numbers: t's interval is known in closed form, and wider than a bootstrap's."""
    means = np.array([0.1, 0.25, -0.02, 0.3, 0.12])
    found = difference(np.repeat(means[:, None], 7, axis=1), np.zeros((5, 7)))
    half = stats.t.ppf(0.975, 4) * means.std(ddof=1) / 5**0.5
    assert (found.low, found.high) == pytest.approx((means.mean() - half, means.mean() + half))


def test_words_alone_give_a_bootstrap_over_words() -> None:
    gaps = np.random.default_rng(0).normal(0.1, 0.5, 200)
    found = difference(np.tile(gaps, (5, 1)), np.zeros((5, 200)))
    half = 1.96 * gaps.std() / 200**0.5
    assert (found.low, found.high) == pytest.approx((gaps.mean() - half, gaps.mean() + half), abs=0.01)


@pytest.mark.parametrize(("seed_spread", "word_spread", "rest"), [(0.05, 0.3, 1.1), (0.1, 0.1, 0.3), (0.0, 0.0, 1.0)])
def test_no_difference_is_a_tie_and_a_real_one_is_not(
    seed_spread: float, word_spread: float, rest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over made-up comparisons of the size of the real one."""
    monkeypatch.setattr("isogon.system.compare.statistics._RESAMPLES", 999)
    generator = np.random.default_rng(1)

    def draw(shift: float) -> str:
        gaps = generator.normal(shift, seed_spread, (5, 1)) + generator.normal(0, word_spread, (1, 200))
        return difference(gaps + generator.normal(0, rest, (5, 200)), np.zeros((5, 200))).verdict

    assert [draw(0.0) for _ in range(40)].count("tie") >= 37
    assert [draw(0.5) for _ in range(10)].count("better") >= 9


@pytest.mark.parametrize("shapes", [((5, 3), (4, 3)), ((1, 3), (1, 3)), ((3,), (3,))])
def test_differences_need_the_same_seeds_and_words_and_two_seeds(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match="S >= 2"):
        difference(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_rows_hold_what_the_results_say(config: CompareConfig, whole: dict[Trial, Result]) -> None:
    results = dict(whole)
    arm = Arm("tied", "offline", "two_hot")
    for trial in plan_arm(config, arm, results).steps:
        results[trial] = replace(results[trial], never_seen_returns=(-2.0,) * 15 + (-6.0,) * 15)
    opponents = Opponents(np.full((WORDS, 3), -3.5), np.full((WORDS, 3), -4.0), np.full(WORDS, -2.5))
    outcome = build_outcome(config, results, {}, opponents)
    rows = outcome["tables"][0]["rows"]
    (row,) = [row for row in rows if (row["mode"], row["loss"], row["budget"]) == ("offline", "two_hot", "steps")]
    assert (row["return"], row["solved"], row["gain"]) == (-4.0, 0.5, -0.5)
    assert row["return_by_seed"] == [-4.0] * 5
    assert row["verdict"] == "worse"
    assert row["against"] == pytest.approx(-4.0 - rows[0]["return"])
    assert rows[0]["loss"] == "hl_gauss"
    assert rows[0]["verdict"] is None
    same = {(row["mode"], row["loss"]): row["same_runs"] for row in rows if row["budget"] == "time"}
    assert [same["online", loss] for loss in ("two_hot", "c51", "mse")] == [True, False, False]
    # A table of one's own runs: the reference's noise is the others' noise here.
    assert {row["verdict"] for row in rows if row["loss"] == "mse_softmax" and row["budget"] == "steps"} == {"tie"}
    assert json.loads(json.dumps(outcome)) == outcome


# Going on.


@pytest.mark.parametrize("kill_after", [0, 3, 30])
def test_a_comparison_that_was_killed_goes_on_where_it_was(
    part: CompareConfig, tmp_path: Path, kill_after: int
) -> None:
    killed, rest = FakeRunner(kill_after), FakeRunner()
    with pytest.raises(KeyboardInterrupt):
        finished(part, tmp_path / "c", killed)
    results, _ = finished(part, tmp_path / "c", rest)
    whole, _ = finished(part, tmp_path / "whole", FakeRunner())
    assert results == whole
    twice = set(killed.made) & set(rest.made)
    # Two runs end at a time: one of them may not have been written down.
    assert len(twice) <= 1
    assert set(killed.made) | set(rest.made) == set(whole)
    idle = FakeRunner()
    assert finished(part, tmp_path / "c", idle)[0] == whole
    assert not idle.made
    sessions = ComparisonDirectory.begin_or_continue(tmp_path / "c", part).sessions()
    assert sum(session["runs"] for session in sessions) == len(whole)


def test_other_settings_are_refused(config: CompareConfig, tmp_path: Path) -> None:
    ComparisonDirectory.begin_or_continue(tmp_path / "c", config)
    for other, told in (
        (load_comparison(["budget.updates=999"]), "tied.base.budget.updates: 1000 -> 999; untied.base.budget.updates"),
        (load_comparison(seeds=3), r"seeds: \[0, 1, 2, 3, 4\] -> \[0, 1, 2\]"),
        (load_comparison(losses=["mse"]), "tied.losses"),
    ):
        with pytest.raises(ResumeRefused, match=told):
            ComparisonDirectory.begin_or_continue(tmp_path / "c", other)
    elsewhere = load_comparison(["ray.address=somewhere:6379"])
    assert ComparisonDirectory.begin_or_continue(tmp_path / "c", elsewhere).path == tmp_path / "c"


def test_a_directory_that_cannot_serve_is_refused(config: CompareConfig, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(RunDirectoryExists, match="holds no comparison: name another directory"):
            ComparisonDirectory.begin_or_continue(path, config)
    directory = ComparisonDirectory.begin_or_continue(tmp_path / "c", config)
    with directory.hold(), pytest.raises(RunDirectoryInUse), ComparisonDirectory(tmp_path / "c").hold():
        pass
    trial = wanted_trials(config, {})[0]
    (tmp_path / "c" / "results" / f"{trial.name}.json").write_text('{"seconds": 1}')
    with pytest.raises(RunDirectoryDamaged, match="remove it, and its run is made again"):
        directory.result(trial)
    for text in ("{", "[]", '{"format": 9}', '{"format": 1, "settings": {}}'):
        (tmp_path / "c" / "comparison.json").write_text(text)
        with pytest.raises(RunDirectoryDamaged, match="begin a new comparison"):
            ComparisonDirectory.begin_or_continue(tmp_path / "c", config)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"losses": ["hlgauss"]}, "unknown loss hlgauss: did you mean hl_gauss?"),
        ({"tables": ["tide"]}, "unknown table tide: did you mean tied?"),
        ({"seeds": 1}, "seeds is 1: at least 2"),
        ({"overrides": ["value.kind=mse"]}, "value.kind is set by the comparison itself: choose losses with --loss"),
        ({"overrides": ["learner.cql_weight.start=1"]}, "learner.cql_weight is set by the comparison itself"),
        ({"overrides": ["budget.seconds=60"]}, "budget.seconds is 60.0: in a comparison it must be None"),
        ({"overrides": ["actors.pool=ray"]}, "actors.pool is ray: in a comparison it must be in_process"),
        ({"overrides": ["offline.budget_share=1.0"]}, "offline.budget_share is 1: it must be below"),
        ({"overrides": ["budget.updats=5"]}, "did you mean"),
    ],
)
def test_a_comparison_that_cannot_be_is_told_in_words(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_comparison(**arguments)
    assert told in str(refused.value)


def test_a_part_can_be_chosen() -> None:
    part = load_comparison(["budget.updates=50"], losses=["mse"], tables=["untied"], seeds=3, quick=True)
    assert part.tied is None
    assert part.untied is not None
    assert part.untied.losses == ("hl_gauss", "mse")
    assert (part.untied.updates, part.seeds, tries(part)) == (50, (0, 1, 2), 3)
    assert load_comparison(quick=True).tables["tied"].updates == 100


# Real runs.


def tiny_list(folder: Path) -> str:
    path = folder / "words.txt"
    path.write_text("\n".join(load_words()[::30]) + "\n")
    return f"environment.word_list={path}"


def test_a_run_gives_its_words_returns_and_begins_anew_over_what_is_left_of_it(tmp_path: Path) -> None:
    config = load_config("wordle-compare-untied", [*TINY, tiny_list(tmp_path)])
    (tmp_path / "run" / "attempts").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("of a run that was killed")
    result = do_trial(config, tmp_path / "run")
    assert isinstance(result, Result)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["never_seen_return"] == pytest.approx(np.mean(result.never_seen_returns))
    assert summary["validation_return"] == result.validation_return
    assert 0 < result.cpu_seconds < result.total_cpu_seconds
    broken = do_trial(load_config("wordle-compare", ["environment.word_list=/nowhere"]), tmp_path / "broken")
    assert broken == Failed("word list /nowhere cannot be read (No such file or directory): check the path")
    assert "Traceback" in (tmp_path / "broken" / "log.txt").read_text()


def test_the_clock_of_a_run_counts_its_own_work_alone() -> None:
    clock, progress = CpuClock(), Progress(0.0, "offline", 0.0, 0, 0, 0)
    clock.on_progress(progress)
    time.sleep(0.3)
    clock.on_progress(progress)
    assert clock.seconds < 0.2, "waiting is no work"
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    clock.on_progress(progress)
    assert clock.seconds >= 0.3


def test_a_comparison_that_could_not_write_its_settings_can_be_begun_in_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_comparison(quick=True)

    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("isogon.system.compare.directory.write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            ComparisonDirectory.begin_or_continue(tmp_path / "c", config)
    ComparisonDirectory.begin_or_continue(tmp_path / "c", config)
    assert (tmp_path / "c" / "comparison.json").is_file()


def test_isogon_compare_from_end_to_end(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [f"--set={one}" for one in (*TINY, tiny_list(tmp_path))]
    command = ["compare", "--quick", "--table=untied", "--loss=mse", "--out=c", *options]

    def run(*arguments: str) -> tuple[str, str, int]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capsys.readouterr()
        return out, err, int(str(end.value.code))

    out, err, code = run(*command)
    assert code == 0, err
    outcome = json.loads((tmp_path / "c" / "compare.json").read_text())
    rows = outcome["tables"][0]["rows"]
    assert [(row["budget"], row["loss"]) for row in rows] == [
        ("steps", "hl_gauss"), ("steps", "mse"), ("time", "hl_gauss"), ("time", "mse"),
    ]  # fmt: skip
    assert [player["player"] for player in outcome["players"]] == ["data policy", "perfect filtering", "entropy search"]
    assert len(outcome["tuning"]) == 6
    assert outcome["runs"] in (10, 12)
    for row in rows:
        for run_dir, mean in zip(row["run_dirs"], row["return_by_seed"], strict=True):
            summary = json.loads((tmp_path / "c" / run_dir / "summary.json").read_text())
            assert summary["never_seen_return"] == pytest.approx(mean)
    for words in ("Equal steps", "Equal CPU time", "perfect filtering", "offline alone", "figures in c/compare.json"):
        assert words in out
    assert any(word in out for word in ("tie ", "better ", "worse "))

    again, _, code = run(*command)
    assert code == 0
    assert "CQL weight 0.3, learning rate" not in again.partition("Without learning")[0]
    assert again[again.index("Without learning") :] == out[out.index("Without learning") :]
    _, err, code = run(*command, "--set=budget.updates=5")
    assert code == 12
    assert "untied.base.budget.updates: 4 -> 5" in err
