"""A network for Wordle whose weights are shared by all letters, so that words never seen in training have values.

B boards, R channels, A words, D board features, W = 208 word features. Each letter gets R scores for each position and
for each count (`LetterTiedTorso`); a word's R channels are the sums over its letters, and its score a learnt
combination of them (`WordScorer`). Nothing in it has a weight for one particular word.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..batch import Observation
from ..encodings.words import (
    COUNTS,
    GUESSES,
    LETTERS,
    POSITIONS,
    WORD_FEATURES,
    LetterKnowledge,
    letter_knowledge,
    word_features,
)
from ..values.forms import Hidden
from .config import LetterTiedConfig, WordNetworkConfig
from .initialise import initialise_linear

CELL_FEATURES = 3 + 2 * COUNTS + GUESSES
COUNT_FEATURES = 2 * COUNTS + GUESSES + 7
_CELL_HIDDEN = 24
_COUNT_HIDDEN = 32
_BOARDS_AT_ONCE = 16
"""Boards whose channels [16 R, A] are made, bent and summed before the next: they stay in the processor's cache."""


class LetterTiedTorso(nn.Module):
    """Boards to ``{"features": [B, D], "letters": [B, 208, R]}``."""

    observations_repeat = True
    """Many boards of a vector or a batch are alike (all empty ones are): encoding each once pays."""

    def __init__(self, config: LetterTiedConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.features = config.hidden
        self.channels = config.channels
        self.dense_channels = min(config.dense_channels, config.channels)
        self.board = nn.Sequential(
            nn.Linear(LETTERS * (2 * POSITIONS + 2 * COUNTS) + GUESSES, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.ReLU(),
        )
        self.cell = nn.Sequential(
            nn.Linear(CELL_FEATURES, _CELL_HIDDEN), nn.ReLU(), nn.Linear(_CELL_HIDDEN, self.channels)
        )
        self.count = nn.Sequential(
            nn.Linear(COUNT_FEATURES, _COUNT_HIDDEN), nn.ReLU(), nn.Linear(_COUNT_HIDDEN, COUNTS * self.channels)
        )
        self.dense = nn.Linear(config.hidden, self.dense_channels * WORD_FEATURES) if self.dense_channels else None
        initialise_linear(self, generator)
        if self.dense is not None:
            # Letters are told apart only as far as the data ask for it.
            nn.init.normal_(self.dense.weight, std=0.01, generator=generator)
            nn.init.zeros_(self.dense.bias)

    def forward(self, observation: Observation) -> dict[str, torch.Tensor]:
        """Encode ``letters, colours [B, 6, 5]``."""
        known = letter_knowledge(observation["letters"], observation["colours"])
        features = self.board(board_bits(known))
        counts = self.count(count_inputs(known)).view(-1, LETTERS * COUNTS, self.channels)
        letters = torch.cat([self._cells(known), counts], dim=1)
        if self.dense is not None:
            dense = self.dense(features).view(-1, WORD_FEATURES, self.dense_channels)
            letters = letters + nn.functional.pad(dense, (0, self.channels - self.dense_channels))
        return {"features": features, "letters": letters}

    def _cells(self, known: LetterKnowledge) -> torch.Tensor:
        """``[B, 130, R]``, for each letter and position.

        A cell's input is 15 bits of which few combinations occur: the cell net runs once on each, not on 130 B cells.
        """
        any_green = known.green.any(1, keepdim=True).expand_as(known.green)
        place = torch.stack([known.possible, known.green, any_green], dim=-1)
        shared = torch.cat([known.at_least, known.at_most, to_letters(known.turn)], dim=-1)
        weight = 1 << torch.arange(CELL_FEATURES, device=place.device)
        code = (place * weight[:3]).sum(-1) + (shared * weight[3:]).sum(-1)[..., None]
        seen, cell = torch.unique(code, return_inverse=True)
        bits = ((seen[:, None] & weight) > 0).float()
        return nn.functional.embedding(cell.view(code.shape[0], -1), self.cell(bits))


def board_bits(known: LetterKnowledge) -> torch.Tensor:
    """``[B, 422]``: all that is known of the letters, and the turn."""
    parts = [known.possible, known.green, known.at_least, known.at_most, known.turn]
    return torch.cat([part.flatten(1) for part in parts], dim=1).float()


def count_inputs(known: LetterKnowledge) -> torch.Tensor:
    """``[B, 26, COUNT_FEATURES]``: what is known of each letter wherever it stands, and of the board."""
    least, green = known.at_least.float(), known.green.float()
    possible = known.possible.float().sum(2, keepdim=True) / POSITIONS
    letters_placed = green.sum((1, 2)) / POSITIONS
    board = torch.stack(
        [least.sum((1, 2)) / POSITIONS, letters_placed, known.at_most[..., 0].float().sum(1) / 10], dim=-1
    )
    greens = green.sum(2, keepdim=True)
    parts = [
        least,
        known.at_most.float(),
        to_letters(known.turn).float(),
        greens,
        possible,
        to_letters(board),
        (greens > 0).float(),
        least[..., :1] * possible,
    ]
    return torch.cat(parts, dim=-1)


class WordScorer(nn.Module):
    """One score for each word: ``sum_r a_r z_r + v_r(h) relu(z_r + b_r(h))`` with ``z_r`` the word's r-th channel.

    The linear part lets a word's letters add up; the rectified part, whose slope and threshold depend on the board,
    lets them saturate, as the use of a guess does.
    """

    words: torch.Tensor
    features_of: torch.Tensor
    features_there: torch.Tensor

    def __init__(self, config: WordNetworkConfig, words: Sequence[str], generator: torch.Generator) -> None:
        super().__init__()
        features = word_features(words)
        # A word has at most ten of the 208 features; a pair needs only those. Shorter rows are filled with weight 0.
        there, features_of = features.topk(2 * POSITIONS, dim=1)
        self.register_buffer("words", features, persistent=False)
        self.register_buffer("features_of", features_of, persistent=False)
        self.register_buffer("features_there", there, persistent=False)
        self.linear = nn.Parameter(torch.zeros(config.channels))
        self.slope = nn.Linear(config.hidden, config.channels)
        self.threshold = nn.Linear(config.hidden, config.channels)
        initialise_linear(self, generator)
        with torch.no_grad():
            self.linear[0] = 0.5
        nn.init.normal_(self.slope.bias, std=0.3, generator=generator)

    def pairs(self, hidden: Hidden, row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """``[P]``: scores of the words ``action [P]`` on the boards ``row [P]``."""
        letters, slope, threshold = self._board(hidden)
        index = self.features_of[action] + row[:, None] * WORD_FEATURES
        channels = nn.functional.embedding_bag(
            index, letters.flatten(0, 1), mode="sum", per_sample_weights=self.features_there[action]
        )
        return channels @ self.linear + (slope[row] * torch.relu(channels + threshold[row])).sum(1)

    def shared(self, hidden: Hidden, actions: torch.Tensor) -> torch.Tensor:
        """``[B, M]``: scores of the same words ``actions [M]`` on every board."""
        return self._score(hidden, self.words[actions])

    def all(self, hidden: Hidden) -> torch.Tensor:
        """``[B, A]``."""
        return self._score(hidden, self.words)

    def _score(self, hidden: Hidden, words: torch.Tensor) -> torch.Tensor:
        letters, slope, threshold = self._board(hidden)
        linear = (letters @ self.linear) @ words.T
        # The threshold rides along as the weight of one more word feature, which is always 1.
        letters = torch.cat([letters, threshold[:, None]], dim=1).transpose(1, 2).contiguous()
        words = torch.cat([words, words.new_ones(len(words), 1)], dim=1).T
        parts = torch.split(letters, _BOARDS_AT_ONCE)
        bent = [
            torch.bmm(part_slope[:, None], torch.relu_(part.flatten(0, 1) @ words).view(*part.shape[:2], -1))[:, 0]
            for part, part_slope in zip(parts, torch.split(slope, _BOARDS_AT_ONCE), strict=True)
        ]
        return linear + torch.cat(bent)

    def _board(self, hidden: Hidden) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Letters' channels ``[B, 208, R]``, slopes and thresholds ``[B, R]``."""
        if isinstance(hidden, torch.Tensor):
            raise ValueError(
                f"hidden is a tensor {list(hidden.shape)}: words are scored on what torsos of letters give, by letter"
            )
        return hidden["letters"], self.slope(hidden["features"]), self.threshold(hidden["features"])


def to_letters(board: torch.Tensor) -> torch.Tensor:
    """``[B, n]`` to ``[B, 26, n]``: the same for every letter."""
    return board[:, None].expand(-1, LETTERS, -1)
