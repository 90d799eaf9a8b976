"""What a person types: words, colours, and a few commands."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import Enum

from ...actors.environments.wordle.patterns import GREEN, GREY, LETTERS, YELLOW
from .board import Guess

_COLOURS = {"g": GREEN, "y": YELLOW, "b": GREY, ".": GREY, "🟩": GREEN, "🟨": YELLOW, "⬛": GREY, "⬜": GREY}
"""Letters, and the squares in which results of Wordle are shared."""
_NEAREST = 3
_LONGEST_QUOTE = 20

COLOURS_HELP = "five of g (green), y (yellow) and b or . (grey)"


class EntryRefused(ValueError):
    """What was typed cannot be played. The message is one line that says what can."""


class Entry(Enum):
    """What was typed that is no guess."""

    TAKE_BACK = "u"
    QUIT = "q"
    HELP = "?"


def parse_entry(text: str, words: Sequence[str], proposal: str) -> Guess | Entry:
    """Read ``crane bygbb``, the colours of the proposal alone, or a command; case does not count.

    Raises:
        EntryRefused: it is none of them, or the word is not in the list.
    """
    parts = text.lower().split()
    match parts:
        case []:
            return Entry.HELP
        case [("u" | "undo")]:
            return Entry.TAKE_BACK
        case [("q" | "quit" | "exit")]:
            return Entry.QUIT
        case [("?" | "h" | "help")]:
            return Entry.HELP
        case [word] if len(word) == LETTERS and word.isalpha() and not set(word) <= _COLOURS.keys():
            known = check_word(word, words)
            raise EntryRefused(f"{known} lacks its colours: type them after it, as in: {known} bygbb")
        case [colours]:
            return Guess(proposal, _parse_colours(colours))
        case [word, colours]:
            return Guess(check_word(word, words), _parse_colours(colours))
    raise EntryRefused(f"{_quoted(text)} has {len(parts)} parts: type a guess and its colours, as in: crane bygbb")


def check_word(text: str, words: Sequence[str]) -> str:
    """The word in small letters.

    Raises:
        EntryRefused: it is not five letters a to z, or not in the list; the message offers the nearest words.
    """
    word = text.strip().lower()
    if len(word) != LETTERS or not (word.isascii() and word.isalpha()):
        raise EntryRefused(f"{_quoted(text.strip())} is no word of five letters a to z")
    if word not in words:
        nearest = difflib.get_close_matches(word, words, n=_NEAREST, cutoff=0.5)
        offered = f"the nearest are {', '.join(nearest)}" if nearest else "nothing in it is like it"
        raise EntryRefused(f"{word} is not in the list of {len(words):,} words: {offered}")
    return word


def _parse_colours(text: str) -> tuple[int, ...]:
    # Black and white squares may be followed by a selector of their emoji form.
    signs = text.replace("\N{VARIATION SELECTOR-16}", "")
    if len(signs) != LETTERS or any(sign not in _COLOURS for sign in signs):
        raise EntryRefused(f"{_quoted(text)} is no row of colours: type {COLOURS_HELP}, as in: bygbb")
    return tuple(_COLOURS[sign] for sign in signs)


def _quoted(text: str) -> str:
    """What was typed, in a message: short, and without what would move a cursor."""
    return repr(text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}...")
