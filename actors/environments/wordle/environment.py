"""The game of Wordle, N boards at once.

A hidden answer, six guesses; each guess is coloured by `patterns.score`. The reward is -1 for a guess that does not
solve and 0 for the one that does, so the return is minus the number of guesses before the solving one, or -6.

The observation has the letters and colours on the board and nothing of the list: no indices and no count of the words
still possible. A guess may not be repeated on its board. Repeating one can never help, and a greedy player that finds
an uninformative word best would find it best again on the unchanged board, until the game is lost.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ....learners.encodings.spec import ArraySpec, EnvironmentSpec
from ..contract import Observation, Step
from .patterns import COLOURS, LETTERS, SOLVED
from .vocabulary import MAX_GUESSES, Indices, Vocabulary

EMPTY: Final = -1
"""Letter and colour of a place that no guess has filled yet."""


def wordle_spec(words: tuple[str, ...]) -> EnvironmentSpec:
    """What a network is told: ``letters`` and ``colours``, ``[6, 5] int8`` both, -1 where empty."""
    board = ArraySpec((MAX_GUESSES, LETTERS), "int8")
    return EnvironmentSpec(
        name="wordle",
        observation={"letters": board, "colours": board},
        num_actions=len(words),
        has_legal=True,
        action_words=words,
    )


class WordleEnvironment:
    """N boards, a `VectorEnvironment`. Episodes terminate and are never truncated.

    Args:
        vocabulary: the words, which are the actions, with their pattern matrix.
        answers: ``[M] int64``, indices of the words that may be the answer.
        num_envs: that many boards, each drawing a new answer for each game; None: one board for each of the answers,
            in their order, which is its answer in every game.
        guesses: ``[G] int64``, indices of the words that may be guessed; None: all.

    Raises:
        ValueError: there is no answer, no board, fewer words to guess than a game has guesses, or an index that is
            not in the vocabulary.
    """

    def __init__(
        self, vocabulary: Vocabulary, answers: Indices, num_envs: int | None = None, guesses: Indices | None = None
    ) -> None:
        _check_indices("answers", answers, len(vocabulary), 1)
        if guesses is not None:
            _check_indices("guesses", guesses, len(vocabulary), MAX_GUESSES)
        if num_envs is not None and num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: there must be at least one board")
        self._vocabulary = vocabulary
        self._pool = answers
        self._draws = num_envs is not None
        self._num_envs = len(answers) if num_envs is None else num_envs
        self._spec = wordle_spec(vocabulary.words)
        self._may_guess = np.zeros(len(vocabulary), dtype=np.bool_)
        self._may_guess[slice(None) if guesses is None else guesses] = True
        boards = (self._num_envs, MAX_GUESSES, LETTERS)
        self._letters = np.full(boards, EMPTY, dtype=np.int8)
        self._colours = np.full(boards, EMPTY, dtype=np.int8)
        self._turn = np.zeros(self._num_envs, dtype=np.int64)
        self._answer = np.zeros(self._num_envs, dtype=np.int64)
        self._ended = np.zeros(self._num_envs, dtype=np.bool_)
        self._legal = np.empty((self._num_envs, len(vocabulary)), dtype=np.bool_)
        self._stream: np.random.Generator | None = None

    @property
    def spec(self) -> EnvironmentSpec:
        """Shapes and names."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """N."""
        return self._num_envs

    def reset(self, stream: np.random.Generator) -> Observation:
        """Begin N new games; answers that are drawn come from ``stream``, for these games and all later ones."""
        self._stream = stream
        self._begin(np.arange(self._num_envs))
        self._ended[:] = False
        return self._observation()

    def step(self, action: npt.NDArray[np.int64]) -> Step:
        """Guess the word ``action [N] int64`` on each board; a board whose game has ended begins a new one instead.

        Raises:
            ValueError: wrong shape or dtype, no game was begun, or a word that is not in the list, may not be guessed
                or was guessed on this board before.
        """
        self._check_action(action)
        playing = np.flatnonzero(~self._ended)
        new = np.flatnonzero(self._ended)
        guess, turn = action[playing], self._turn[playing]
        pattern = self._vocabulary.patterns[guess, self._answer[playing]]
        self._letters[playing, turn] = self._vocabulary.letters[guess]
        self._colours[playing, turn] = COLOURS[pattern]
        self._legal[playing, guess] = False
        self._turn[playing] += 1
        solved = pattern == SOLVED
        reward = np.zeros(self._num_envs, dtype=np.float32)
        reward[playing] = np.where(solved, np.float32(0), np.float32(-1))
        self._ended[:] = False
        self._ended[playing] = solved | (turn + 1 == MAX_GUESSES)
        self._begin(new)
        return Step(self._observation(), reward, self._ended.copy(), np.zeros(self._num_envs, dtype=np.bool_))

    def legal(self) -> npt.NDArray[np.bool_]:
        """``[N, W] bool``: the words that may be guessed and were not on this board."""
        return self._legal.copy()

    def close(self) -> None:
        """Nothing is held."""

    def _begin(self, boards: Indices) -> None:
        assert self._stream is not None
        self._letters[boards] = EMPTY
        self._colours[boards] = EMPTY
        self._turn[boards] = 0
        self._legal[boards] = self._may_guess
        picks = self._stream.integers(len(self._pool), size=len(boards)) if self._draws else boards
        self._answer[boards] = self._pool[picks]

    def _observation(self) -> Observation:
        return {"letters": self._letters.copy(), "colours": self._colours.copy()}

    def _check_action(self, action: npt.NDArray[np.int64]) -> None:
        if self._stream is None:
            raise ValueError("step before reset: begin the games with reset(stream)")
        if action.shape != (self._num_envs,) or action.dtype != np.int64:
            raise ValueError(f"action is {action.dtype}{list(action.shape)}, expected int64[{self._num_envs}]")
        words = len(self._vocabulary)
        outside = ((action < 0) | (action >= words)) & ~self._ended
        if outside.any():
            board = int(np.flatnonzero(outside)[0])
            raise ValueError(f"action[{board}] is {action[board]}: it must be in 0..{words - 1}")
        allowed = self._legal[np.arange(self._num_envs), np.where(self._ended, 0, action)] | self._ended
        if not allowed.all():
            board = int(np.flatnonzero(~allowed)[0])
            why = "was guessed on this board before" if self._may_guess[action[board]] else "may not be guessed here"
            raise ValueError(
                f"action[{board}] is {action[board]}, {self._vocabulary.words[action[board]]!r}, which {why}: "
                "choose among legal()"
            )


def _check_indices(name: str, indices: Indices, words: int, least: int) -> None:
    if indices.ndim != 1 or len(indices) < least:
        raise ValueError(f"{name} has shape {list(indices.shape)}: expected a row of at least {least} word indices")
    if indices.min() < 0 or indices.max() >= words:
        raise ValueError(f"{name} spans {indices.min()}..{indices.max()}: the vocabulary has the words 0..{words - 1}")
