"""What the policy thinks of the next guess: its best words, their values and their value distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...actors.environments.wordle import MAX_GUESSES
from ...actors.environments.wordle.misses import misses_of_return
from ...learners.policy import QPolicy
from ...learners.values.forms import Hidden
from ...learners.values.head import ValueHead
from .board import Board


@dataclass(frozen=True)
class Advice:
    """One word that could be guessed.

    Attributes:
        word: the guess.
        value: expected return of guessing it. Without a discount, a return is minus the number of guesses that miss,
            from this one on.
        shares: ``shares[k]`` is the probability, as the network has it, that k more guesses are needed after this
            one, for k from 0 to 6 (6: the game is lost from the first guess on). None where the network predicts a
            value alone (kind mse).
        discount: of one guess, under which the value was learnt.
    """

    word: str
    value: float
    shares: tuple[float, ...] | None
    discount: float = 1.0

    @property
    def guesses_after(self) -> float:
        """The number of guesses after this one that the value stands for; without a discount, the expected one."""
        return float(misses_of_return(self.value, self.discount))


class WordleAdviser:
    """A policy's view of boards. It is told letters and colours, as in training: no words are ruled out for it.

    Args:
        policy: of a Wordle run.
        words: what the policy's actions stand for.
        discount: of one guess, under which the policy learnt.

    Raises:
        ValueError: there are not as many words as actions.
    """

    def __init__(self, policy: QPolicy, words: Sequence[str], discount: float = 1.0) -> None:
        if policy.module.num_actions != len(words):
            raise ValueError(f"words has {len(words)} entries and the policy {policy.module.num_actions} actions")
        self.words = tuple(words)
        self._discount = discount
        self._module = policy.module
        self._index = {word: index for index, word in enumerate(self.words)}

    @torch.no_grad()
    def advise(self, board: Board, count: int = 5) -> list[Advice]:
        """The ``count`` words of the highest values, best first; words that are on the board are left out.

        Raises:
            ValueError: the game is over, so that there is nothing to advise.
        """
        if board.solved or board.full:
            raise ValueError(
                f"the board has {len(board.guesses)} guesses and the game is over: nothing is left to guess"
            )
        legal = np.ones((1, len(self.words)), np.bool_)
        for guess in board.guesses:
            legal[0, self._index[guess.word]] = False
        observation = {name: torch.from_numpy(part) for name, part in board.observation().items()}
        hidden = self._module.torso(observation)
        values, actions = self._module.head.top(hidden, torch.from_numpy(legal), min(count, int(legal.sum())))
        return [
            Advice(
                self.words[action],
                value,
                _guess_shares(self._module.head, hidden, action, self._discount),
                self._discount,
            )
            for action, value in zip(actions[0].tolist(), values[0].tolist(), strict=True)
        ]


def _guess_shares(head: ValueHead, hidden: Hidden, action: int, discount: float) -> tuple[float, ...] | None:
    """The value distribution, each bin counted to the whole number of guesses that its centre is nearest to."""
    if (centres := head.centres()) is None:
        return None
    probabilities = head.distribution(hidden, torch.tensor([action]))[0].double()
    misses = torch.from_numpy(misses_of_return(centres.numpy(), discount))
    guesses = misses.round().clamp(0, MAX_GUESSES).long()
    shares = torch.zeros(MAX_GUESSES + 1, dtype=torch.float64).index_add(0, guesses, probabilities)
    return tuple((shares / shares.sum()).tolist())
