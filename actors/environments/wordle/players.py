"""Players that know the rules and a word list: the data policy of offline learning, and perfect filtering.

They keep, for each board, the words that its colours leave possible. A learnt player is never told that set.
N is the number of boards, W of words.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ....learners.learner import Exploration
from .patterns import pattern_code
from .vocabulary import Indices, Vocabulary

Mask = npt.NDArray[np.bool_]


class PossibleWords:
    """The words that each board leaves possible, kept up guess by guess.

    Args:
        vocabulary: the words with their pattern matrix.
        words: ``[M] int64``, indices of the words that are possible before the first guess; None: all.
    """

    def __init__(self, vocabulary: Vocabulary, words: Indices | None = None) -> None:
        self._vocabulary = vocabulary
        self._before_first_guess = np.zeros(len(vocabulary), dtype=np.bool_)
        self._before_first_guess[slice(None) if words is None else words] = True
        self._turn = np.zeros(0, dtype=np.int64)
        self._possible = np.zeros((0, len(vocabulary)), dtype=np.bool_)

    def update(self, letters: npt.NDArray[np.int8], colours: npt.NDArray[np.int8]) -> Mask:
        """``[N, W] bool`` for boards ``[N, 6, 5]``: a view that the next update changes.

        Each board is told from the one of the last update by its number of guesses: fewer is a new game, more is the
        same game gone on. So every game must be shown from its empty board. Raises ValueError for a guess that is
        not in the vocabulary.
        """
        turn = (letters[:, :, 0] >= 0).sum(1)
        if len(turn) != len(self._turn):
            self._turn = np.full(len(turn), letters.shape[1] + 1)
            self._possible = np.empty((len(turn), len(self._vocabulary)), dtype=np.bool_)
        new = turn < self._turn
        self._possible[new] = self._before_first_guess
        self._turn[new] = 0
        while (behind := np.flatnonzero(self._turn < turn)).size:
            row = self._turn[behind]
            guess = self._vocabulary.indices_of(letters[behind, row])
            pattern = pattern_code(colours[behind, row]).astype(np.uint8)
            self._possible[behind] &= self._vocabulary.patterns[guess] == pattern[:, None]
            self._turn[behind] += 1
        return self._possible


class MixturePlayer:
    """The data policy: with probability ``smart_share`` a random word that is still possible, else any legal word.

    Where no word of the player's list is still possible (it may know fewer than can be the answer), it guesses any
    legal word. It explores in its own way: `Exploration` is ignored.

    Args:
        vocabulary: the words with their pattern matrix.
        smart_share: a probability.
        words: ``[M] int64``, the words that it thinks possible; None: the whole list.

    Raises:
        ValueError: ``smart_share`` is not a probability.
    """

    def __init__(self, vocabulary: Vocabulary, smart_share: float, words: Indices | None = None) -> None:
        if not 0 <= smart_share <= 1:
            raise ValueError(f"smart_share is {smart_share}: it must be a probability, 0 to 1")
        self._smart_share = smart_share
        self._possible = PossibleWords(vocabulary, words)

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        legal: Mask | None,
        exploration: Exploration,
        generator: np.random.Generator,
    ) -> Indices:
        """Guesses ``[N] int64``."""
        possible = self._possible.update(observation["letters"], observation["colours"])
        allowed = np.ones_like(possible) if legal is None else legal
        smart = generator.random(len(allowed)) < self._smart_share
        candidates = allowed.copy()
        candidates[smart] &= possible[smart]
        stuck = ~candidates.any(1)
        candidates[stuck] = allowed[stuck]
        return draw_uniformly(candidates, generator)


class FilteringPlayer(MixturePlayer):
    """Perfect filtering: each guess is a random word among those that are still possible."""

    def __init__(self, vocabulary: Vocabulary, words: Indices | None = None) -> None:
        super().__init__(vocabulary, 1.0, words)


def draw_uniformly(candidates: Mask, generator: np.random.Generator) -> Indices:
    """For each row of ``candidates [N, W]`` the index of a True drawn uniformly, ``[N] int64``.

    Raises:
        ValueError: a row has none.
    """
    count = np.count_nonzero(candidates, axis=1)
    if (count == 0).any():
        raise ValueError(f"row {int(np.argmin(count))} has no candidate to draw: every action is forbidden there")
    before = np.cumsum(count) - count
    flat = np.flatnonzero(candidates)[before + generator.integers(count)]
    return np.asarray(flat - np.arange(len(candidates)) * candidates.shape[1])
