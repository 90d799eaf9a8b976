"""One-step information gain: a strong player without learning, which knows the rules and the whole list.

It guesses the word, of all words, whose colours tell most about which of the still possible words is the answer: the
largest entropy of the pattern, each possible word equally likely. Ties go to a word that may be the answer, then to
the first of the list. One possible word left is guessed; on the last guess only possible words are considered. It is
deterministic, so all games share one decision tree, of which only the branches that the asked answers take are built.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .patterns import NUM_PATTERNS, SOLVED
from .vocabulary import MAX_GUESSES, Indices, Vocabulary

_EQUAL = 1e-9
"""Entropies that differ by less, in nats times words, are ties: they are sums of the same terms in another order."""
_GUESSES_AT_ONCE = 256
"""Keeps the counts of long lists small in memory."""


def entropy_search_returns(vocabulary: Vocabulary, answers: Indices) -> npt.NDArray[np.float32]:
    """Returns ``[answers] float32`` of one game of each answer."""
    returns = np.full(len(answers), -float(MAX_GUESSES), dtype=np.float32)
    branches = [(np.arange(len(vocabulary)), np.arange(len(answers)))]
    for turn in range(MAX_GUESSES):
        deeper = []
        for possible, games in branches:
            last = turn == MAX_GUESSES - 1
            guess = best_guess(vocabulary, possible, among=possible if last else None)
            pattern = vocabulary.patterns[guess, answers[games]]
            returns[games[pattern == SOLVED]] = -turn
            leaves = vocabulary.patterns[guess, possible]
            deeper += [
                (possible[leaves == colours], games[pattern == colours])
                for colours in np.unique(pattern)
                if colours != SOLVED
            ]
        branches = deeper
    return returns


def best_guess(vocabulary: Vocabulary, possible: Indices, among: Indices | None = None) -> int:
    """The index of the word to guess while the words ``possible [M]`` may be the answer, ``among`` the words given.

    Raises:
        ValueError: no word is possible.
    """
    if not len(possible):
        raise ValueError("possible is empty: no word of the list fits the board")
    if len(possible) <= 2:
        return int(possible.min())  # Guessing either of two tells them apart, and may be right.
    own = _remaining_uncertainty(vocabulary.patterns[np.ix_(possible, possible)])
    if own.min() < _EQUAL:
        return int(possible[own < _EQUAL].min())  # Each possible answer would colour it differently: none tells more.
    guesses = np.arange(len(vocabulary)) if among is None else among
    uncertainty = _remaining_uncertainty(vocabulary.patterns[np.ix_(guesses, possible)])
    best = guesses[uncertainty < uncertainty.min() + _EQUAL]
    may_be_answer = best[np.isin(best, possible)]
    return int((may_be_answer if len(may_be_answer) else best).min())


def _remaining_uncertainty(patterns: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """M times the entropy that is left after each guess, in nats, ``[G]``, for patterns ``[G guesses, M possible]``.

    It is the sum over patterns of n log n, for n words with that pattern.
    """
    n = np.arange(patterns.shape[1] + 1)
    n_log_n = n * np.log(np.maximum(n, 1))
    blocks = np.array_split(patterns, -(-len(patterns) // _GUESSES_AT_ONCE))
    return np.concatenate([n_log_n[_count_patterns(block)].sum(1) for block in blocks])


def _count_patterns(patterns: npt.NDArray[np.uint8]) -> Indices:
    """How often each pattern is in each row, ``[G, 243]``."""
    guesses = len(patterns)
    cells = patterns + np.arange(guesses, dtype=np.int64)[:, None] * NUM_PATTERNS
    return np.bincount(cells.ravel(), minlength=guesses * NUM_PATTERNS).reshape(guesses, NUM_PATTERNS)
