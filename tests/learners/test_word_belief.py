from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isogon.actors.environments.wordle import WordleEnvironment, build_vocabulary, load_words
from isogon.actors.environments.wordle.players import PossibleWords
from isogon.learners.encodings.words import letter_knowledge
from isogon.learners.networks.word_belief import Belief, WordBelief
from isogon.learners.randomness import stream
from isogon.learners.values.kinds import CategoricalTarget

VOCABULARY = build_vocabulary(load_words()[::5])
WORDS = VOCABULARY.words


def played(turns: int, boards: int = 40) -> tuple[dict[str, torch.Tensor], np.ndarray, np.ndarray]:
    """Boards after so many random guesses, ``[B, A]`` which words colours leave possible, and the answers."""
    generator = np.random.default_rng(turns)
    answers = generator.integers(len(WORDS), size=boards)
    environment = WordleEnvironment(VOCABULARY, answers)
    observation = environment.reset(stream(0, "games"))
    words = PossibleWords(VOCABULARY)
    possible = words.update(**observation)
    for _ in range(turns):
        # A right guess would end the game.
        others = environment.legal() & (np.arange(len(WORDS)) != answers[:, None])
        guess = np.array([generator.choice(np.flatnonzero(row)) for row in others])
        observation = environment.step(guess).observation
        possible = words.update(**observation)
    return {name: torch.from_numpy(part) for name, part in observation.items()}, possible.copy(), answers


def experienced(answers: int = 10**9) -> WordBelief:
    belief = WordBelief(WORDS)
    belief.answers.fill_(answers)
    return belief


def believe(belief: WordBelief, boards: dict[str, torch.Tensor]) -> Belief:
    believed: Belief = belief(letter_knowledge(boards["letters"], boards["colours"]))
    return believed


@pytest.mark.parametrize("turns", range(6))
def test_with_experience_it_is_the_words_that_colours_leave_possible(turns: int) -> None:
    boards, possible, _ = played(turns)
    belief = believe(experienced(), boards)
    expected = possible / possible.sum(1, keepdims=True)
    np.testing.assert_allclose(belief.word.numpy(), expected, atol=1e-5)
    letters = np.array([[ord(letter) - ord("a") for letter in word] for word in WORDS])
    for place in range(5):
        there = np.stack([expected[:, letters[:, place] == letter].sum(1) for letter in range(26)], axis=1)
        np.testing.assert_allclose(belief.placed[:, :, place].numpy(), there, atol=1e-5)
    copies = np.stack([(letters == letter).sum(1) for letter in range(26)], axis=1)
    for count in range(3):
        np.testing.assert_allclose(belief.counted[:, :, count].numpy(), expected @ (copies > count), atol=1e-5)
    powers = np.log2(possible.sum(1))
    np.testing.assert_allclose(belief.left.numpy() @ np.arange(13), powers, atol=1e-4)
    np.testing.assert_allclose(belief.left.sum(1).numpy(), 1, atol=1e-6)
    assert ((belief.left > 0).sum(1) <= 2).all()


def test_what_a_colour_tells_is_the_entropy_of_the_colours_of_the_possible_words() -> None:
    boards, possible, _ = played(1, boards=10)
    tells = believe(experienced(), boards).tells
    letters = np.array([[ord(letter) - ord("a") for letter in word] for word in WORDS])
    for board in range(10):
        left = letters[possible[board]]
        for letter in range(0, 26, 5):
            for place in range(5):
                green = left[:, place] == letter
                yellow = (left == letter).any(1) & ~green
                shares = np.array([green.mean(), yellow.mean(), 1 - green.mean() - yellow.mean()])
                entropy = -sum(share * math.log(share) for share in shares if share > 0)
                assert float(tells[board, letter, place]) == pytest.approx(entropy, abs=1e-4)


def test_without_experience_a_word_pays_the_logarithm_of_two_for_each_thing_against_it() -> None:
    boards, _, _ = played(1)
    known = letter_knowledge(boards["letters"], boards["colours"])
    belief = WordBelief(WORDS)(known)
    for board in (0, 7):
        for word in (3, 100, 200):
            spelt = [ord(letter) - ord("a") for letter in WORDS[word]]
            against = sum(not known.possible[board, letter, place] for place, letter in enumerate(spelt))
            for letter in range(26):
                copies = spelt.count(letter)
                against += sum(int(known.at_least[board, letter, k]) for k in range(3) if copies < k + 1)
                against += sum(int(known.at_most[board, letter, k]) for k in range(3) if copies > k)
            best = belief.word[board].max()
            fitting = believe(experienced(), boards).word[board].argmax()
            assert belief.word[board, fitting] == best
            assert float(belief.word[board, word] / best) == pytest.approx(0.5**against, rel=1e-4)


def test_answers_are_counted_where_a_guess_returned_nothing() -> None:
    boards, _, answers = played(3)
    belief = WordBelief(WORDS)
    row = torch.arange(len(answers))
    guess = torch.from_numpy(answers)
    target = torch.full((len(answers),), -1.0)
    target[:7] = 0.0
    belief.learn(boards, row, guess, target)
    assert int(belief.answers) == 7
    assert belief.broken.tolist() == [0, 0, 0], "colours tell the truth of answers"
    reward, discount = target.clone(), torch.zeros(len(answers))
    discount[3] = 0.9
    belief.learn(boards, row, guess, CategoricalTarget(reward, discount, torch.empty(0)))
    assert int(belief.answers) == 7 + 6


def test_what_speaks_against_an_answer_is_counted_by_its_reason() -> None:
    belief = WordBelief(("aback", "caddy", "daddy", "abbey", "zzzzz", "cabin"))
    letters = torch.full((1, 6, 5), -1)
    colours = torch.full((1, 6, 5), -1)
    letters[0, 0] = torch.tensor([0, 1, 0, 2, 10])
    colours[0, 0] = torch.tensor([0, 1, 2, 0, 0])
    boards = {"letters": letters, "colours": colours}
    one, zero = torch.tensor([0]), torch.zeros(1)
    # "aback" left a green a in the third place, one a, a b elsewhere, no c, no k.
    for answer, reasons in (("zzzzz", [1, 1, 0]), ("cabin", [1, 0, 1]), ("aback", [1, 0, 1])):
        belief.broken.zero_()
        belief.learn(
            boards, one, torch.tensor([("aback", "caddy", "daddy", "abbey", "zzzzz", "cabin").index(answer)]), zero
        )
        assert belief.broken.tolist() == reasons, answer
    assert int(belief.answers) == 3


def test_words_that_training_must_not_see_have_no_part_in_it() -> None:
    boards, possible, _ = played(1)
    trained = np.arange(0, len(WORDS), 2)
    belief = WordBelief(WORDS, trained)
    belief.answers.fill_(10**9)
    in_training = believe(belief, boards).word
    assert in_training[:, 1::2].abs().max() == 0
    fits = possible[:, ::2].any(1)
    among_trained = possible[fits, ::2] / possible[fits, ::2].sum(1, keepdims=True)
    np.testing.assert_allclose(in_training.numpy()[fits, ::2], among_trained, atol=1e-5)
    np.testing.assert_allclose(
        believe(belief.eval(), boards).word.numpy(), possible / possible.sum(1, keepdims=True), atol=1e-5
    )


def test_a_batch_in_which_nothing_was_solved_teaches_nothing() -> None:
    boards, _, answers = played(2)
    belief = WordBelief(WORDS)
    row = torch.arange(len(answers))
    belief.learn(boards, row, torch.from_numpy(answers), torch.full((len(answers),), -1.0))
    assert int(belief.answers) == 0
    assert belief.broken.tolist() == [0, 0, 0]
