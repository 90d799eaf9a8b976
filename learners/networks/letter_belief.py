"""Letter-tied scoring of words by a player that weighs which words a board leaves likely.

B boards, A words, R channels, D board features, W = 208 word features. `letter_tied` sees colours alone and has to find
from them, letter by letter, what a guess would tell. Here the letter nets also read what the list of words, weighed by
`word_belief`, says of each letter: how probable it is at each position, and how much its colour there would tell. So
how evenly a guess would split the words that are left is within reach of nets that look at one letter at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from ..batch import Observation
from ..encodings.words import COUNTS, GUESSES, LETTERS, POSITIONS, WORD_FEATURES, LetterKnowledge, letter_knowledge
from ..values.forms import Hidden
from ..values.kinds import Target
from .config import LetterBeliefConfig
from .initialise import initialise_linear
from .letter_tied import COUNT_FEATURES, WordScorer, board_bits, count_inputs, to_letters
from .word_belief import LEFT, Belief, WordBelief

_BOARD_FEATURES = LETTERS * (2 * POSITIONS + 2 * COUNTS) + GUESSES + WORD_FEATURES + LEFT
_CELL_FEATURES = 3 + 2 * COUNTS + GUESSES + 3 + LEFT
_COUNT_FEATURES = COUNT_FEATURES + COUNTS + 1 + LEFT
_CELL_HIDDEN = 64
_COUNT_HIDDEN = 64


class LetterBeliefTorso(nn.Module):
    """Boards to ``{"features": [B, D], "letters": [B, 208, R], "belief": [B, A]}``."""

    observations_repeat = True
    """Many boards of a vector or a batch are alike (all empty ones are): encoding each once pays."""

    def __init__(
        self,
        config: LetterBeliefConfig,
        words: Sequence[str],
        generator: torch.Generator,
        training_words: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.features = config.hidden + LEFT
        self.channels = config.channels
        self.dense_channels = min(config.dense_channels, config.channels)
        self.believe = WordBelief(words, training_words)
        self.board = nn.Sequential(*_two_layers(_BOARD_FEATURES, config.hidden, config.hidden), nn.ReLU())
        self.cell = nn.Sequential(*_two_layers(_CELL_FEATURES, _CELL_HIDDEN, self.channels))
        self.count = nn.Sequential(*_two_layers(_COUNT_FEATURES, _COUNT_HIDDEN, COUNTS * self.channels))
        self.dense = nn.Linear(config.hidden, self.dense_channels * WORD_FEATURES) if self.dense_channels else None
        initialise_linear(self, generator)
        if self.dense is not None:
            # Letters are told apart only as far as the data ask for it.
            nn.init.normal_(self.dense.weight, std=0.01, generator=generator)
            nn.init.zeros_(self.dense.bias)

    def forward(self, observation: Observation, allowed: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Encode ``letters, colours [B, 6, 5]``; ``allowed [B, A] bool`` are the words that may be guessed, if told."""
        known = letter_knowledge(observation["letters"], observation["colours"])
        belief = self.believe(known, allowed)
        weighed = [part.flatten(1) for part in (belief.placed, belief.counted, belief.left)]
        board = self.board(torch.cat([board_bits(known), *weighed], dim=1))
        # How many words are left decides what a guess is for: the scorer's slopes read it without a layer between.
        features = torch.cat([board, belief.left], dim=1)
        cells = self.cell(_cell_inputs(known, belief)).flatten(1, 2)
        counts = self.count(_count_inputs(known, belief)).view(-1, LETTERS * COUNTS, self.channels)
        letters = torch.cat([cells, counts], dim=1)
        if self.dense is not None:
            dense = self.dense(board).view(-1, WORD_FEATURES, self.dense_channels)
            letters = letters + nn.functional.pad(dense, (0, self.channels - self.dense_channels))
        return {"features": features, "letters": letters, "belief": belief.word}

    def learn(self, observation: Observation, row: torch.Tensor, action: torch.Tensor, target: Target) -> None:
        """Called once a pass in training; see `WordBelief.learn`."""
        self.believe.learn(observation, row, action, target)


class BeliefScorer(WordScorer):
    """`WordScorer`'s score plus ``g(h) p``: that a word may be the answer, which it is with probability p, counts."""

    def __init__(self, config: LetterBeliefConfig, words: Sequence[str], generator: torch.Generator) -> None:
        super().__init__(config, words, generator, board_features=config.hidden + LEFT)
        self.gain = nn.Linear(config.hidden + LEFT, 1)
        initialise_linear(self.gain, generator)
        with torch.no_grad():
            # The right guess saves one guess at least; as for `linear`, half a nat for it is a beginning.
            self.gain.bias.fill_(0.5)

    def pairs(self, hidden: Hidden, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """See `WordScorer`."""
        gain, belief = self._gain(hidden)
        return super().pairs(hidden, row, action) + gain[row, 0] * belief[row, action]

    def shared(self, hidden: Hidden, actions: torch.Tensor) -> torch.Tensor:
        """See `WordScorer`."""
        gain, belief = self._gain(hidden)
        return super().shared(hidden, actions) + gain * belief[:, actions]

    def all(self, hidden: Hidden) -> torch.Tensor:
        """See `WordScorer`."""
        gain, belief = self._gain(hidden)
        return super().all(hidden) + gain * belief

    def _gain(self, hidden: Hidden) -> tuple[torch.Tensor, torch.Tensor]:
        if not isinstance(hidden, Mapping):
            raise ValueError(
                f"hidden is a tensor {list(hidden.shape)}: words are scored on what LetterBeliefTorso gives"
            )
        return self.gain(hidden["features"]), hidden["belief"]


def _cell_inputs(known: LetterKnowledge, belief: Belief) -> torch.Tensor:
    any_green = known.green.any(1, keepdim=True).expand_as(known.green)
    place = [known.possible, known.green, any_green, belief.placed, belief.tells]
    letter = [known.at_least, known.at_most, to_letters(known.turn), belief.counted[..., :1], to_letters(belief.left)]
    shared = torch.cat([part.float() for part in letter], dim=-1)
    cells = torch.stack([part.float() for part in place], dim=-1)
    return torch.cat([cells, shared[:, :, None].expand(-1, -1, POSITIONS, -1)], dim=-1)


def _count_inputs(known: LetterKnowledge, belief: Belief) -> torch.Tensor:
    weighed = [belief.counted, belief.tells.mean(2, keepdim=True), to_letters(belief.left)]
    return torch.cat([count_inputs(known), *weighed], dim=-1)


def _two_layers(inputs: int, hidden: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]
