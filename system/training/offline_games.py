"""The offline data set of a run: games that the data policy played, as columns."""

from __future__ import annotations

from ...actors.columns import Columns
from ...actors.environments.config import WordleConfig
from ...actors.environments.wordle import build_vocabulary, load_words, split_words
from ...actors.offline_games import OfflineGamesConfig, record_wordle_games
from ...learners.randomness import stream


def record_offline_games(
    environment: WordleConfig, offline: OfflineGamesConfig, seed: int, *, record_legal: bool
) -> Columns:
    """Games of the data policy over the training words alone."""
    vocabulary = build_vocabulary(load_words(environment.word_list))
    train = split_words(vocabulary.words, environment).train
    return record_wordle_games(vocabulary, train, offline, stream(seed, "offline games"), record_legal=record_legal)
