"""Which environment is played."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError

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


class AtariConfig(Settings):
    """An Atari game, by the protocol of Machado et al. 2018."""

    kind: Literal["atari"] = "atari"
    game: str = Field(description="as in pong or ms_pacman")
    sticky_actions: float = Field(0.25, ge=0, lt=1, description="probability that the last action is repeated instead")
    full_action_space: bool = Field(False, description="all 18 actions, as clients with several games need them")
    frame_skip: int = Field(4, ge=1, description="frames for which an action is held: one step")
    max_episode_frames: int = Field(108_000, ge=1, description="after which an episode is cut off: 30 minutes of play")
    noop_max: int = Field(0, ge=0, description="an episode begins after up to so many steps without an action")
    episodic_life: bool = Field(False, description="a lost life ends an episode")
    fire_reset: bool = Field(False, description="press fire at an episode's beginning where the game waits for it")
    threads: int = Field(1, ge=1, description="that emulate a worker's environments")


class MinAtarConfig(Settings):
    """A game of MinAtar: Atari on a 10 x 10 board."""

    kind: Literal["minatar"] = "minatar"
    game: Literal["asterix", "breakout", "freeway", "seaquest", "space_invaders"] = Field(description="which game")
    sticky_actions: float = Field(0.1, ge=0, lt=1, description="probability that the last action is repeated instead")
    full_action_space: bool = Field(False, description="all 6 actions, as clients with several games need them")
    difficulty_ramping: bool = Field(True, description="the game gets harder as it goes on")
    planes: int | None = Field(
        None,
        ge=1,
        description="of an observation, one a kind of thing; more than the game has are empty, as clients with several "
        "games need them: 10 are enough for every game; None: the game's own",
    )
    max_episode_steps: int = Field(5_000, ge=1, description="after which an episode is cut off")


class CustomEnvironmentConfig(PluginConfig):
    """An environment of one's own: a gymnasium.Env, or a vectorised one."""

    kind: Literal["custom"] = "custom"
    max_episode_steps: int | None = Field(
        None, ge=1, description="of a gymnasium.Env, after which an episode is cut off; None: 1,000"
    )


EnvironmentConfig: TypeAlias = Annotated[
    WordleConfig | GymnasiumConfig | AtariConfig | MinAtarConfig | CustomEnvironmentConfig, Field(discriminator="kind")
]


def varied(base: EnvironmentConfig, own: Mapping[str, Any]) -> EnvironmentConfig:
    """An environment of the same kind with settings of its own: of a game its fields, of others their ``kwargs``.

    Raises:
        ValueError: there is no such field, or it may not have this value.
    """
    if isinstance(base, GymnasiumConfig | CustomEnvironmentConfig):
        return base.model_copy(update={"kwargs": {**base.kwargs, **own}})
    try:
        return type(base).model_validate({**base.model_dump(), **own})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{field} is {first['input']!r}, in what is laid over environment of kind {base.kind}: {first['msg']}; its "
            f"fields are {', '.join(type(base).model_fields)}"
        ) from error
