"""Human-normalised scores and their intervals, against numbers by hand, closed forms, scipy, and by simulation."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from isogon.actors.aggregate_scores import (
    Statistic,
    interquartile_mean,
    mean_over_tasks,
    median_over_tasks,
    stratified_estimate,
)
from isogon.actors.environments.atari_scores import game_played, human_normalised, reference_scores
from isogon.actors.environments.config import GymnasiumConfig
from isogon.learners.randomness import stream
from isogon.learners.settings import Settings
from isogon.system.atari_evaluation import human_normalised_figures
from isogon.system.cli.summary import ROWS
from isogon.system.config.files import load_config
from isogon.system.evaluation import check_poolable, summarise


def test_there_are_57_games_and_pong_is_as_published() -> None:
    assert len(reference_scores()) == 57
    pong = reference_scores()["pong"]
    assert (pong.random, pong.human) == (-20.7, 14.6)
    assert all(reference.human != reference.random for reference in reference_scores().values())


def test_random_play_is_0_and_a_human_is_1() -> None:
    for game, reference in reference_scores().items():
        ends = np.array([[reference.random, reference.human]])
        assert human_normalised(game, ends) == pytest.approx(np.array([[0.0, 1.0]]))
    # Breakout: random 1.7, human 30.5.
    assert float(human_normalised("breakout", 16.1)) == pytest.approx(0.5)


def test_a_game_without_a_reference_is_named_with_the_nearest_that_has_one() -> None:
    with pytest.raises(ValueError, match=r"'ms_packman': did you mean ms_pacman\? 57 games"):
        human_normalised("ms_packman", 3.0)


class Game(Settings):
    kind: Literal["atari", "minatar"] = "atari"
    game: str = "pong"


def test_the_game_is_that_of_atari_alone() -> None:
    assert game_played(Game()) == "pong"
    assert game_played(Game(kind="minatar")) is None
    assert game_played(GymnasiumConfig(id="CartPole-v1")) is None


def test_the_three_statistics_by_hand() -> None:
    # Four runs of two games; the games' means are 2.5 and 25.
    scores = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]])
    # Of 1 2 3 4 10 20 30 40 the middle half is 3 4 10 20.
    assert float(interquartile_mean(scores)) == pytest.approx(9.25)
    assert float(mean_over_tasks(scores)) == pytest.approx(13.75)
    assert float(median_over_tasks(scores)) == pytest.approx(13.75)
    assert float(median_over_tasks(np.column_stack([scores, np.full(4, 7.0)]))) == pytest.approx(7.0)


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_iqm_is_scipys_trimmed_mean(runs: int, games: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(3, runs, games))
    expected = [stats.trim_mean(one, 0.25, axis=None) for one in scores]
    assert interquartile_mean(scores) == pytest.approx(np.array(expected))


def test_two_runs_of_one_game_reach_from_the_one_to_the_other() -> None:
    # Both draws are the first run with probability 1/4, so the 2.5 % and 97.5 % quantiles are the runs themselves.
    estimate = stratified_estimate(mean_over_tasks, np.array([[0.0], [1.0]]), stream(0, "test"))
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.0, 1.0)


def test_games_are_not_drawn_anew() -> None:
    """Games far apart whose runs agree have an interval without width, which mixing them would not give."""
    scores = np.tile([0.0, 5.0, 100.0], (6, 1))
    statistics: list[tuple[Statistic, float]] = [
        (mean_over_tasks, 35.0), (median_over_tasks, 5.0), (interquartile_mean, 27.5)
    ]  # fmt: skip
    for statistic, value in statistics:
        estimate = stratified_estimate(statistic, scores, stream(0, "test"))
        # IQM: of six 0, six 5 and six 100 the middle ten are two 0, six 5 and two 100.
        value = (6 * 5 + 2 * 100) / 10 if statistic is interquartile_mean else value
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((value, value, value))


def test_the_interval_of_a_mean_is_as_wide_as_its_standard_error_says() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(40, 8)) * np.arange(1, 9)
    estimate = stratified_estimate(mean_over_tasks, scores, stream(0, "test"))
    error = math.sqrt((scores.var(axis=0) / 40).sum()) / 8
    assert estimate.value == pytest.approx(scores.mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * error, rel=0.03)


@pytest.mark.parametrize("statistic", [mean_over_tasks, median_over_tasks, interquartile_mean])
def test_the_interval_covers_what_many_runs_would_give(statistic: Statistic) -> None:
    rng = np.random.default_rng(2)
    level = np.linspace(0.0, 2.0, 5)
    truth = float(statistic(rng.normal(size=(100_000, 5)) + level))
    covered = 0
    for _ in range(80):
        estimate = stratified_estimate(statistic, rng.normal(size=(20, 5)) + level, rng)
        covered += estimate.low < truth < estimate.high
    # 95 % of 80 are 76, with a standard deviation of 2; the percentile interval is somewhat narrow.
    assert covered >= 69


def test_the_interval_is_the_same_every_time_and_in_chunks() -> None:
    scores = np.random.default_rng(3).normal(size=(30, 57))
    first, second = (stratified_estimate(interquartile_mean, scores, stream(0, "test")) for _ in range(2))
    assert first == second
    assert first.low < first.value < first.high


@pytest.mark.parametrize("scores", [np.zeros(3), np.zeros((0, 2)), np.array([[np.nan]])])
def test_scores_that_are_none_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="R, G >= 1"):
        stratified_estimate(mean_over_tasks, scores, stream(0, "test"))


FIGURES = {"evaluation_return": 16.1, "evaluation_return_low": 1.7, "evaluation_return_high": 30.5}


def test_one_run_is_normalised_with_its_interval() -> None:
    figures = human_normalised_figures(["breakout"], [np.array([16.1])], FIGURES)
    assert figures == pytest.approx(
        {"human_normalised": 0.5, "human_normalised_low": 0.0, "human_normalised_high": 1.0}
    )


def test_one_game_without_a_reference_says_so() -> None:
    assert human_normalised_figures(["adventure"], [np.array([1.0])], FIGURES) == {
        "games_without_reference": ["adventure"]
    }


def test_several_games_come_to_aggregates_over_those_with_a_reference() -> None:
    games = ["breakout", "adventure", "pong", "breakout", "pong", "adventure"]
    # Normalised: breakout 0 and 1, pong 1 and 1.
    returns = [np.array([1.7]), np.array([2.0]), np.array([14.6]), np.array([10.5, 50.5]), np.array([14.6]), np.ones(1)]
    figures = human_normalised_figures(games, returns, {})
    assert figures["games"] == pytest.approx({"breakout": 16.1, "adventure": 1.5, "pong": 14.6})
    assert figures["games_human_normalised"] == pytest.approx({"breakout": 0.5, "pong": 1.0})
    assert figures["games_without_reference"] == ["adventure"]
    for name in ("mean", "median"):
        assert figures[f"human_normalised_{name}"] == pytest.approx(0.75)
        assert figures[f"human_normalised_{name}_low"] == pytest.approx(0.5)
        assert figures[f"human_normalised_{name}_high"] == pytest.approx(1.0)
    assert figures["human_normalised_iqm"] == pytest.approx(1.0)
    lines = [text for row in ROWS if (text := row.text(figures)) is not None]
    assert "breakout 0.500, pong 1.000" in lines
    assert "0.750 (95 %: 0.500 to 1.000)" in lines


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
def test_runs_on_atari_are_pooled_over_games_and_seeds() -> None:
    base = load_config("cartpole")
    first, second, third = (
        base.model_copy(update={"seed": seed, "environment": Game(game=game)})
        for seed, game in ((0, "pong"), (0, "breakout"), (1, "pong"))
    )
    scores = {"never_seen": {"return": np.array([14.6, 14.6], np.float32), "length": np.array([9, 9])}}
    of_one = summarise([first, third], [scores, scores])
    assert of_one["evaluation_return"] == pytest.approx(14.6)
    assert of_one["human_normalised"] == pytest.approx(1.0)
    of_both = summarise([first, second], [scores, scores])
    assert "evaluation_return" not in of_both
    assert of_both["games_human_normalised"] == pytest.approx({"pong": 1.0, "breakout": (14.6 - 1.7) / 28.8})
    with pytest.raises(ValueError, match="the seed 0 twice"):
        check_poolable([first, second, first])
    with pytest.raises(ValueError, match="runs differ in environment"):
        check_poolable([first, base.model_copy(update={"environment": Game(kind="minatar")})])


def test_games_with_different_numbers_of_runs_are_not_pooled() -> None:
    with pytest.raises(ValueError, match=r"different numbers of runs, \{'pong': 2, 'breakout': 1\}"):
        human_normalised_figures(["pong", "pong", "breakout"], [np.zeros(1)] * 3, {})
