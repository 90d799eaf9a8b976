"""Which words of the list a Wordle board leaves likely, by what answers have shown of colours.

B boards, A words, P pairs, W = 208 word features. The list is the one that may be guessed: a player knows it, as it
knows its actions. In training, where players and learner may not see all words, the others have no part in it, not even
as words that are never the answer. Three things may speak
against a word: a letter stands where colours exclude it, a coloured letter is missing, a letter occurs too often. How
much each counts is learnt from the answers of the games that are learnt from: after n of them, k of which had it
against them, the next has it with probability (k + 1) / (n + 2) (Laplace's rule of succession), and a word pays the
logarithm. A player without experience makes little of colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..batch import Observation
from ..encodings.words import COUNTS, LETTERS, POSITIONS, LetterKnowledge, letter_knowledge, word_features
from ..values.kinds import CategoricalTarget, Target

_LEAST_LOG = -60.0
"""Log-likelihoods are cut off here: e^-60 is nothing beside 1 and still something in float32."""
_LEAST_SHARE = 1e-6
LEFT = 13
"""Numbers that tell how many words are left."""


@dataclass(frozen=True)
class Belief:
    """What a board leaves of the list. No gradient.

    Attributes:
        word: ``[B, A]``: the probability that a word is the answer.
        placed: ``[B, 26, 5]``: that a letter stands at a position.
        counted: ``[B, 26, 3]``: that the answer has at least 1, 2, 3 copies of a letter.
        tells: ``[B, 26, 5]``: the nats that the colour of a letter, guessed at a position, would tell by itself.
        left: ``[B, 13]``: how many words fit, n, as a point between powers of 2: at n = 2^k the k-th number is 1 and
            the others are 0, and between two powers two numbers share the 1.
    """

    word: torch.Tensor
    placed: torch.Tensor
    counted: torch.Tensor
    tells: torch.Tensor
    left: torch.Tensor


class WordBelief(nn.Module):
    """Letter knowledge to a `Belief` over ``words``; in training mode over those at ``training_words [M] int64``.

    Attributes:
        answers: ``[] int64``: n, answers learnt from, repetitions included.
        broken: ``[3] int64``: k, answers against which an excluded place, a missing letter, a surplus letter spoke.
    """

    words: torch.Tensor
    trained: torch.Tensor
    answers: torch.Tensor
    broken: torch.Tensor

    def __init__(self, words: Sequence[str], training_words: np.ndarray | None = None) -> None:
        super().__init__()
        trained = torch.ones(len(words))
        if training_words is not None:
            trained.zero_()[torch.from_numpy(training_words)] = 1.0
        self.register_buffer("trained", trained, persistent=False)
        self.register_buffer("words", word_features(words), persistent=False)
        self.register_buffer("answers", torch.zeros((), dtype=torch.int64))
        self.register_buffer("broken", torch.zeros(3, dtype=torch.int64))

    @torch.no_grad()
    def forward(self, known: LetterKnowledge, allowed: torch.Tensor | None = None) -> Belief:
        """See `Belief`; over the words ``allowed [B, A] bool`` that may be guessed, where they are given."""
        price = -torch.log((self.broken + 1) / (self.answers + 2))
        features, needed = _told(known, *price.unbind())
        fits = torch.exp((features @ self.words.T - needed).clamp_(min=_LEAST_LOG))
        if allowed is not None:
            fits *= allowed
        elif self.training:
            fits *= self.trained
        count = fits.sum(1, keepdim=True)
        word = fits / count
        marginal = word @ self.words
        placed = marginal[:, : LETTERS * POSITIONS].reshape(-1, LETTERS, POSITIONS)
        counted = marginal[:, LETTERS * POSITIONS :].reshape(-1, LETTERS, COUNTS)
        return Belief(word, placed, counted, _colour_entropy(placed, counted[..., :1]), _between_powers(count))

    @torch.no_grad()
    def learn(self, observation: Observation, row: torch.Tensor, action: torch.Tensor, target: Target) -> None:
        """Count the answers among the guesses ``action [P]`` on the boards ``row [P]``: those with ``target [P]`` 0."""
        solved = torch.nonzero(_is_solved(target))[:, 0]
        boards, answer = row[solved], action[solved]
        known = letter_knowledge(observation["letters"][boards], observation["colours"][boards])
        self.answers += len(answer)
        for reason, price in enumerate(torch.eye(len(self.broken), device=self.words.device).unbind()):
            features, needed = _told(known, *price.unbind())
            self.broken[reason] += (needed[:, 0] > (features * self.words[answer]).sum(1)).sum()


def _told(
    known: LetterKnowledge, place: torch.Tensor, missing: torch.Tensor, surplus: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B, 208]``, ``[B, 1]``: the second, less a word's features times the first, is what the word pays.

    A missing letter is no feature of a word: all words are charged with it, and those that have it are credited.
    """
    excluded = -place * (~known.possible).float()
    copies = missing * known.at_least.float() - surplus * known.at_most.float()
    needed = missing * known.at_least.float().sum((1, 2))[:, None]
    return torch.cat([excluded.flatten(1), copies.flatten(1)], dim=1), needed


def _is_solved(target: Target) -> torch.Tensor:
    # Of all guesses the right one alone costs nothing and has nothing after it.
    if isinstance(target, CategoricalTarget):
        return (target.reward == 0) & (target.discount == 0)
    return target == 0


def _between_powers(count: torch.Tensor) -> torch.Tensor:
    powers = torch.arange(LEFT, device=count.device)
    return (1 - (torch.log2(count).clamp(0, LEFT - 1) - powers).abs()).clamp(min=0)


def _colour_entropy(placed: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Of green, yellow and grey ``[B, 26, 5]``; a second copy of the letter in the guess is left out of account."""
    shares = torch.stack([placed, present - placed, (1 - present).expand_as(placed)]).clamp_(min=_LEAST_SHARE)
    return -torch.xlogy(shares, shares).sum(0)
