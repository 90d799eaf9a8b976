"""Playing with a trained policy: the game, what a person types, and what the policy advises. No terminal in here."""

from .advice import Advice, WordleAdviser
from .board import Board, Guess
from .entries import Entry, EntryRefused, check_word, parse_entry

__all__ = ["Advice", "Board", "Entry", "EntryRefused", "Guess", "WordleAdviser", "check_word", "parse_entry"]
