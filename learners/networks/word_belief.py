"""Which words of the list a Wordle board leaves likely, by what answers have shown of colours.

B boards, A words, P pairs, W = 208 word features. The list is the one that may be guessed: a player knows it, as it
knows its actions, and all its words are alike to it, whether training ever saw them or not. Three things may speak
against a word: a letter stands where colours exclude it, a coloured letter is missing, a letter occurs too often. How
much each counts is learnt from the answers of the games that are learnt from: after n of them, k of which had it
against them, the next has it with probability (k + 1) / (n + 2) (Laplace's rule of succession), and a word pays the
logarithm. A player without experience makes little of colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..batch import Observation
from ..encodings.words import COUNTS, LETTERS, POSITIONS, LetterKnowledge, letter_knowledge, word_features
from ..values.kinds import CategoricalTarget, Target

_LEAST_LOG = -60.0
"""Log-likelihoods are cut off here: e^-60 is nothing beside 1 and still something in float32."""
_LEAST_SHARE = 1e-6
_LOG_OF_WORDS = 8.0
"""About log(3,000): it brings the logarithm of a number of words to the order of 1."""


@dataclass(frozen=True)
class Belief:
    """What a board leaves of the list. No gradient.

    Attributes:
        word: ``[B, A]``: the probability that a word is the answer.
        placed: ``[B, 26, 5]``: that a letter stands at a position.
        counted: ``[B, 26, 3]``: that the answer has at least 1, 2, 3 copies of a letter.
        tells: ``[B, 26, 5]``: the nats that the colour of a letter, guessed at a position, would tell by itself.
        left: ``[B, 2]``: for n fitting words, log(1 + n) / 8 and 1 / (1 + n).
    """

    word: torch.Tensor
    placed: torch.Tensor
    counted: torch.Tensor
    tells: torch.Tensor
    left: torch.Tensor


class WordBelief(nn.Module):
    """Letter knowledge to a `Belief` over ``words``.

    Attributes:
        answers: ``[] int64``: n, answers learnt from, repetitions included.
        broken: ``[3] int64``: k, answers against which an excluded place, a missing letter, a surplus letter spoke.
    """

    words: torch.Tensor
    answers: torch.Tensor
    broken: torch.Tensor

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("words", word_features(words), persistent=False)
        self.register_buffer("answers", torch.zeros((), dtype=torch.int64))
        self.register_buffer("broken", torch.zeros(3, dtype=torch.int64))

    @torch.no_grad()
    def forward(self, known: LetterKnowledge) -> Belief:
        """See `Belief`."""
        price = -torch.log((self.broken + 1) / (self.answers + 2))
        features, needed = _told(known, *price.unbind())
        fits = torch.exp((features @ self.words.T - needed).clamp_(min=_LEAST_LOG))
        count = fits.sum(1, keepdim=True)
        word = fits / count
        marginal = word @ self.words
        placed = marginal[:, : LETTERS * POSITIONS].reshape(-1, LETTERS, POSITIONS)
        counted = marginal[:, LETTERS * POSITIONS :].reshape(-1, LETTERS, COUNTS)
        left = torch.cat([torch.log1p(count) / _LOG_OF_WORDS, 1 / (1 + count)], dim=1)
        return Belief(word, placed, counted, _colour_entropy(placed, counted[..., :1]), left)

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


def _colour_entropy(placed: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Of green, yellow and grey ``[B, 26, 5]``; a second copy of the letter in the guess is left out of account."""
    shares = torch.stack([placed, present - placed, (1 - present).expand_as(placed)]).clamp_(min=_LEAST_SHARE)
    return -torch.xlogy(shares, shares).sum(0)
