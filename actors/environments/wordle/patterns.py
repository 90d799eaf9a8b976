"""The colours that a guess gets, by the public game's rules, one pair at a time and for all pairs of a list.

First every letter in its place is green. Then, from left to right, a letter that is not green is yellow while the
answer still has a copy of it that is neither green nor already accounted for by an earlier yellow, and grey otherwise.
So guessing "geese" when the answer is "those" colours only the last two letters.

W is the number of words. A *pattern* is five colours in one number, base 3, the first letter the least digit.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np
import numpy.typing as npt

LETTERS: Final = 5
GREY, YELLOW, GREEN = 0, 1, 2
NUM_PATTERNS: Final = 3**LETTERS
SOLVED: Final = NUM_PATTERNS - 1
"""The pattern of five greens."""

_DIGITS = 3 ** np.arange(LETTERS, dtype=np.int64)
COLOURS: Final[npt.NDArray[np.int8]] = (np.arange(NUM_PATTERNS)[:, None] // _DIGITS % 3).astype(np.int8)
"""``[243, 5] int8``: the colours of each pattern."""
_ROWS_AT_ONCE = 64


def score(guess: str, answer: str) -> tuple[int, ...]:
    """The colours of one guess, straight from the rules; `pattern_matrix` is the fast way."""
    colours = [GREEN if letter == truth else GREY for letter, truth in zip(guess, answer, strict=True)]
    left = Counter(truth for truth, colour in zip(answer, colours, strict=True) if colour != GREEN)
    for place, letter in enumerate(guess):
        if colours[place] != GREEN and left[letter] > 0:
            colours[place] = YELLOW
            left[letter] -= 1
    return tuple(colours)


def pattern_code(colours: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Patterns ``[...] int64`` of colours ``[..., 5]``."""
    return np.asarray(np.asarray(colours, dtype=np.int64) @ _DIGITS)


def word_letters(words: tuple[str, ...]) -> npt.NDArray[np.int8]:
    """Letters ``[W, 5] int8``, 0 for "a", of words of five letters a to z."""
    return (
        (np.frombuffer("".join(words).encode("ascii"), dtype=np.uint8) - ord("a")).astype(np.int8).reshape(-1, LETTERS)
    )


def pattern_matrix(letters: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Patterns ``[W guesses, W answers] uint8`` of all pairs of words, given as letters ``[W, 5]``.

    Time and memory grow with W squared: 2,000 words take 4 MB, 15,000 take 225 MB.
    """
    matrix = np.empty((len(letters), len(letters)), dtype=np.uint8)
    answers = np.ascontiguousarray(letters.T)
    for start in range(0, len(letters), _ROWS_AT_ONCE):
        # A block of rows keeps the intermediate arrays in the processor's cache.
        matrix[start : start + _ROWS_AT_ONCE] = _pattern_rows(letters[start : start + _ROWS_AT_ONCE], answers)
    return matrix


def _pattern_rows(guesses: npt.NDArray[np.int8], answers: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    guessed = [guesses[:, place, None] for place in range(LETTERS)]
    not_green = [letter != answer for letter, answer in zip(guessed, answers, strict=True)]
    rows = np.zeros((len(guesses), answers.shape[1]), dtype=np.uint8)
    for place, letter in enumerate(guessed):
        copies_left = np.zeros(rows.shape, dtype=np.int8)
        for other in range(LETTERS):
            copies_left += (answers[other] == letter) & not_green[other]
        for earlier in range(place):
            copies_left -= (guessed[earlier] == letter) & not_green[earlier]
        yellow = not_green[place] & (copies_left > 0)
        rows += (yellow.view(np.uint8) + (~not_green[place]).view(np.uint8) * np.uint8(GREEN)) * np.uint8(3**place)
    return rows
