from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from isogon.actors.environments.config import WordleConfig
from isogon.actors.environments.wordle import load_words, split_words
from isogon.actors.federation.client import Silo
from isogon.actors.federation.silo_words import SiloWords, silo_words
from isogon.actors.federation.value_config import WordleSilos

WORDLE = WordleConfig()
WORDS = load_words()
SPLIT = split_words(WORDS, WORDLE)
TRAIN = {WORDS[index] for index in SPLIT.train}
APART = set(WORDS) - TRAIN


def words_of(silos: WordleSilos, clients: int, environment: WordleConfig = WORDLE) -> list[SiloWords]:
    return [silo_words(environment, silos, Silo(f"c{index}", index, clients, 0)) for index in range(clients)]


@given(
    shares=st.lists(st.floats(0.5, 5.0), min_size=1, max_size=6),
    test_share=st.floats(0.01, 0.4),
    order=st.sampled_from(["shuffled", "alphabetical"]),
)
def test_shares_divide_the_training_words_among_the_clients(
    shares: list[float], test_share: float, order: Literal["shuffled", "alphabetical"]
) -> None:
    silos = words_of(WordleSilos(shares=tuple(shares), test_share=test_share, order=order), len(shares))
    everything = [word for words in silos for word in words.all]
    assert len(everything) == len(set(everything))
    assert set(everything) == TRAIN
    for words, share in zip(silos, shares, strict=True):
        assert abs(len(words.all) - share / sum(shares) * len(TRAIN)) <= 1
        assert len(words.test) == max(1, round(test_share * len(words.all)))


def test_without_shares_they_are_even_and_hang_on_the_split_seed_alone() -> None:
    silos = words_of(WordleSilos(), 4)
    sizes = [len(words.all) for words in silos]
    assert sum(sizes) == len(TRAIN)
    assert max(sizes) - min(sizes) <= 1
    assert silos == words_of(WordleSilos(shares=(1.0,) * 4), 4)
    assert words_of(WordleSilos(), 2, WordleConfig(split_seed=1)) != words_of(WordleSilos(), 2)


def test_words_in_alphabetical_order_are_runs_of_it_and_shuffled_ones_are_not() -> None:
    for silos, are_runs in ((WordleSilos(order="alphabetical"), True), (WordleSilos(), False)):
        ordered = [sorted(words.all) for words in words_of(silos, 3)]
        ends = [(words[0], words[-1]) for words in ordered]
        assert all(one[1] < other[0] for one, other in pairwise(ends)) == are_runs


def test_a_file_is_a_clients_own_but_for_words_set_apart(tmp_path: Path) -> None:
    """It may have words that the server's list lacks: nobody else has to know them."""
    lists = [[*list(WORDS[:200]), "zzzzz"], list(WORDS[100:300])]
    files = []
    for index, words in enumerate(lists):
        path = tmp_path / f"{index}.txt"
        path.write_text("\n".join(words) + "\n")
        files.append(str(path))
    silos = words_of(WordleSilos(files=tuple(files)), 2)
    for own, words in zip(silos, lists, strict=True):
        assert set(own.all) == set(words) - APART
    assert "zzzzz" in silos[0].all
    assert APART & set(WORDS[:200]), "no word of the file is set apart: the test tests nothing"


def test_what_gives_a_client_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="client c1 has 0 words"):
        words_of(WordleSilos(shares=(1.0, 1e-9)), 2)
    with pytest.raises(ValueError, match=r"shares has 2 entries and there are 3 clients"):
        words_of(WordleSilos(shares=(1.0, 2.0)), 3)
    with pytest.raises(ValueError, match=r"files has 1 entries and there are 2 clients"):
        words_of(WordleSilos(files=("a.txt",)), 2)
    with pytest.raises(ValueError, match="cannot be read"):
        words_of(WordleSilos(files=(str(tmp_path / "none.txt"),)), 1)
    with pytest.raises(ValidationError, match="shares and files are both set"):
        WordleSilos(shares=(1.0,), files=("a.txt",))


def test_test_words_are_drawn_from_all_over_a_clients_words() -> None:
    words = words_of(WordleSilos(test_share=0.25), 1)[0]
    places = np.array([WORDS.index(word) for word in words.test]) / len(WORDS)
    assert 0.4 < places.mean() < 0.6
