"""What a Wordle board tells about the answer, letter by letter, and words as letters.

Everything here is computed from letters and colours alone: no word list, and nothing that follows from one, can reach
a network through this file. B is the number of boards, A of words; a board has 6 rows of 5 letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

LETTERS = 26
POSITIONS = 5
GUESSES = 6
COUNTS = 3
"""A letter's count in a word is told apart up to three copies."""
WORD_FEATURES = LETTERS * POSITIONS + LETTERS * COUNTS
GREY, YELLOW, GREEN = 0, 1, 2


@dataclass(frozen=True)
class LetterKnowledge:
    """What follows from a board for each letter; all boolean.

    Attributes:
        possible: ``[B, 26, 5]``: the letter may stand there: it was not grey or yellow there, no other letter is green
            there, and its greatest count is above 0.
        green: ``[B, 26, 5]``: the letter is known to stand there.
        at_least: ``[B, 26, 3]``: the answer holds at least 1, 2, 3 copies.
        at_most: ``[B, 26, 3]``: the answer holds at most 0, 1, 2 copies.
        turn: ``[B, 6]``: one-hot number of guesses made.
    """

    possible: torch.Tensor
    green: torch.Tensor
    at_least: torch.Tensor
    at_most: torch.Tensor
    turn: torch.Tensor


def letter_knowledge(letters: torch.Tensor, colours: torch.Tensor) -> LetterKnowledge:
    """Read boards.

    The least count of a letter is the most coloured copies in one guess; the greatest is the number of coloured copies
    in a guess in which a further copy was grey.

    Args:
        letters: ``[B, 6, 5]`` integers, 0..25, -1 in rows not yet played.
        colours: ``[B, 6, 5]`` integers, 0 grey, 1 yellow, 2 green, -1 in rows not yet played.

    Raises:
        ValueError: another shape.
    """
    if letters.ndim != 3 or letters.shape[1:] != (GUESSES, POSITIONS) or colours.shape != letters.shape:
        raise ValueError(f"letters {list(letters.shape)}, colours {list(colours.shape)}: both must be [B, 6, 5]")
    boards = letters.shape[0]
    played = letters >= 0
    # Empty squares go to a 27th letter, which is cut off at the end.
    letter = torch.where(played, letters, LETTERS).long()
    coloured = colours > GREY

    square = letter * POSITIONS + torch.arange(POSITIONS, device=letters.device)
    green = _seen(square, colours == GREEN, boards, (LETTERS + 1) * POSITIONS)
    barred = _seen(square, played & (colours != GREEN), boards, (LETTERS + 1) * POSITIONS)
    green = green.view(boards, LETTERS + 1, POSITIONS)[:, :LETTERS]
    barred = barred.view(boards, LETTERS + 1, POSITIONS)[:, :LETTERS]

    counts = torch.zeros(boards, GUESSES, LETTERS + 1, device=letters.device)
    copies = counts.scatter_add(2, letter, coloured.float())[..., :LETTERS]
    greys = counts.scatter_add(2, letter, (colours == GREY).float())[..., :LETTERS]
    least = copies.amax(1)
    greatest = torch.where(greys > 0, copies, float(POSITIONS)).amin(1)

    other_green = green.any(1, keepdim=True) & ~green
    steps = torch.arange(COUNTS, device=letters.device)
    return LetterKnowledge(
        possible=~barred & ~other_green & (greatest > 0)[..., None],
        green=green,
        at_least=least[..., None] >= steps + 1,
        at_most=greatest[..., None] <= steps,
        turn=F.one_hot(played[:, :, 0].sum(1).clamp(max=GUESSES - 1), GUESSES).bool(),
    )


def _seen(index: torch.Tensor, mask: torch.Tensor, boards: int, size: int) -> torch.Tensor:
    hits = torch.zeros(boards, size, device=index.device)
    return hits.scatter_add_(1, index.flatten(1), mask.flatten(1).float()) > 0


def word_letters(words: Sequence[str]) -> torch.Tensor:
    """``[A, 5] int64``: each word's letters, 0..25.

    Raises:
        ValueError: a word is not five letters a-z.
    """
    for word in words:
        if len(word) != POSITIONS or not (word.isascii() and word.isalpha() and word.islower()):
            raise ValueError(f"word {word!r}: expected five letters a-z")
    return torch.tensor([[ord(letter) - ord("a") for letter in word] for word in words], dtype=torch.int64)


def word_features(words: Sequence[str]) -> torch.Tensor:
    """``[A, 208] float32``: letter x position (130), then letter x (at least 1, 2, 3 copies) (78)."""
    one_hot = F.one_hot(word_letters(words), LETTERS)
    placed = one_hot.transpose(1, 2).reshape(len(words), -1)
    counted = one_hot.sum(1)[..., None] >= torch.arange(1, COUNTS + 1)
    return torch.cat([placed, counted.reshape(len(words), -1)], dim=1).float()
