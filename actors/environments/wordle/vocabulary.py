"""Word lists: reading one, what is computed of it once, and which of its words training never sees.

W is the number of words. A word is known by its index in the list everywhere but in observations, which have letters.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ....learners.randomness import stream
from ..config import WordleConfig
from . import words as shipped
from .patterns import LETTERS, pattern_matrix, word_letters

MIN_WORDS = 20
"""Shorter lists leave too few words to set some apart for validation and for the test."""
MAX_GUESSES = 6
SHIPPED_LIST = "scowl_common_five.txt"

Indices = npt.NDArray[np.int64]


def load_words(path: str | Path | None = None) -> tuple[str, ...]:
    """The words of a list, one five-letter word a line, in the list's order; None reads the shipped one.

    Raises:
        ValueError: the file cannot be read or is not UTF-8, a line is not five letters a to z or repeats an earlier
            one, or there are fewer than `MIN_WORDS` words. The message names file, line, word and remedy.
    """
    name = SHIPPED_LIST if path is None else str(path)
    try:
        source = importlib.resources.files(shipped) / SHIPPED_LIST if path is None else Path(path)
        lines = source.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"word list {name} is not UTF-8 (byte {error.start}): save it as plain text") from error
    except OSError as error:
        raise ValueError(f"word list {name} cannot be read ({error.strerror}): check the path") from error
    first_line: dict[str, int] = {}
    for number, word in enumerate(lines, start=1):
        if len(word) != LETTERS:
            raise ValueError(
                f"word list {name}, line {number}: {word!r} has {len(word)} characters; "
                f"every line must be one word of {LETTERS} letters"
            )
        if not (word.isascii() and word.isalpha() and word.islower()):
            raise ValueError(f"word list {name}, line {number}: {word!r} has a character other than a-z; use a-z only")
        if word in first_line:
            raise ValueError(
                f"word list {name}, line {number}: {word!r} is on line {first_line[word]} already; remove one"
            )
        first_line[word] = number
    if len(first_line) < MIN_WORDS:
        raise ValueError(f"word list {name} has {len(first_line)} words; add words until there are {MIN_WORDS} or more")
    return tuple(first_line)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A word list with its tables, which all environments and players of a process share. The arrays are read-only.

    Attributes:
        words: W different words of five letters a to z.
        letters: ``[W, 5] int8``, 0 for "a".
        patterns: ``[W guesses, W answers] uint8``, the colours that a guess gets.
    """

    words: tuple[str, ...]
    letters: npt.NDArray[np.int8]
    patterns: npt.NDArray[np.uint8]
    _sorted_codes: Indices
    _sorted_to_word: Indices

    def __len__(self) -> int:
        return len(self.words)

    def indices_of(self, letters: npt.NDArray[np.int8]) -> Indices:
        """Indices ``[...] int64`` of words given as letters ``[..., 5]``.

        Raises:
            ValueError: a word is not in the list; the message names it.
        """
        codes = _letter_codes(letters)
        place = np.minimum(np.searchsorted(self._sorted_codes, codes), len(self) - 1)
        unknown = self._sorted_codes[place] != codes
        if unknown.any():
            word = "".join(chr(ord("a") + letter) if 0 <= letter < 26 else "?" for letter in letters[unknown][0])
            raise ValueError(f"letters spell {word!r}, which is not in the list of {len(self)} words")
        return np.asarray(self._sorted_to_word[place])


@lru_cache(maxsize=4)
def build_vocabulary(words: tuple[str, ...]) -> Vocabulary:
    """The tables of a word list, as `load_words` gives it; built once in a process and kept."""
    letters = word_letters(words)
    codes = _letter_codes(letters)
    order = np.argsort(codes)
    tables = (letters, pattern_matrix(letters), codes[order], order)
    for table in tables:
        table.flags.writeable = False
    return Vocabulary(words, *tables)


def _letter_codes(letters: npt.NDArray[np.int8]) -> Indices:
    return np.asarray(letters.astype(np.int64) @ (32 ** np.arange(LETTERS, dtype=np.int64)))


@dataclass(frozen=True, eq=False)
class WordSplit:
    """Which words training sees: three disjoint sorted sets of indices, together the whole list."""

    train: Indices
    validation: Indices
    never_seen: Indices


def split_words(words: tuple[str, ...], config: WordleConfig) -> WordSplit:
    """Set words apart that training sees neither as answer nor as guess; fixed by list, shares and ``split_seed``.

    Raises:
        ValueError: a set would be empty, or training would have fewer words than a game has guesses.
    """
    never_seen = int(config.never_seen_share * len(words))
    validation = int(config.validation_share * len(words))
    train = len(words) - never_seen - validation
    for name, size in (("never_seen_share", never_seen), ("validation_share", validation)):
        if size < 1:
            raise ValueError(f"{name} is {getattr(config, name)}: of {len(words)} words that is none; raise it")
    if train < MAX_GUESSES:
        raise ValueError(
            f"never_seen_share {config.never_seen_share} and validation_share {config.validation_share} leave {train} "
            f"of {len(words)} words for training: lower them until {MAX_GUESSES} or more are left"
        )
    order = stream(config.split_seed, "wordle split").permutation(len(words)).astype(np.int64)
    parts = np.split(order, [never_seen, never_seen + validation])
    return WordSplit(never_seen=np.sort(parts[0]), validation=np.sort(parts[1]), train=np.sort(parts[2]))
