"""Make the shipped word list of a SCOWL folder: `python make_list.py /usr/share/dict/scowl > scowl_common_five.txt`.

SCOWL (Kevin Atkinson's Spell Checker Oriented Word Lists; Debian's package `scowl`) grades words by how common they
are. Taken are the English and American words of sizes 10, 20 and 35 with five letters, but for those that are another
word of those sizes with -s, -es, -d or -ed added: "words", "boxes" and "loved" are left out, "cried" is taken.
"""

from __future__ import annotations

import sys
from pathlib import Path

CATEGORIES = ("english-words", "american-words")
SIZES = (10, 20, 35)
LETTERS = 5


def read_scowl(folder: Path) -> frozenset[str]:
    """The words of `CATEGORIES` and `SIZES`, of any length. SCOWL's files are Latin-1.

    Raises:
        ValueError: one of the files is not in the folder.
    """
    words: set[str] = set()
    for category in CATEGORIES:
        for size in SIZES:
            path = folder / f"{category}.{size}"
            if not path.is_file():
                raise ValueError(f"{path} is missing: the folder must hold SCOWL's final word lists")
            words.update(path.read_text("latin-1").split())
    return frozenset(words)


def is_inflected(word: str, words: frozenset[str]) -> bool:
    """Whether a word is one of the ``words`` with -s, -es, -d or -ed added; a final -ss is no ending."""
    stems = []
    if word.endswith("s") and not word.endswith("ss"):
        stems.append(word[:-1])
    if word.endswith("es"):
        stems.append(word[:-2])
    if word.endswith("ed"):
        stems += [word[:-2], word[:-1]]
    return any(stem in words for stem in stems)


def common_words(words: frozenset[str]) -> list[str]:
    """The words of the list, sorted: five letters a to z, no inflected forms."""
    return sorted(
        word
        for word in words
        if len(word) == LETTERS
        and word.isascii()
        and word.isalpha()
        and word.islower()
        and not is_inflected(word, words)
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} SCOWL_FOLDER > scowl_common_five.txt")
    try:
        print("\n".join(common_words(read_scowl(Path(sys.argv[1])))))
    except ValueError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
