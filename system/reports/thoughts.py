"""How a policy's expectation moved during a game of Wordle, guess by guess, against what came true.

A value is of what is still to come: after k guesses the return v from there on stands for a number of misses m, which
without a discount is -v, and so for a game that is solved with guess ``1 + k + m``. All of a game's distributions share
the axis "solved with guess 1 ... 6, or lost".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ...actors.environments.wordle import MAX_GUESSES
from ...actors.environments.wordle.misses import misses_of_return
from .games import Belief, Game, Turn
from .svg import belief_chart

_LOST = MAX_GUESSES + 1
_LOW, _HIGH = 0.5, _LOST + 0.5
_LABELS = tuple((float(k), str(k) if k < _LOST else "lost") for k in range(1, _LOST + 1))


@dataclass(frozen=True)
class Moment:
    """One moment of a game: before a guess, or at its end.

    Attributes:
        played: the guesses so far.
        guess: the one that is made now.
        expected: the guess that is expected to solve.
        value: the return from here on that is expected of it.
        possible: words of the list that still fit.
        others: the next best guesses with their values.
        image: the distribution; None where the value head has none.
    """

    played: tuple[Turn, ...]
    guess: str
    expected: float
    value: float
    possible: int
    others: tuple[tuple[str, float], ...]
    image: Markup | None


@dataclass(frozen=True)
class Thought:
    """A game, moment by moment, and how it ended."""

    answer: str
    moments: tuple[Moment, ...]
    turns: tuple[Turn, ...]
    solved: bool


def thoughts_of(game: Game, discount: float) -> Thought:
    """What the policy believed before each guess of the game, which is what it believed after the guess before.

    Args:
        game: to its end.
        discount: of one guess, under which the policy learnt.
    """
    outcome = float(len(game.turns) if game.solved else _LOST)
    moments = []
    for count, turn in enumerate(game.turns):
        expected = 1 + count + _expected_misses(turn, discount)
        moments.append(
            Moment(
                game.turns[:count],
                turn.guess,
                expected,
                turn.value,
                turn.possible,
                turn.others,
                None if turn.belief is None else _image(turn.belief, count, turn.guess, expected, outcome, discount),
            )
        )
    return Thought(game.answer, tuple(moments), game.turns, game.solved)


def solving_guess(belief: Belief, count: int, discount: float) -> list[tuple[float, float, float]]:
    """The distribution over the solving guess after ``count`` guesses: bars ``(left, right, probability)``, rising.

    What the head puts beyond the axis, where no game can end, counts for the nearest bar on it.
    """
    edges = (1 + count + misses_of_return(belief.edges, discount))[::-1]
    centres = (edges[:-1] + edges[1:]) / 2
    inside = np.flatnonzero((centres > _LOW) & (centres < _HIGH))
    if not len(inside):
        return [(_LOW, _HIGH, float(belief.probabilities.sum()))]
    probabilities = np.zeros(len(centres))
    np.add.at(probabilities, np.clip(np.arange(len(centres)), inside[0], inside[-1]), belief.probabilities[::-1])
    return [(max(float(edges[k]), _LOW), min(float(edges[k + 1]), _HIGH), float(probabilities[k])) for k in inside]


def _expected_misses(turn: Turn, discount: float) -> float:
    """The mean number of misses. Of a value alone, under a discount, the number that the value stands for."""
    if turn.belief is None or discount == 1:
        return float(misses_of_return(turn.value, discount))
    centres = (turn.belief.edges[:-1] + turn.belief.edges[1:]) / 2
    # What no game can return counts as the worst and the best that one can.
    misses = np.clip(misses_of_return(centres, discount), 0, MAX_GUESSES)
    return float(turn.belief.probabilities @ misses / turn.belief.probabilities.sum())


def _image(belief: Belief, count: int, guess: str, expected: float, outcome: float, discount: float) -> Markup:
    return belief_chart(
        solving_guess(belief, count, discount),
        title=f"Before guess {count + 1}, {guess}: solved with guess {expected:.1f} is expected",
        low=_LOW,
        high=_HIGH,
        labels=_LABELS,
        expected=expected,
        outcome=outcome,
    )
