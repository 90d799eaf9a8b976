"""Wordle: the game, its word list, and players to compare with."""

from .baselines import data_policy_returns, filter_returns, play_returns
from .entropy_search import entropy_search_returns
from .environment import WordleEnvironment, wordle_spec
from .players import FilteringPlayer, MixturePlayer
from .vocabulary import MAX_GUESSES, Vocabulary, WordSplit, build_vocabulary, load_words, split_words

__all__ = [
    "MAX_GUESSES",
    "FilteringPlayer",
    "MixturePlayer",
    "Vocabulary",
    "WordSplit",
    "WordleEnvironment",
    "build_vocabulary",
    "data_policy_returns",
    "entropy_search_returns",
    "filter_returns",
    "load_words",
    "play_returns",
    "split_words",
    "wordle_spec",
]
