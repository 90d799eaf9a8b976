"""Offline games: what a poor player played before anybody learnt."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ..learners.settings import Settings
from .columns import Columns
from .environments.wordle import Vocabulary, WordleEnvironment
from .environments.wordle.players import MixturePlayer
from .rollout import record

_BOARDS = 512
_STEPS_A_BOARD = 64
"""At least so many, where steps are few: games that are not played to their end are lost."""


class OfflineGamesConfig(Settings):
    """Games that poor players played."""

    steps: int = Field(180_000, ge=1, description="environment steps that the data policy plays")
    smart_share: float = Field(
        0.5, ge=0, le=1, description="Wordle: probability that it guesses a consistent word; else any word"
    )


def record_wordle_games(
    vocabulary: Vocabulary,
    words: np.ndarray,
    config: OfflineGamesConfig,
    generator: np.random.Generator,
    *,
    record_legal: bool,
) -> Columns:
    """Games of the data policy over ``words [M] int64`` alone: as answers, as guesses and as what it thinks possible.

    Raises:
        ValueError: fewer words than a game has guesses, or an index that is not in the vocabulary.
    """
    player = MixturePlayer(vocabulary, config.smart_share, words=words)
    boards = min(_BOARDS, max(1, config.steps // _STEPS_A_BOARD))
    environment = WordleEnvironment(vocabulary, words, boards, guesses=words)
    return record(environment, player.act, config.steps, generator, record_legal=record_legal)
