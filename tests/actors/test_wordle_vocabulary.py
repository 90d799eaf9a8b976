from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isogon.actors.environments.config import WordleConfig
from isogon.actors.environments.wordle import build_vocabulary, load_words, split_words
from isogon.actors.environments.wordle import words as shipped
from isogon.actors.environments.wordle.patterns import word_letters

FOLDER = Path(shipped.__path__[0])
ENOUGH = [f"aa{a}{b}a" for a in "bcdef" for b in "ghijk"]


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_shipped_list() -> None:
    words = load_words()
    assert len(words) == 2088
    assert list(words) == sorted(set(words))
    assert {"crane", "raise", "glass", "cried"} <= set(words)
    assert not {"words", "boxes", "loved", "asked"} & set(words)
    notice = (FOLDER / "NOTICE").read_text("utf-8")
    assert "Kevin Atkinson" in notice
    assert "permission notice appear in" in notice


def test_list_of_ones_own(tmp_path: Path) -> None:
    assert load_words(write(tmp_path, "\n".join(reversed(ENOUGH)) + "\n")) == tuple(reversed(ENOUGH))
    assert load_words(str(write(tmp_path, "\r\n".join(ENOUGH)))) == tuple(ENOUGH)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crane\nabbot\nfour\n", r"line 3: 'four' has 4 characters; every line must be one word of 5 letters"),
        ("crane\n\nabbot\n", r"line 2: '' has 0 characters"),
        ("crane\nCrane\n", r"line 2: 'Crane' has a character other than a-z"),
        ("crane\ncafés\n", r"line 2: 'cafés' has a character other than a-z"),
        ("crane\nabbot\ncrane\n", r"line 3: 'crane' is on line 1 already; remove one"),
        ("", r"has 0 words; add words until there are 20 or more"),
        ("crane\n", r"has 1 words; add words"),
        ("caf\xe9s\n".encode("latin-1"), r"is not UTF-8 \(byte 3\): save it as plain text"),
    ],
)
def test_bad_lists_are_refused_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_words(write(tmp_path, text))
    assert "list.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_list(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing.txt cannot be read \(No such file or directory\): check the path"):
        load_words(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory\)"):
        load_words(tmp_path)


def test_vocabulary_finds_words_in_any_order() -> None:
    words = tuple(np.random.default_rng(0).permutation(ENOUGH))
    vocabulary = build_vocabulary(words)
    np.testing.assert_array_equal(vocabulary.indices_of(vocabulary.letters), np.arange(len(words)))
    assert vocabulary.indices_of(vocabulary.letters.reshape(5, 5, 5)).shape == (5, 5)
    with pytest.raises(ValueError, match="letters spell 'zebra', which is not in the list of 25 words"):
        vocabulary.indices_of(word_letters((words[0], "zebra")))


def test_vocabulary_is_built_once_and_read_only() -> None:
    vocabulary = build_vocabulary(tuple(ENOUGH))
    assert build_vocabulary(tuple(list(ENOUGH))) is vocabulary
    with pytest.raises(ValueError, match="read-only"):
        vocabulary.patterns[0, 0] = 1


def test_split_of_the_shipped_list() -> None:
    words = load_words()
    split = split_words(words, WordleConfig())
    assert (len(split.train), len(split.validation), len(split.never_seen)) == (1776, 104, 208)
    together = np.concatenate([split.train, split.validation, split.never_seen])
    np.testing.assert_array_equal(np.sort(together), np.arange(len(words)))
    again, other = split_words(words, WordleConfig()), split_words(words, WordleConfig(split_seed=1))
    np.testing.assert_array_equal(split.never_seen, again.never_seen)
    np.testing.assert_array_equal(split.validation, again.validation)
    # Two random tenths share a tenth of their words: 21 +- 4.
    assert len(np.intersect1d(split.never_seen, other.never_seen)) < 45


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (WordleConfig(never_seen_share=0.01), "never_seen_share is 0.01: of 25 words that is none; raise it"),
        (WordleConfig(validation_share=0.01), "validation_share is 0.01: of 25 words that is none"),
        (WordleConfig(never_seen_share=0.45, validation_share=0.45), "leave 3 of 25 words for training: lower them"),
    ],
)
def test_impossible_splits(config: WordleConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_words(tuple(ENOUGH), config)


def test_make_list_on_a_made_up_scowl(tmp_path: Path) -> None:
    lists = {
        "english-words.10": ["crane", "word", "words", "glass", "cry", "Paris", "it's", "tree"],
        "english-words.20": ["boxes", "box", "cried", "loved", "love", "asked", "ask", "bleed", "abed"],
        "english-words.35": ["papas", "caf\xe9s"],
        "american-words.10": ["color", "crane"],
        "american-words.20": [],
        "american-words.35": ["buses", "speed"],
    }
    for name, words in lists.items():
        (tmp_path / name).write_bytes("\n".join(words).encode("latin-1"))
    (tmp_path / "english-words.40").write_text("zebra\n")
    script = [sys.executable, str(FOLDER / "make_list.py"), str(tmp_path)]
    made = subprocess.run(script, capture_output=True, text=True, check=True).stdout.split()
    # "cried" stays, for its stem "cri" is no word; so does "papas", whose stem is not in these lists.
    assert made == ["bleed", "buses", "color", "crane", "cried", "glass", "papas", "speed"]
    (tmp_path / "american-words.35").unlink()
    failed = subprocess.run(script, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "american-words.35 is missing" in failed.stderr


def test_shipped_list_keeps_the_rule_of_its_script() -> None:
    words = load_words()
    script = runpy.run_path(str(FOLDER / "make_list.py"))
    assert script["common_words"](frozenset(words)) == list(words)
