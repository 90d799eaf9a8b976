"""Letter knowledge against a slow reading of one board, square by square, and against the game itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.actors.environments.wordle.patterns import score
from isogon.learners.encodings.words import (
    COUNTS,
    GUESSES,
    LETTERS,
    POSITIONS,
    WORD_FEATURES,
    letter_knowledge,
    word_features,
    word_letters,
)

WORDS = st.text("abcde", min_size=POSITIONS, max_size=POSITIONS)


def board_of(guesses: list[str], answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    letters = torch.full((1, GUESSES, POSITIONS), -1, dtype=torch.int8)
    colours = letters.clone()
    for row, guess in enumerate(guesses):
        letters[0, row] = word_letters([guess])[0]
        colours[0, row] = torch.tensor(score(guess, answer), dtype=torch.int8)
    return letters, colours


def slow_knowledge(letters: np.ndarray, colours: np.ndarray) -> dict[str, np.ndarray]:
    """The same, from the words of the definition."""
    green = np.zeros((LETTERS, POSITIONS), bool)
    barred = np.zeros((LETTERS, POSITIONS), bool)
    least, greatest = np.zeros(LETTERS, int), np.full(LETTERS, POSITIONS)
    for guess, colour in zip(letters, colours, strict=True):
        if guess[0] < 0:
            continue
        for place in range(POSITIONS):
            (green if colour[place] == 2 else barred)[guess[place], place] = True
        for letter in set(guess):
            coloured = int(((guess == letter) & (colour > 0)).sum())
            least[letter] = max(least[letter], coloured)
            if ((guess == letter) & (colour == 0)).any():
                greatest[letter] = min(greatest[letter], coloured)
    possible = np.ones((LETTERS, POSITIONS), bool)
    for letter in range(LETTERS):
        for place in range(POSITIONS):
            other = any(green[x, place] for x in range(LETTERS) if x != letter)
            possible[letter, place] = not barred[letter, place] and not other and greatest[letter] > 0
    return {
        "possible": possible,
        "green": green,
        "at_least": least[:, None] >= np.arange(1, COUNTS + 1),
        "at_most": greatest[:, None] <= np.arange(COUNTS),
    }


@given(guesses=st.lists(WORDS, max_size=GUESSES - 1), answer=WORDS)
@settings(max_examples=150, deadline=None)
def test_knowledge_is_what_a_slow_reader_finds(guesses: list[str], answer: str) -> None:
    letters, colours = board_of(guesses, answer)
    known = letter_knowledge(letters, colours)
    for name, expected in slow_knowledge(letters[0].numpy(), colours[0].numpy()).items():
        np.testing.assert_array_equal(getattr(known, name)[0].numpy(), expected, err_msg=name)
    assert int(known.turn[0].float().argmax()) == len(guesses)


@given(guesses=st.lists(WORDS, max_size=GUESSES - 1), answer=WORDS)
@settings(max_examples=100, deadline=None)
def test_the_answer_is_never_ruled_out(guesses: list[str], answer: str) -> None:
    known = letter_knowledge(*board_of(guesses, answer))
    for place, letter in enumerate(word_letters([answer])[0].tolist()):
        assert bool(known.possible[0, letter, place])
    for letter in range(LETTERS):
        copies = answer.count(chr(ord("a") + letter))
        for k in range(COUNTS):
            assert copies >= k + 1 or not bool(known.at_least[0, letter, k])
            assert copies <= k or not bool(known.at_most[0, letter, k])


def test_a_batch_is_read_board_by_board() -> None:
    boards = [board_of(["crane", "belle"][:n], "eerie") for n in range(3)]
    letters, colours = (torch.cat(part) for part in zip(*boards, strict=True))
    together = letter_knowledge(letters, colours)
    for index, board in enumerate(boards):
        assert torch.equal(together.possible[index], letter_knowledge(*board).possible[0])


def test_word_features_count_letters_and_places() -> None:
    features = word_features(["eerie", "crane"])
    assert features.shape == (2, WORD_FEATURES)
    placed, counted = features[0, :130].view(LETTERS, POSITIONS), features[0, 130:].view(LETTERS, COUNTS)
    assert placed[4].tolist() == [1, 1, 0, 0, 1]
    assert counted[4].tolist() == [1, 1, 1]
    assert counted[8].tolist() == [1, 0, 0]
    assert placed.sum() == POSITIONS


@pytest.mark.parametrize("word", ["four", "sixsix", "Crane", "cr1ne", "cräne"])
def test_words_of_other_letters_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match=word):
        word_letters(["crane", word])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, 6, 5\]"):
        letter_knowledge(torch.zeros(2, 5, 5), torch.zeros(2, 5, 5))
