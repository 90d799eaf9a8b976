"""Which words of Wordle a client of a federation has: pure functions of the config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...learners.randomness import stream
from ..environments.config import WordleConfig
from ..environments.wordle import MAX_GUESSES, load_words, split_words
from .client import Silo
from .value_config import WordleSilos

LEAST_WORDS = MAX_GUESSES + 1
"""Of a client to train with: on the board of a lost game there must still be a word that was not guessed."""


@dataclass(frozen=True)
class SiloWords:
    """A client's words: two lists without a word in common, each in the order in which it was read.

    Attributes:
        train: at least `LEAST_WORDS`, answers and guesses in training.
        test: at least one, the answers that it is evaluated on.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Training words first."""
        return self.train + self.test


def silo_words(environment: WordleConfig, silos: WordleSilos, silo: Silo) -> SiloWords:
    """One client's words. No word that ``environment`` sets apart is among them.

    Shares of the training words are disjoint and leave none out; files are the clients' own affair and may overlap.

    Raises:
        ValueError: a list that cannot be read, another number of clients than there are shares or files, or too few
            words are left to a client.
    """
    if silos.clients not in (None, silo.clients):
        name = "shares" if silos.shares else "files"
        raise ValueError(
            f"silos.{name} has {silos.clients} entries and there are {silo.clients} clients: give one each"
        )
    words = load_words(environment.word_list)
    split = split_words(words, environment)
    seed = environment.split_seed
    if silos.files is None:
        own = _share(sorted(words[index] for index in split.train), silos, silo, seed)
    else:
        apart = {words[index] for index in np.concatenate([split.validation, split.never_seen])}
        own = [word for word in load_words(silos.files[silo.index]) if word not in apart]
    return _with_test(own, silos.test_share, stream(seed, "wordle silo test", silo.index), silo.name)


def _share(words: Sequence[str], silos: WordleSilos, silo: Silo, seed: int) -> list[str]:
    """One client's part of sorted words, sorted; parts are as near to their shares as whole words can be."""
    shares = silos.shares or (1.0,) * silo.clients
    ends = np.rint(np.cumsum([0.0, *shares]) / sum(shares) * len(words)).astype(np.int64)
    order = np.arange(len(words))
    if silos.order == "shuffled":
        order = stream(seed, "wordle silos").permutation(order)
    return [words[index] for index in np.sort(order[ends[silo.index] : ends[silo.index + 1]])]


def _with_test(own: list[str], test_share: float, generator: np.random.Generator, name: str) -> SiloWords:
    tests = max(1, round(test_share * len(own)))
    if len(own) - tests < LEAST_WORDS:
        raise ValueError(
            f"client {name} has {len(own)} words, {min(tests, len(own))} of them to test by: at least {LEAST_WORDS} "
            "must be left to train with; give it a larger share or list, or have fewer clients"
        )
    tested = set(generator.permutation(len(own))[:tests].tolist())
    return SiloWords(
        train=tuple(word for index, word in enumerate(own) if index not in tested),
        test=tuple(word for index, word in enumerate(own) if index in tested),
    )
