from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.actors.environments.wordle.patterns import (
    COLOURS,
    GREEN,
    GREY,
    NUM_PATTERNS,
    SOLVED,
    YELLOW,
    pattern_code,
    pattern_matrix,
    score,
    word_letters,
)

# Few letters, so that repeated ones are the rule.
words = st.text("abc", min_size=5, max_size=5)


@pytest.mark.parametrize(
    ("guess", "answer", "colours"),
    [
        ("speed", "abide", "..y.y"),
        ("speed", "erase", "y.yy."),
        ("speed", "steal", "g.g.."),
        ("speed", "crepe", ".ygy."),
        ("geese", "those", "...gg"),
        ("allow", "label", "yyy.."),
        ("llama", "label", "gyy.."),
        ("crane", "crane", "ggggg"),
        ("fuzzy", "crane", "....."),
    ],
)
def test_repeated_letters_as_in_the_public_game(guess: str, answer: str, colours: str) -> None:
    assert score(guess, answer) == tuple({".": GREY, "y": YELLOW, "g": GREEN}[colour] for colour in colours)


@settings(max_examples=200, deadline=None)
@given(words, words)
def test_colours_follow_the_counts(guess: str, answer: str) -> None:
    colours = score(guess, answer)
    for place in range(5):
        assert (colours[place] == GREEN) == (guess[place] == answer[place])
    for letter in set(guess):
        here = [colours[place] for place in range(5) if guess[place] == letter]
        assert sum(colour != GREY for colour in here) == min(guess.count(letter), answer.count(letter))
        not_green = [colour for colour in here if colour != GREEN]
        assert not_green == sorted(not_green, reverse=True), "yellow copies come before grey ones"


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=1, max_size=80))
def test_matrix_is_the_score_of_every_pair(listed: list[str]) -> None:
    matrix = pattern_matrix(word_letters(tuple(listed)))
    assert matrix.dtype == np.uint8
    expected = [[pattern_code(score(guess, answer)) for answer in listed] for guess in listed]
    np.testing.assert_array_equal(matrix, expected)
    assert (np.diag(matrix) == SOLVED).all()


def test_codes_and_colours_are_inverse() -> None:
    np.testing.assert_array_equal(pattern_code(COLOURS), np.arange(NUM_PATTERNS))
    assert pattern_code([YELLOW, GREY, GREY, GREY, GREEN]) == 1 + 2 * 81
