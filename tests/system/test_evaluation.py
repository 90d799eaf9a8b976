"""The summary's statistics against a slow reading, and what may not be pooled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from isogon.actors.environments.wordle import Vocabulary, build_vocabulary, load_words, split_words
from isogon.actors.environments.wordle.baselines import filter_returns
from isogon.actors.environments.wordle.entropy_search import entropy_search_returns
from isogon.actors.environments.wordle.players import FilteringPlayer
from isogon.learners.learner import Exploration
from isogon.learners.randomness import stream
from isogon.system.builder import build_spec, build_worker_spec
from isogon.system.config.files import load_config
from isogon.system.config.run import RunConfig
from isogon.system.evaluation import check_poolable, mean_interval, play_evaluation, summarise


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(load_words()[::4]) + "\n")
    return load_config("wordle", [f"environment.word_list={words}", "evaluation.filter_games=40"])


class MemorylessFilter:
    """Perfect filtering that reads each board anew, as a learnt policy does."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        legal: np.ndarray | None,
        exploration: Exploration,
        generator: np.random.Generator,
    ) -> np.ndarray:
        return FilteringPlayer(self._vocabulary).act(observation, legal, exploration, generator)

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        raise AssertionError("it has no weights")

    def draw_noise(self, generator: np.random.Generator | None) -> None:
        raise AssertionError("evaluations play without noise as it is")


def with_seed(config: RunConfig, seed: int) -> RunConfig:
    return config.model_copy(update={"seed": seed})


def test_a_filtering_player_ties_with_perfect_filtering(config: RunConfig) -> None:
    """A player with no skill beyond the baseline's must not come out better: the comparison has no bias."""
    environment = config.environment
    assert environment.kind == "wordle"
    vocabulary = build_vocabulary(load_words(environment.word_list))
    configs = [with_seed(config, seed) for seed in range(12)]

    played = [play_evaluation(one, MemorylessFilter(vocabulary)) for one in configs]
    summary = summarise(configs, played)
    assert abs(summary["never_seen_vs_filter"]) < 0.2
    assert summary["never_seen_vs_filter_low"] < 0 < summary["never_seen_vs_filter_high"]
    assert summary["entropy_search_return"] > summary["filter_return"] > summary["data_policy_return"]
    never = np.stack([scores["never_seen"]["return"] for scores in played])
    assert never.shape == (12, len(split_words(vocabulary.words, environment).never_seen))
    assert summary["never_seen_return"] == pytest.approx(float(never.mean()))
    assert summary["never_seen_solved"] == pytest.approx(float((never > -6).mean()))


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(60):
        low, high = mean_interval(rng.normal(1.0, 2.0, size=60))
        covered += low < 1.0 < high
    assert covered >= 51


def test_a_constant_sample_has_no_width() -> None:
    assert mean_interval(np.full(20, 3.5)) == (3.5, 3.5)


def test_runs_of_other_configs_are_not_pooled(config: RunConfig) -> None:
    check_poolable([config, with_seed(config, 1)])
    with pytest.raises(ValueError, match="value"):
        check_poolable(
            [config, config.model_copy(update={"seed": 1, "value": config.value.model_copy(update={"bins": 7})})]
        )
    with pytest.raises(ValueError, match="runs differ in value"):
        check_poolable([config, config.model_copy(update={"value": config.value.model_copy(update={"bins": 7})})])
    with pytest.raises(ValueError, match="the seed 0 twice"):
        check_poolable([config, config])
    with pytest.raises(ValueError, match="at least one"):
        check_poolable([])


def test_the_comparison_is_made_word_by_word(config: RunConfig) -> None:
    """A player that is half a guess better on every single word has a difference of one half without any spread."""
    environment = config.environment
    assert environment.kind == "wordle"
    vocabulary = build_vocabulary(load_words(environment.word_list))
    split = split_words(vocabulary.words, environment)
    games = config.evaluation.filter_games
    filtering = filter_returns(
        vocabulary, split.never_seen, games, stream(environment.split_seed, "perfect filtering")
    ).mean(1)
    assert np.ptp(filtering) > 0.5
    lengths = np.zeros(len(filtering), np.int64)
    seen = np.where(np.arange(len(split.train)) % 4 == 0, -6.0, -5.0).astype(np.float32)
    scores = []
    for better in (0.25, 0.75):
        returns = {"never_seen": filtering + better, "seen": seen, "validation": seen[:4] + better}
        scores.append({purpose: {"return": part, "length": lengths} for purpose, part in returns.items()})
    summary = summarise([config, with_seed(config, 1)], scores)
    for name in ("never_seen_vs_filter", "never_seen_vs_filter_low", "never_seen_vs_filter_high"):
        assert summary[name] == pytest.approx(0.5, abs=1e-5), name
    entropy = entropy_search_returns(vocabulary, split.never_seen)
    ahead = filtering + 0.5 - entropy
    assert summary["never_seen_vs_entropy_search"] == pytest.approx(float(ahead.mean()), abs=1e-5)
    low, high = mean_interval(ahead)
    assert summary["never_seen_vs_entropy_search_low"] == pytest.approx(low, abs=1e-3)
    assert summary["never_seen_vs_entropy_search_high"] == pytest.approx(high, abs=1e-3)
    assert summary["seen_solved"] == pytest.approx(float((np.arange(len(split.train)) % 4 != 0).mean()))
    assert summary["seen_return"] == pytest.approx(float(seen.mean()))
    assert summary["validation_return"] == pytest.approx(float(seen[:4].mean()) + 0.5)


def test_epsilon_of_the_config_holds_in_the_run_and_at_its_end() -> None:
    config = load_config("cartpole", ["evaluation.epsilon=0.25", "evaluation.episodes=3"])
    told = []

    class Listener(MemorylessFilter):
        def __init__(self) -> None:
            pass

        def act(
            self,
            observation: Mapping[str, np.ndarray],
            legal: np.ndarray | None,
            exploration: Exploration,
            generator: np.random.Generator,
        ) -> np.ndarray:
            told.append(exploration)
            return np.zeros(len(observation["observation"]), np.int64)

    assert len(play_evaluation(config, Listener())["never_seen"]["return"]) == 3
    assert set(told) == {Exploration(epsilon=0.25)}
    assert build_worker_spec(config, build_spec(config)).evaluation_exploration == Exploration(epsilon=0.25)
    assert load_config("cartpole").evaluation.epsilon == 0
