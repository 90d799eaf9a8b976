"""Who plays, how much at a time, and how far from greedy."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..learners.schedules import Schedule
from ..learners.settings import Settings, may_change_on_resume


class ActorsConfig(Settings):
    """The pool of workers that play."""

    pool: Literal["ray", "in_process"] = Field(
        "ray", description="ray: one actor process a worker; in_process: all in the learner's process, no Ray"
    )
    workers: int = may_change_on_resume(1, ge=1, description="number of workers")
    envs_per_worker: int = Field(16, ge=1, description="environments in a worker's vector, stepped together")
    steps_per_assignment: int = Field(256, ge=1, description="environment steps a worker is asked for at a time")
    assignments_in_flight: int = Field(
        1, ge=1, le=8, description="pieces of work a worker has in hand at most; 2 hides the way there and back"
    )
    updates_per_step: float | None = Field(
        None, gt=0, description="updates for each environment step; without it players and learner run freely"
    )
    publish_every_updates: int = Field(10, ge=1, description="updates between two versions of the weights")
    epsilon: Schedule = Field(Schedule(start=0.02), description="probability of a random action, over the run")
    temperature: Schedule = Field(
        Schedule(start=0.0),
        description="of a softmax over the best actions' values, over the run, in units of return, or of their scale "
        "with value.normalise_returns; 0 is greedy",
    )
    max_restarts: int = Field(10, ge=0, description="times that one lost worker is replaced")
