"""How much experience is kept, and how it becomes batches."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ..schedules import Schedule
from ..settings import Settings, may_change_on_resume


class ReplayConfig(Settings):
    """A ring of transitions, sampled uniformly or by priority."""

    capacity: int = Field(100_000, ge=1, description="transitions kept; the oldest go first")
    batch_size: int = Field(128, ge=1, description="transitions in a batch")
    min_size: int = Field(1_000, ge=1, description="transitions there must be before the first update")
    returns: Literal["monte_carlo", "n_step"] = Field(
        "n_step", description="monte_carlo: whole episodes' returns, no bootstrapping; n_step: n rewards, then a value"
    )
    n_step: int = Field(1, ge=1, description="rewards summed before bootstrapping (n_step only)")
    discount: float = Field(0.99, ge=0, le=1, description="of one step")
    clip_rewards: bool = Field(
        False,
        description="learn from rewards clipped to [-1, 1], as is the custom for Atari; returns are shown unclipped",
    )
    sampling: Literal["uniform", "prioritised"] = Field(
        "uniform", description="prioritised: in proportion to the last TD error (Schaul et al. 2016)"
    )
    priority_exponent: float = Field(0.5, ge=0, description="of the TD error (prioritised only); 0 is uniform")
    importance_exponent: Schedule = Field(
        Schedule(kind="linear", start=0.4, end=1.0),
        description="how much a sample's weight makes up for its priority, over the run (prioritised only)",
    )
    keep_in_checkpoint: bool = may_change_on_resume(
        False, description="store the ring in checkpoints; otherwise it is refilled after a resume"
    )

    @model_validator(mode="after")
    def _check(self) -> ReplayConfig:
        if self.min_size > self.capacity:
            raise ValueError(
                f"min_size is {self.min_size} and capacity {self.capacity}: the first update would never come; "
                "min_size must be at most capacity"
            )
        return self

    @property
    def return_steps(self) -> int | None:
        """Steps of return before a value is put in for the rest; None for whole episodes."""
        return None if self.returns == "monte_carlo" else self.n_step
