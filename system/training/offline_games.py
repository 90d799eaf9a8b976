"""The offline data set: games that the data policy played, as columns."""

from __future__ import annotations

from ...actors.columns import Columns
from ...actors.environments.build import build_environment
from ...actors.environments.config import WordleConfig
from ...actors.environments.wordle import build_vocabulary, load_words, split_words
from ...actors.environments.wordle.players import MixturePlayer
from ...actors.rollout import record
from ...learners.randomness import stream
from ..config.run import OfflineConfig

_BOARDS = 512
_STEPS_A_BOARD = 64
"""At least so many, where steps are few: games that are not played to their end are lost."""


def record_offline_games(
    environment: WordleConfig, offline: OfflineConfig, seed: int, *, record_legal: bool
) -> Columns:
    """Games of the data policy over the training words alone, as answers, as guesses and as what it thinks possible."""
    vocabulary = build_vocabulary(load_words(environment.word_list))
    train = split_words(vocabulary.words, environment).train
    player = MixturePlayer(vocabulary, offline.smart_share, words=train)
    vector = build_environment(environment, "train", min(_BOARDS, max(1, offline.steps // _STEPS_A_BOARD)))
    return record(vector, player.act, offline.steps, stream(seed, "offline games"), record_legal=record_legal)
