"""What clients that learn values have of their own, and how they train between assignments."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from ...learners.schedules import Schedule
from ...learners.settings import Settings


class WordleSilos(Settings):
    """Wordle: each client has words of its own, as answers and as guesses, and knows no others.

    Words that ``environment`` sets apart are in no silo. Who has which words is fixed by ``environment.split_seed``.
    """

    kind: Literal["wordle"] = "wordle"
    shares: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        min_length=1,
        description="one a client, of the training words, in proportion to each other, as in [4, 2, 1, 1]; None: even "
        "shares",
    )
    order: Literal["shuffled", "alphabetical"] = Field(
        "shuffled",
        description="of the words that are shared out: shuffled: clients have alike words; alphabetical: each has "
        "first letters of its own, and no client alone learns to play all words",
    )
    files: tuple[str, ...] | None = Field(
        None, min_length=1, description="instead of shares: paths of the clients' own word lists, one a client"
    )
    test_share: float = Field(
        0.1, gt=0, lt=0.5, description="share of a client's words that it is evaluated on and never trains with"
    )

    @model_validator(mode="after")
    def _check(self) -> WordleSilos:
        if self.shares is not None and self.files is not None:
            raise ValueError("shares and files are both set: words come from one or the other")
        return self

    @property
    def clients(self) -> int | None:
        """How many clients there must be; None: any number."""
        own = self.shares or self.files
        return None if own is None else len(own)


class EnvironmentSilos(Settings):
    """All other environments: each client plays with arguments, or a game, of its own."""

    kind: Literal["environment"] = "environment"
    kwargs: tuple[dict[str, Any], ...] = Field(
        min_length=1,
        description="one a client, laid over environment.kwargs, as in [{length: 0.25}, {length: 1.0}] for "
        "isogon/CartPole-v1; for Atari and MinAtar over the environment's fields, as in [{game: pong}, {game: qbert}]",
    )
    episodes: int = Field(20, ge=1, description="of each client's environment, in one evaluation by the server")

    @property
    def clients(self) -> int | None:
        """How many clients there must be."""
        return len(self.kwargs)


ValueSilos: TypeAlias = Annotated[WordleSilos | EnvironmentSilos, Field(discriminator="kind")]


class ValueClientConfig(Settings):
    """How a client plays and learns, and what it keeps between two assignments.

    Its replay, its environments and its count of steps stay. Target and averaged weights begin anew from each model
    that it is given.
    """

    envs: int = Field(16, ge=1, description="environments in the client's vector, stepped together")
    env_steps_per_update: float = Field(
        8.0, ge=0, description="environment steps it plays for each local step; 0 learns from the first games alone"
    )
    steps_per_rollout: int = Field(256, ge=1, description="environment steps played at a time")
    epsilon: Schedule = Field(Schedule(start=0.02), description="probability of a random action, over schedule_steps")
    temperature: Schedule = Field(
        Schedule(start=0.0),
        description="of a softmax over the best actions' values, over schedule_steps, in units of return; 0 is greedy",
    )
    schedule_steps: int = Field(
        1_000,
        ge=1,
        description="local steps of the client, all assignments together, over which its schedules go from beginning "
        "to end: learning rate, exploration, conservatism",
    )
    keep_optimiser: bool = Field(
        True, description="keep Adam's moments between assignments; false: they begin anew with each"
    )
    proximal: float = Field(
        0.0, ge=0, description="FedProx's mu: weight of half the squared distance from the model it was given"
    )
