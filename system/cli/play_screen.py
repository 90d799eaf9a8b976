"""How boards and advice look: in colour, or in signs where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from ...actors.environments.wordle.patterns import GREEN, GREY, YELLOW
from ..play import Advice, Board

_TILES = {GREEN: "bold black on green", YELLOW: "bold black on yellow", GREY: "bold white on grey37"}
_SIGNS = {GREEN: "[{}]", YELLOW: "({})", GREY: " {} "}
_SHARES = (
    "black on green3", "black on green_yellow", "black on yellow3", "black on gold3",
    "black on dark_orange3", "white on indian_red", "white on red3",
)  # fmt: skip
"""Backgrounds for no more guesses, one more, ... and a lost game."""
_LABEL_WIDTH = 15
_BAR_WIDTHS = (10, 48)

SIGNS_HELP = "[A] is green, (a) yellow, a grey"


class Screen:
    """Prints on a console. Letters carry their colour in signs where the console shows no colours."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.in_colour = console.color_system is not None and not console.no_color and not console.is_dumb_terminal

    @classmethod
    def of_stdout(cls) -> Screen:
        """A screen that suits where stdout goes."""
        return cls(Console(highlight=False))

    def say(self, text: str) -> None:
        """Print words, folded at the width of the console."""
        self._console.print(Text(text))

    def name(self, text: str) -> None:
        """Print words with a path in them, which is not broken, so that it can be copied."""
        self._console.print(Text(text), soft_wrap=True)

    def show_advice(self, advice: Sequence[Advice], number: int) -> None:
        """Print the best guesses for the board's ``number``-th one, each with its value and distribution."""
        width = self._bar_width()
        heading = f"guess {number}"
        self._console.print(
            Text(f"{heading:<8} {'after':>5}  {'' if advice[0].shares is None else 'how likely'}".rstrip())
        )
        for rank, one in enumerate(advice, start=1):
            line = Text(f"{rank} {one.word}  {max(one.guesses_after, 0.0):5.2f}  ", style="bold" if rank == 1 else "")
            if one.shares is not None:
                line.append_text(self._bar(one.shares, width))
            self._console.print(line, overflow="crop", no_wrap=True)

    def show_board(self, board: Board) -> None:
        """Print the guesses so far."""
        for guess in board.guesses:
            row = Text("  ")
            for letter, colour in zip(guess.word, guess.colours, strict=True):
                if self.in_colour:
                    row.append(f" {letter.upper()} ", style=_TILES[colour])
                else:
                    row.append(_SIGNS[colour].format(letter.upper() if colour == GREEN else letter))
            if not self.in_colour:
                row.rstrip()
            self._console.print(row)

    def explain(self) -> None:
        """Print how advice and boards are read."""
        self.say(
            "after: how many more guesses it expects to need after this one. The bar has a stretch for each number, "
            "as long as it is likely; 0 means that the guess solves, 6 that none will."
        )
        if not self.in_colour:
            self.say(SIGNS_HELP)

    def _bar_width(self) -> int:
        least, most = _BAR_WIDTHS
        return max(least, min(most, self._console.width - _LABEL_WIDTH - 1))

    def _bar(self, shares: Sequence[float], width: int) -> Text:
        bar = Text()
        for guesses, cells in enumerate(split_cells(shares, width)):
            digit = str(guesses)
            # In colour the digit stands once in its stretch; without, the digits are the stretch.
            bar.append(digit[:cells].ljust(cells) if self.in_colour else digit * cells, style=_SHARES[guesses])
        return bar


def split_cells(shares: Sequence[float], width: int) -> list[int]:
    """Cells of a bar in proportion to shares that sum to 1; by largest remainders, so that ``width`` are given out."""
    exact = [share * width for share in shares]
    cells = [int(part) for part in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: cells[index] - exact[index])
    for index in by_remainder[: width - sum(cells)]:
        cells[index] += 1
    return cells
