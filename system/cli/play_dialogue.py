"""The course of a game: what is shown, asked and answered."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from ...actors.environments.wordle.patterns import score
from ..play import Advice, Board, Entry, EntryRefused, Guess, WordleAdviser, check_word, parse_entry
from ..play.entries import COLOURS_HELP
from .play_screen import Screen

_OVER_HELP = "u takes the last guess back, q ends"
_MISFIT_HELP = (
    "If a colour is mistyped, u takes the last guess back. If all are right, the answer is not in the list, and none "
    "of the proposals can be it."
)


class Reader(Protocol):
    """Where answers come from."""

    def read(self, prompt: str) -> str | None:
        """The next line, None after the last one."""
        ...


def guess_word(adviser: WordleAdviser, text: str, seen: Collection[str], screen: Screen) -> Board:
    """Let the policy guess a word, greedily.

    Args:
        adviser: who guesses.
        text: the word.
        seen: the words that training saw.
        screen: where it is shown.

    Returns:
        The board at the end.

    Raises:
        EntryRefused: it is no word of the list.
    """
    word = check_word(text, adviser.words)
    screen.say(f"{word}: {'training saw this word' if word in seen else 'training never saw this word'}")
    screen.explain()
    board = Board()
    while not (board.solved or board.full):
        advice = adviser.advise(board)
        screen.say("")
        screen.show_advice(advice, len(board.guesses) + 1)
        best = advice[0].word
        board = board.play(Guess(best, score(best, word)))
        screen.show_board(board)
    screen.say("")
    screen.say(_ending(board, f"the word was {word}"))
    return board


def guess_words(adviser: WordleAdviser, reader: Reader, seen: Collection[str], screen: Screen) -> None:
    """Let the policy guess one word after another, until an empty line or the last one."""
    while text := reader.read("word to guess: "):
        try:
            guess_word(adviser, text, seen, screen)
        except EntryRefused as refused:
            screen.say(str(refused))


def advise_on_game(adviser: WordleAdviser, reader: Reader, screen: Screen) -> Board:
    """Advise a person who plays elsewhere, until the game is over or there is no more line to read.

    Returns:
        The board at the end.
    """
    _help(screen)
    board = Board()
    while True:
        misfit = board.misfit(adviser.words)
        if board.solved and not misfit:
            screen.say(_ending(board, ""))
            return board
        if misfit:
            screen.say(f"{misfit}. {_MISFIT_HELP}")
        advice = _advise(adviser, board, screen)
        entry = _ask(adviser, reader, screen, advice)
        if entry is None:
            return board
        if isinstance(entry, Guess):
            board = board.play(entry)
        elif board.guesses:
            screen.say(f"{board.guesses[-1].word} is taken back")
            board = board.take_back()
        else:
            screen.say("there is nothing to take back")
        screen.show_board(board)


def _advise(adviser: WordleAdviser, board: Board, screen: Screen) -> list[Advice]:
    screen.say("")
    if board.solved or board.full:
        screen.say(f"{_ending(board, '')}: {_OVER_HELP}")
        return []
    advice = adviser.advise(board)
    screen.show_advice(advice, len(board.guesses) + 1)
    return advice


def _ask(adviser: WordleAdviser, reader: Reader, screen: Screen, advice: list[Advice]) -> Guess | Entry | None:
    """A guess, or `Entry.TAKE_BACK`; None to end. Asks until it understands."""
    prompt = f"guess and colours [{advice[0].word}]: " if advice else "> "
    while (text := reader.read(prompt)) is not None:
        try:
            entry = parse_entry(text, adviser.words, advice[0].word if advice else "")
        except EntryRefused as refused:
            screen.say(str(refused))
            continue
        if entry is Entry.QUIT:
            return None
        if entry is Entry.TAKE_BACK or (isinstance(entry, Guess) and advice):
            return entry
        if advice:
            _help(screen)
        else:
            screen.say(f"the game is over: {_OVER_HELP}")
    return None


def _help(screen: Screen) -> None:
    screen.say(
        f"Play a proposal, or a word of your own, and type what came of it: the guess and its colours, {COLOURS_HELP}, "
        "as in: crane bygbb. Colours alone are those of the first proposal. u takes the last guess back, q ends."
    )
    screen.explain()


def _ending(board: Board, otherwise: str) -> str:
    if board.solved:
        number = len(board.guesses)
        return f"solved with the {number}{('st', 'nd', 'rd')[number - 1] if number <= 3 else 'th'} guess"
    return f"not solved{f': {otherwise}' if otherwise else ''}"
