"""A network for Wordle whose weights are shared by all letters, so that words never seen in training have values.

B boards, R channels, A words, D board features, W = 208 word features. Each letter gets R scores for each position and
for each count (`LetterTiedTorso`); a word's R channels are the sums over its letters, and its score a learnt
combination of them (`WordScorer`). Nothing in it has a weight for one particular word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
from .config import LetterTiedConfig
from .initialise import initialise_linear

CELL_FEATURES = 3 + 2 * COUNTS + GUESSES
COUNT_FEATURES = 2 * COUNTS + GUESSES + 7
_CELL_HIDDEN = 24
_COUNT_HIDDEN = 32
_BOARDS_AT_ONCE = 16
"""Boards whose channels [16 R, A] are made, bent and summed before the next: they stay in the processor's cache."""


class LetterTiedTorso(nn.Module):
    """Boards to ``{"features": [B, D], "letters": [B, R, 208]}``."""

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
        self.dense = nn.Linear(config.hidden, self.dense_channels * WORD_FEATURES)
        initialise_linear(self, generator)
        # Letters are told apart only as far as the data ask for it.
        nn.init.normal_(self.dense.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.dense.bias)

    def forward(self, observation: Observation) -> dict[str, torch.Tensor]:
        """Encode ``letters, colours [B, 6, 5]``."""
        known = letter_knowledge(observation["letters"], observation["colours"])
        boards = known.turn.shape[0]
        flat = [known.possible, known.green, known.at_least, known.at_most, known.turn]
        features = self.board(torch.cat([part.reshape(boards, -1) for part in flat], dim=1).float())
        tied = torch.cat([self._cells(known), self._counts(known)], dim=2)
        dense = self.dense(features).view(boards, self.dense_channels, WORD_FEATURES)
        letters = torch.cat([tied[:, : self.dense_channels] + dense, tied[:, self.dense_channels :]], dim=1)
        return {"features": features, "letters": letters}

    def _cells(self, known: LetterKnowledge) -> torch.Tensor:
        """``[B, R, 130]``, for each letter and position.

        A cell's input is 15 bits of which few combinations occur: the cell net runs once on each, not on 130 B cells.
        """
        any_green = known.green.any(1, keepdim=True).expand_as(known.green)
        place = torch.stack([known.possible, known.green, any_green], dim=-1)
        shared = torch.cat([known.at_least, known.at_most, _to_letters(known.turn)], dim=-1)
        weight = 1 << torch.arange(CELL_FEATURES, device=place.device)
        code = (place * weight[:3]).sum(-1) + (shared * weight[3:]).sum(-1)[..., None]
        seen, cell = torch.unique(code, return_inverse=True)
        bits = ((seen[:, None] & weight) > 0).float()
        return nn.functional.embedding(cell.view(code.shape[0], -1), self.cell(bits)).transpose(1, 2)

    def _counts(self, known: LetterKnowledge) -> torch.Tensor:
        """``[B, R, 78]``, for each letter and count."""
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
            _to_letters(known.turn).float(),
            greens,
            possible,
            _to_letters(board),
            (greens > 0).float(),
            least[..., :1] * possible,
        ]
        scores = self.count(torch.cat(parts, dim=-1)).view(-1, LETTERS, COUNTS, self.channels)
        return scores.permute(0, 3, 1, 2).reshape(-1, self.channels, LETTERS * COUNTS)


class WordScorer(nn.Module):
    """One score for each word: ``sum_r a_r z_r + v_r(h) relu(z_r + b_r(h))`` with ``z_r`` the word's r-th channel.

    The linear part lets a word's letters add up; the rectified part, whose slope and threshold depend on the board,
    lets them saturate, as the use of a guess does.
    """

    words: torch.Tensor

    def __init__(self, config: LetterTiedConfig, words: Sequence[str], generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("words", word_features(words), persistent=False)
        self.linear = nn.Parameter(torch.zeros(config.channels))
        self.slope = nn.Linear(config.hidden, config.channels)
        self.threshold = nn.Linear(config.hidden, config.channels)
        initialise_linear(self, generator)
        with torch.no_grad():
            self.linear[0] = 0.5
        nn.init.normal_(self.slope.bias, std=0.3, generator=generator)

    def pairs(self, hidden: Mapping[str, torch.Tensor], row: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """``[P]``: scores of the words ``action [P]`` on the boards ``row [P]``."""
        channels = torch.einsum("prw,pw->pr", hidden["letters"][row], self.words[action])
        slope, threshold = self._board(hidden["features"])
        return channels @ self.linear + (slope[row] * torch.relu(channels + threshold[row])).sum(1)

    def shared(self, hidden: Mapping[str, torch.Tensor], actions: torch.Tensor) -> torch.Tensor:
        """``[B, M]``: scores of the same words ``actions [M]`` on every board."""
        return self._score(hidden, self.words[actions])

    def all(self, hidden: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``[B, A]``."""
        return self._score(hidden, self.words)

    def _score(self, hidden: Mapping[str, torch.Tensor], words: torch.Tensor) -> torch.Tensor:
        slope, threshold = self._board(hidden["features"])
        letters = hidden["letters"]
        linear = torch.einsum("brw,r->bw", letters, self.linear) @ words.T
        # The threshold rides along as the weight of one more word feature, which is always 1.
        letters = torch.cat([letters, threshold[..., None]], dim=2)
        words = torch.cat([words, words.new_ones(len(words), 1)], dim=1).T
        bent = [
            torch.bmm(part_slope[:, None], torch.relu_(part.flatten(0, 1) @ words).view(*part.shape[:2], -1))[:, 0]
            for part, part_slope in zip(letters.split(_BOARDS_AT_ONCE), slope.split(_BOARDS_AT_ONCE), strict=True)
        ]
        return linear + torch.cat(bent)

    def _board(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.slope(features), self.threshold(features)


def _to_letters(board: torch.Tensor) -> torch.Tensor:
    return board[:, None].expand(-1, LETTERS, -1)
