"""How good a run's policy is, in the end: play by the averaged weights, and what it is compared with.

In Wordle the never-seen words are played, each once, and the comparison is word by word: the mean over the runs' seeds,
minus perfect filtering's mean over many games of that word; the interval is a bootstrap over words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..actors.environments.atari_scores import game_played
from ..actors.environments.build import build_environment
from ..actors.environments.config import Purpose, WordleConfig
from ..actors.environments.wordle import build_vocabulary, load_words, split_words
from ..actors.environments.wordle.baselines import data_policy_returns, filter_returns
from ..actors.environments.wordle.entropy_search import entropy_search_returns
from ..actors.evaluation import play_episodes
from ..actors.work import Scores
from ..learners.learner import Exploration, Policy
from ..learners.randomness import stream
from .atari_evaluation import human_normalised_figures
from .config.run import RunConfig

_EVALUATION_ENVS = 16
_RESAMPLES = 9_999
_UNSOLVED = -6.0
"""The return of a lost game; a game won with the last guess returns -5."""

MAY_DIFFER = {"seed", "ray", "metrics", "checkpoints", "device", "torch_threads", "callbacks"}
"""The parts of a config in which runs that are pooled may differ."""

FOUND = {"value": {"found_range"}}
"""What a run found for itself by its config, and wrote into it."""

WORDLE_PURPOSES: tuple[Purpose, ...] = ("never_seen", "seen", "validation")
"""What is played in Wordle; elsewhere every purpose is the same."""


def solved_share(returns: np.ndarray) -> float:
    """Share of Wordle's games, by their returns of any shape, that were won."""
    return float((returns > _UNSOLVED).mean())


def play_evaluation(config: RunConfig, policy: Policy) -> dict[str, Scores]:
    """Episodes by purpose: every word of both sets once in Wordle, ``evaluation.episodes`` elsewhere."""
    played: dict[str, Scores] = {}
    one_a_word = isinstance(config.environment, WordleConfig)
    for purpose in WORDLE_PURPOSES if one_a_word else ("never_seen",):
        environment = build_environment(config.environment, purpose, _EVALUATION_ENVS)
        episodes = environment.num_envs if one_a_word else config.evaluation.episodes
        played[purpose] = play_episodes(
            environment,
            policy.act,
            episodes,
            stream(config.seed, "final evaluation", len(played)),
            exploration=Exploration(epsilon=config.evaluation.epsilon),
        )
        environment.close()
    return played


def summarise(configs: Sequence[RunConfig], played: Sequence[Mapping[str, Scores]]) -> dict[str, Any]:
    """Figures over runs of one config but for their seeds, in the order of `play_evaluation`'s results.

    Returns:
        JSON values. In Wordle: ``never_seen_return, never_seen_solved, seen_return, seen_solved, filter_return,
        filter_solved, never_seen_vs_filter`` with ``_low, _high`` (95 % interval), ``data_policy_return,
        entropy_search_return, never_seen_vs_entropy_search`` with ``_low, _high``, all of the never-seen answers but
        for the ``seen_`` ones and ``validation_return``, by which choices are to be made. Elsewhere
        ``evaluation_return`` with ``_low, _high`` and ``evaluation_episodes``; of Atari besides what
        `atari_evaluation.human_normalised_figures` gives, and of several games that alone.

    Raises:
        ValueError: there are no runs, they are not of one config, or some game has more runs than another.
    """
    check_poolable(configs)
    if isinstance(configs[0].environment, WordleConfig):
        return _wordle_summary(configs[0], configs[0].environment, played)
    returns = [scores["never_seen"]["return"] for scores in played]
    games = [game for config in configs if (game := game_played(config.environment)) is not None]
    figures = {} if len(set(games)) > 1 else _return_figures(np.concatenate(returns))
    if games:
        figures |= human_normalised_figures(games, returns, figures)
    return figures


def _return_figures(returns: np.ndarray) -> dict[str, Any]:
    low, high = mean_interval(returns)
    return {
        "evaluation_return": float(returns.mean()),
        "evaluation_return_low": low,
        "evaluation_return_high": high,
        "evaluation_episodes": len(returns),
    }


def check_poolable(configs: Sequence[RunConfig]) -> None:
    """Raises ValueError, naming the first field, where runs differ in more than what does not change their results.

    Runs on Atari may differ in the game.
    """
    if not configs:
        raise ValueError("there are no runs to evaluate: name at least one run directory")
    games = [game_played(config.environment) for config in configs]
    apart = {**FOUND, **({} if None in games else {"environment": {"game"}})}
    kept = [config.model_dump(exclude={**dict.fromkeys(MAY_DIFFER, True), **apart}) for config in configs]
    for other in kept[1:]:
        for field, value in kept[0].items():
            if other[field] != value:
                raise ValueError(
                    f"runs differ in {field}: {value} and {other[field]}; evaluate runs of one preset that differ "
                    "in their seeds alone"
                )
    seeds = [(config.seed, game) for config, game in zip(configs, games, strict=True)]
    if twice := [seed for seed, game in seeds if seeds.count((seed, game)) > 1]:
        raise ValueError(f"runs have the seed {twice[0]} twice: pool runs of different seeds, each once")


@dataclass(frozen=True, eq=False)
class Opponents:
    """Returns of the players without learning on one set of words; all of them know the whole list.

    Attributes:
        filtering: ``[words, games]``, perfect filtering.
        data_policy: ``[words, games]``, the players of the offline games.
        entropy_search: ``[words]``, one-step entropy search, which always plays alike.
    """

    filtering: np.ndarray
    data_policy: np.ndarray
    entropy_search: np.ndarray


def play_opponents(
    environment: WordleConfig,
    games: int,
    smart_share: float,
    words: Literal["never_seen", "validation"] = "never_seen",
) -> Opponents:
    """Let the players without learning play each word of a set ``games`` times.

    Their streams hang on the split, not on a run's seed: all runs meet the same opponents.
    """
    vocabulary = build_vocabulary(load_words(environment.word_list))
    split = split_words(vocabulary.words, environment)
    answers = split.never_seen if words == "never_seen" else split.validation
    seed = environment.split_seed
    return Opponents(
        filter_returns(vocabulary, answers, games, stream(seed, "perfect filtering")),
        data_policy_returns(vocabulary, answers, games, smart_share, stream(seed, "data policy")),
        entropy_search_returns(vocabulary, answers),
    )


def rival_returns(config: RunConfig) -> dict[str, float]:
    """Mean returns on Wordle's validation words of the players that do not learn, by name; none elsewhere."""
    environment = config.environment
    if not isinstance(environment, WordleConfig):
        return {}
    opponents = _opponents(config, environment, "validation")
    return {
        "entropy search": float(opponents.entropy_search.mean()),
        "perfect filtering": float(opponents.filtering.mean()),
        "data policy": float(opponents.data_policy.mean()),
    }


def _opponents(config: RunConfig, environment: WordleConfig, words: Literal["never_seen", "validation"]) -> Opponents:
    smart = config.offline.smart_share if config.offline else 0.5
    return play_opponents(environment, config.evaluation.filter_games, smart, words)


def mean_interval(sample: np.ndarray) -> tuple[float, float]:
    """95 % BCa bootstrap interval of the mean of ``sample [M]`` (Efron 1987); of a constant sample the constant."""
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    # Loading it takes as long as half of torch, and most commands need no interval.
    from scipy import stats

    interval = stats.bootstrap(
        (sample.astype(np.float64),), np.mean, n_resamples=_RESAMPLES, rng=stream(0, "bootstrap")
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _wordle_summary(
    config: RunConfig, environment: WordleConfig, played: Sequence[Mapping[str, Scores]]
) -> dict[str, Any]:
    opponents = _opponents(config, environment, "never_seen")
    filtering, data = opponents.filtering, opponents.data_policy
    never_seen = np.stack([scores["never_seen"]["return"] for scores in played])
    seen = np.stack([scores["seen"]["return"] for scores in played])
    gain = never_seen.mean(0) - filtering.mean(1)
    low, high = mean_interval(gain)
    ahead = never_seen.mean(0) - opponents.entropy_search
    ahead_low, ahead_high = mean_interval(ahead)
    return {
        "never_seen_return": float(never_seen.mean()),
        "filter_return": float(filtering.mean()),
        "never_seen_vs_filter": float(gain.mean()),
        "never_seen_vs_filter_low": low,
        "never_seen_vs_filter_high": high,
        "never_seen_solved": solved_share(never_seen),
        "filter_solved": solved_share(filtering),
        "seen_return": float(seen.mean()),
        "seen_solved": solved_share(seen),
        "validation_return": float(np.stack([scores["validation"]["return"] for scores in played]).mean()),
        "data_policy_return": float(data.mean()),
        "data_policy_solved": solved_share(data),
        "entropy_search_return": float(opponents.entropy_search.mean()),
        "never_seen_vs_entropy_search": float(ahead.mean()),
        "never_seen_vs_entropy_search_low": ahead_low,
        "never_seen_vs_entropy_search_high": ahead_high,
    }
