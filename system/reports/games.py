"""What a Wordle policy thinks while it plays: its games of some answers, greedily, and the tree that they form.

N games at once, K bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...actors.environments.config import WordleConfig
from ...actors.environments.wordle import Vocabulary, WordleEnvironment, WordSplit
from ...actors.environments.wordle.patterns import COLOURS
from ...learners.policy import QPolicy
from ...learners.randomness import stream

Indices = npt.NDArray[np.int64]

_ALTERNATIVES = 3


@dataclass(frozen=True, eq=False)
class Belief:
    """The return from here on that a policy expects of a guess, as a distribution.

    Attributes:
        edges: ``[K + 1]`` of the bins, in units of return, rising.
        probabilities: ``[K]``.
    """

    edges: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Turn:
    """One guess.

    Attributes:
        guess: the word.
        colours: of its letters: 0 grey, 1 yellow, 2 green.
        value: the return from here on that the policy expected of it, before it saw the colours.
        belief: the same as a distribution; None where the value head has none.
        others: the next best words, with their values.
        possible: words of the list that still fitted the board before it, which the policy is not told.
    """

    guess: str
    colours: tuple[int, ...]
    value: float
    belief: Belief | None
    others: tuple[tuple[str, float], ...]
    possible: int


@dataclass(frozen=True, eq=False)
class Game:
    """A game to its end."""

    answer: str
    turns: tuple[Turn, ...]

    @property
    def solved(self) -> bool:
        """Whether the last guess was the answer."""
        return self.turns[-1].guess == self.answer


@dataclass(frozen=True, eq=False)
class Branch:
    """The colours that a guess got in some of the games, and what followed there.

    Attributes:
        turn: the guess with its colours.
        answers: of those games.
        then: the next guess; None where the games ended, solved or lost.
    """

    turn: Turn
    answers: tuple[str, ...]
    then: Node | None


@dataclass(frozen=True, eq=False)
class Node:
    """A guess on a board that some games share, and a branch for each of the colours that it got."""

    guess: str
    value: float
    answers: tuple[str, ...]
    branches: tuple[Branch, ...]


def choose_answers(split: WordSplit, config: WordleConfig, count: int) -> Indices:
    """Never-seen words ``[<= count] int64`` to show games of, drawn by the split's seed: the same for all its runs."""
    chosen = stream(config.split_seed, "report answers").permutation(split.never_seen)[:count]
    return np.asarray(chosen, np.int64)


@torch.no_grad()
def play_games(policy: QPolicy, vocabulary: Vocabulary, answers: Indices) -> list[Game]:
    """Greedy games of the words ``answers [N] int64``, any word allowed."""
    environment = WordleEnvironment(vocabulary, answers)
    observation = environment.reset(stream(0, "report games"))
    turns: list[list[Turn]] = [[] for _ in answers]
    possible = np.ones((len(answers), len(vocabulary)), np.bool_)
    running = np.ones(len(answers), np.bool_)
    while running.any():
        thoughts = _think(policy, {name: torch.from_numpy(part) for name, part in observation.items()}, environment)
        guesses = np.array([thought.action for thought in thoughts], np.int64)
        step = environment.step(guesses)
        for game in np.flatnonzero(running):
            pattern = vocabulary.patterns[guesses[game], answers[game]]
            thought = thoughts[game]
            turns[game].append(
                Turn(
                    thought.guess,
                    tuple(int(colour) for colour in COLOURS[pattern]),
                    thought.value,
                    thought.belief,
                    thought.others,
                    int(possible[game].sum()),
                )
            )
            possible[game] &= vocabulary.patterns[guesses[game]] == pattern
        running &= ~step.terminated
        observation = step.observation
    return [Game(vocabulary.words[answer], tuple(game)) for answer, game in zip(answers, turns, strict=True)]


def guess_tree(games: Sequence[Game], depth: int = 0) -> Node | None:
    """Games of one greedy policy, which agree in their first ``depth`` guesses and colours, as a tree from there on.

    None where they are over by then. A policy guesses the same on the same board, so that only colours part games.
    """
    if depth >= len(games[0].turns):
        return None
    together: dict[tuple[int, ...], list[Game]] = {}
    for game in games:
        together.setdefault(game.turns[depth].colours, []).append(game)
    turn = games[0].turns[depth]
    return Node(
        turn.guess,
        turn.value,
        _answers(games),
        tuple(Branch(same[0].turns[depth], _answers(same), guess_tree(same, depth + 1)) for same in together.values()),
    )


def _answers(games: Sequence[Game]) -> tuple[str, ...]:
    return tuple(game.answer for game in games)


@dataclass(frozen=True, eq=False)
class _Thought:
    action: int
    guess: str
    value: float
    belief: Belief | None
    others: tuple[tuple[str, float], ...]


def _think(policy: QPolicy, observation: dict[str, torch.Tensor], environment: WordleEnvironment) -> list[_Thought]:
    words = environment.spec.action_words
    assert words is not None
    legal = torch.from_numpy(environment.legal())
    head = policy.module.head
    hidden = policy.module.torso(observation)
    value, action = head.best(hidden, legal)
    values, actions = head.top(hidden, legal, min(_ALTERNATIVES + 1, policy.module.num_actions))
    beliefs: Sequence[Belief | None] = [None] * len(action)
    if (edges := head.edges()) is not None:
        beliefs = [Belief(edges.numpy(), row) for row in head.distribution(hidden, action).double().numpy()]
    thoughts = []
    for n, best in enumerate(action.tolist()):
        ranked = [(words[a], v) for v, a in zip(values[n].tolist(), actions[n].tolist(), strict=True) if a != best]
        others = tuple((word, v) for word, v in ranked[:_ALTERNATIVES] if math.isfinite(v))
        thoughts.append(_Thought(best, words[best], float(value[n]), beliefs[n], others))
    return thoughts
