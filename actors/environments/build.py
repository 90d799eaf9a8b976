"""From a config to an environment. Gymnasium and emulators are imported only where they are played."""

from __future__ import annotations

from ...learners.encodings.spec import EnvironmentSpec
from .config import (
    AtariConfig,
    CustomEnvironmentConfig,
    EnvironmentConfig,
    GymnasiumConfig,
    MinAtarConfig,
    Purpose,
    WordleConfig,
)
from .contract import VectorEnvironment
from .screens import ShownEnvironment
from .wordle import WordleEnvironment, build_vocabulary, load_words, split_words, wordle_spec


def build_environment(config: EnvironmentConfig, purpose: Purpose, num_envs: int) -> VectorEnvironment:
    """The environments to train or to evaluate on.

    In Wordle ``train`` draws answers and allows guesses among the training words only; the other purposes have one
    board for each answer of their set (``seen``: the training words), whatever ``num_envs`` says, and allow every word.

    Raises:
        ValueError: the config names an environment that cannot be made, or a word list that cannot be used.
        PluginError: an environment of one's own is not what it must be.
    """
    match config:
        case WordleConfig():
            return _build_wordle(config, purpose, num_envs)
        case GymnasiumConfig():
            from .gymnasium_vector import GymnasiumEnvironment

            return GymnasiumEnvironment(config.id, config.kwargs, num_envs, max_episode_steps=config.max_episode_steps)
        case AtariConfig():
            from .atari import AtariEnvironment

            return AtariEnvironment(config, num_envs)
        case MinAtarConfig():
            from .minatar import MinAtarEnvironment

            return MinAtarEnvironment(config, num_envs)
        case CustomEnvironmentConfig():
            from .custom import build_custom

            return build_custom(config, purpose, num_envs)


def build_shown(config: EnvironmentConfig) -> ShownEnvironment:
    """One environment that can be looked at. Raises ValueError where there is nothing to see."""
    match config:
        case AtariConfig():
            from .atari import AtariEnvironment

            return AtariEnvironment(config, 1, with_screen=True)
        case MinAtarConfig():
            from .minatar import MinAtarEnvironment

            return MinAtarEnvironment(config, 1)
    raise ValueError(f"an environment of kind {config.kind} has no screen to show: Atari and MinAtar have one")


def environment_spec(config: EnvironmentConfig) -> EnvironmentSpec:
    """What a network is told of the environment, without building the whole vector. Raises ValueError as above.

    An environment of one's own is tried out for one step.
    """
    match config:
        case WordleConfig():
            return wordle_spec(load_words(config.word_list))
        case GymnasiumConfig():
            from .gymnasium_vector import gymnasium_spec

            return gymnasium_spec(config.id, config.kwargs)
        case AtariConfig():
            from .atari import atari_spec

            return atari_spec(config)
        case MinAtarConfig():
            from .minatar import minatar_spec

            return minatar_spec(config)
        case CustomEnvironmentConfig():
            from .custom import custom_spec

            return custom_spec(config)


def _build_wordle(config: WordleConfig, purpose: Purpose, num_envs: int) -> WordleEnvironment:
    vocabulary = build_vocabulary(load_words(config.word_list))
    split = split_words(vocabulary.words, config)
    match purpose:
        case "train":
            return WordleEnvironment(vocabulary, split.train, num_envs, guesses=split.train)
        case "seen":
            return WordleEnvironment(vocabulary, split.train)
        case "validation":
            return WordleEnvironment(vocabulary, split.validation)
        case "never_seen":
            return WordleEnvironment(vocabulary, split.never_seen)
