"""The counterpart of `letter_tied`: each letter, position and count has weights of its own.

B boards, R channels, D board features, W = 208 word features. Words are scored by the same `WordScorer`, so that
the two networks differ in nothing but the sharing of weights. What this one learns of a letter tells it nothing of
another, which makes learning hard: it is there to compare losses where they have something to lose.
"""

from __future__ import annotations

import torch
from torch import nn

from ..batch import Observation
from ..encodings.words import COUNTS, GUESSES, LETTERS, POSITIONS, WORD_FEATURES, letter_knowledge
from .config import LetterUntiedConfig
from .initialise import initialise_linear


class LetterUntiedTorso(nn.Module):
    """Boards to ``{"features": [B, D], "letters": [B, 208, R]}``."""

    observations_repeat = True
    """As in `LetterTiedTorso`."""

    def __init__(self, config: LetterUntiedConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.features = config.hidden
        self.channels = config.channels
        self.board = nn.Sequential(
            nn.Linear(LETTERS * (2 * POSITIONS + 2 * COUNTS) + GUESSES, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
        )
        self.letters = nn.Linear(config.hidden, WORD_FEATURES * config.channels)
        initialise_linear(self, generator)

    def forward(self, observation: Observation) -> dict[str, torch.Tensor]:
        """Encode ``letters, colours [B, 6, 5]``."""
        known = letter_knowledge(observation["letters"], observation["colours"])
        parts = [known.possible, known.green, known.at_least, known.at_most, known.turn]
        features = self.board(torch.cat([part.flatten(1) for part in parts], dim=1).float())
        letters = self.letters(features).view(-1, WORD_FEATURES, self.channels)
        return {"features": features, "letters": letters}
