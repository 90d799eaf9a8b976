"""One Wordle board as a person sees it: guesses with their colours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ...actors.environments.wordle import MAX_GUESSES
from ...actors.environments.wordle.environment import EMPTY
from ...actors.environments.wordle.patterns import GREEN, LETTERS, score, word_letters


@dataclass(frozen=True)
class Guess:
    """A word that was played.

    Attributes:
        word: five letters a to z.
        colours: of its letters, each 0 grey, 1 yellow or 2 green.
    """

    word: str
    colours: tuple[int, ...]

    @property
    def solves(self) -> bool:
        """Whether all letters are green."""
        return all(colour == GREEN for colour in self.colours)

    def fits(self, answer: str) -> bool:
        """Whether the word would get these colours if this were the answer."""
        return score(self.word, answer) == self.colours


@dataclass(frozen=True)
class Board:
    """Up to six guesses, in order. Playing and taking back give a new board."""

    guesses: tuple[Guess, ...] = ()

    @property
    def solved(self) -> bool:
        """Whether the last guess was the answer."""
        return bool(self.guesses) and self.guesses[-1].solves

    @property
    def full(self) -> bool:
        """Whether all six guesses are made."""
        return len(self.guesses) == MAX_GUESSES

    def play(self, guess: Guess) -> Board:
        """The board after one more guess. Raises ValueError where the game is over."""
        if self.solved or self.full:
            raise ValueError(f"the board has {len(self.guesses)} guesses and the game is over: take one back first")
        return Board((*self.guesses, guess))

    def take_back(self) -> Board:
        """The board without its last guess; an empty one stays as it is."""
        return Board(self.guesses[:-1])

    def observation(self) -> dict[str, np.ndarray]:
        """What the network sees, as `WordleEnvironment` shows it: ``letters, colours [1, 6, 5] int8``."""
        letters, colours = np.full((2, 1, MAX_GUESSES, LETTERS), EMPTY, np.int8)
        for row, guess in enumerate(self.guesses):
            letters[0, row] = word_letters((guess.word,))[0]
            colours[0, row] = guess.colours
        return {"letters": letters, "colours": colours}

    def misfit(self, words: Iterable[str]) -> str | None:
        """Why none of ``words`` can be the answer, None where one can be."""
        known = list(words)
        if any(all(guess.fits(word) for guess in self.guesses) for word in known):
            return None
        last = self.guesses[-1]
        if not any(last.fits(word) for word in known):
            return f"no word of the list gives {last.word} these colours"
        return "no word of the list fits the colours of all guesses so far"
