from __future__ import annotations

import numpy as np
import pytest

from isogon.actors.environments.wordle import WordleEnvironment, build_vocabulary, load_words
from isogon.actors.environments.wordle.patterns import score
from isogon.learners.randomness import stream

from .environment_suite import EnvironmentSuite, random_actions

WORDS = tuple(load_words()[::60])
VOCABULARY = build_vocabulary(WORDS)
GUESSES = np.arange(0, len(WORDS), 2)


class OneGame:
    """One board, slowly and with words: what the vector must agree with."""

    def __init__(self, answer: str, may_guess: set[str]) -> None:
        self.answer, self.may_guess = answer, may_guess
        self.ended = False
        self.guesses: list[str] = []

    def step(self, guess: str) -> float:
        if self.ended:
            self.ended, self.guesses = False, []
            return 0.0
        assert guess in self.legal()
        self.guesses.append(guess)
        self.ended = guess == self.answer or len(self.guesses) == 6
        return 0.0 if guess == self.answer else -1.0

    def legal(self) -> set[str]:
        return self.may_guess - set(self.guesses)

    def letters(self) -> list[list[int]]:
        rows = [[ord(letter) - ord("a") for letter in guess] for guess in self.guesses]
        return rows + [[-1] * 5] * (6 - len(rows))

    def colours(self) -> list[list[int]]:
        rows = [list(score(guess, self.answer)) for guess in self.guesses]
        return rows + [[-1] * 5] * (6 - len(rows))


class TestDrawnAnswers(EnvironmentSuite):
    def make(self) -> WordleEnvironment:
        return WordleEnvironment(VOCABULARY, GUESSES, 5, guesses=GUESSES)


class TestFixedAnswers(EnvironmentSuite):
    def make(self) -> WordleEnvironment:
        return WordleEnvironment(VOCABULARY, np.array([3, 4, 9]))


@pytest.mark.parametrize("guesses", [None, GUESSES])
def test_whole_games_agree_with_a_slow_reference(guesses: np.ndarray | None) -> None:
    answers = np.arange(12)
    environment = WordleEnvironment(VOCABULARY, answers, guesses=guesses)
    may_guess = {WORDS[index] for index in (range(len(WORDS)) if guesses is None else guesses)}
    games = [OneGame(WORDS[answer], may_guess) for answer in answers]
    observation = environment.reset(stream(0, "environment"))
    generator = stream(0, "actions")
    solved = missed = 0
    for _ in range(120):
        np.testing.assert_array_equal(observation["letters"], [game.letters() for game in games])
        np.testing.assert_array_equal(observation["colours"], [game.colours() for game in games])
        legal = [[word in game.legal() for word in WORDS] for game in games]
        np.testing.assert_array_equal(environment.legal(), legal)
        action = random_actions(environment, generator)
        step = environment.step(action)
        np.testing.assert_array_equal(
            step.reward, [game.step(WORDS[guess]) for game, guess in zip(games, action, strict=True)]
        )
        np.testing.assert_array_equal(step.terminated, [game.ended for game in games])
        assert not step.truncated.any()
        solved += int((step.terminated & (step.reward == 0)).sum())
        missed += int((step.terminated & (step.reward < 0)).sum())
        observation = step.observation
    assert solved
    assert missed


def test_the_return_is_minus_the_guesses_before_the_solving_one() -> None:
    environment = WordleEnvironment(VOCABULARY, np.arange(8))
    environment.reset(stream(0, "environment"))
    returns = np.zeros(8)
    running = np.ones(8, dtype=np.bool_)
    for guess in range(6):
        step = environment.step(np.full(8, guess))
        returns += step.reward * running
        running &= ~step.terminated
    assert not running.any()
    np.testing.assert_array_equal(returns, [0, -1, -2, -3, -4, -5, -6, -6])


def test_answers_are_drawn_uniformly_from_the_pool_alone() -> None:
    pool = np.array([2, 5, 11])
    environment = WordleEnvironment(VOCABULARY, pool, 100)
    environment.reset(stream(0, "environment"))
    drawn = np.zeros(len(WORDS), dtype=np.int64)
    turn = np.zeros(100, dtype=np.int64)
    for _ in range(60):
        action = pool[np.minimum(turn, 2)]
        step = environment.step(action)
        np.add.at(drawn, action[step.terminated], 1)
        began = (step.observation["letters"] == -1).all((1, 2))
        turn = np.where(began, 0, turn + 1)
        assert (turn <= 3).all(), "the answer was none of the pool"
    assert drawn.sum() == drawn[pool].sum() > 1500
    expected = drawn.sum() / 3
    # Chi-square of two degrees of freedom: above 18 once in 8,000 seeds.
    assert ((drawn[pool] - expected) ** 2 / expected).sum() < 18


def test_boards_do_not_depend_on_the_word_list() -> None:
    other = build_vocabulary((*reversed(WORDS[:24]), "zzzzz"))
    boards = []
    for vocabulary in (VOCABULARY, other):
        environment = WordleEnvironment(vocabulary, np.array([vocabulary.words.index(WORDS[7])]))
        environment.reset(stream(0, "environment"))
        for word in WORDS[10:14]:
            step = environment.step(np.array([vocabulary.words.index(word)]))
        boards.append(step.observation)
    np.testing.assert_array_equal(boards[0]["letters"], boards[1]["letters"])
    np.testing.assert_array_equal(boards[0]["colours"], boards[1]["colours"])


def test_words_that_may_not_be_guessed_are_refused_by_name() -> None:
    environment = WordleEnvironment(VOCABULARY, GUESSES[-2:], 2, guesses=GUESSES)
    environment.reset(stream(0, "environment"))
    with pytest.raises(ValueError, match=rf"action\[1\] is 3, '{WORDS[3]}', which may not be guessed here: choose"):
        environment.step(np.array([0, 3]))
    environment.step(np.array([0, 2]))
    with pytest.raises(ValueError, match=rf"action\[0\] is 0, '{WORDS[0]}', which was guessed on this board before"):
        environment.step(np.array([0, 4]))
    # What was refused changed nothing.
    np.testing.assert_array_equal(environment.legal()[:, [0, 2, 4]], [[False, True, True], [True, False, True]])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"answers has shape \[0\]: expected a row of at least 1 word indices"):
        WordleEnvironment(VOCABULARY, np.array([], dtype=np.int64))
    with pytest.raises(ValueError, match=rf"answers spans 0..35: the vocabulary has the words 0..{len(WORDS) - 1}"):
        WordleEnvironment(VOCABULARY, np.array([0, 35]))
    with pytest.raises(ValueError, match=r"guesses has shape \[5\]: expected a row of at least 6"):
        WordleEnvironment(VOCABULARY, np.array([0]), guesses=np.arange(5))
    with pytest.raises(ValueError, match="num_envs is 0: there must be at least one board"):
        WordleEnvironment(VOCABULARY, np.array([0]), 0)
