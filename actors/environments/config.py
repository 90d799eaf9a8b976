"""Which environment is played."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from ...learners.plugins import PluginConfig
from ...learners.settings import Settings

Purpose: TypeAlias = Literal["train", "validation", "never_seen", "seen"]
"""What an environment is built for. ``train`` for rollouts. The others are for evaluation: in Wordle each is a set of
answers, one environment an answer, and every word may be guessed; elsewhere they are the same environment."""


class WordleConfig(Settings):
    """Wordle over a word list, with words set apart that training never sees."""

    kind: Literal["wordle"] = "wordle"
    word_list: str | None = Field(
        None, description="path of a list, one five-letter word a line; None: the shipped one"
    )
    never_seen_share: float = Field(
        0.1, gt=0, lt=0.5, description="share of the words that training sees neither as answer nor as guess"
    )
    validation_share: float = Field(0.05, gt=0, lt=0.5, description="share kept from training too, to choose by")
    split_seed: int = Field(0, ge=0, description="which words those are; apart from the run's seed")


class GymnasiumConfig(Settings):
    """Any discrete Gymnasium environment by its id."""

    kind: Literal["gymnasium"] = "gymnasium"
    id: str = Field(description="a registered id, such as CartPole-v1, or module:id")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="passed to gymnasium.make")
    max_episode_steps: int | None = Field(
        None, ge=1, description="after which an episode is cut off; None: the environment's own limit, or 1,000"
    )


class CustomEnvironmentConfig(PluginConfig):
    """An environment of one's own: a gymnasium.Env, or a vectorised one."""

    kind: Literal["custom"] = "custom"
    max_episode_steps: int | None = Field(
        None, ge=1, description="of a gymnasium.Env, after which an episode is cut off; None: 1,000"
    )


EnvironmentConfig: TypeAlias = Annotated[
    WordleConfig | GymnasiumConfig | CustomEnvironmentConfig, Field(discriminator="kind")
]
