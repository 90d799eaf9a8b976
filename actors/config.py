"""Who plays, how much at a time, and how far from greedy."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ..learners.schedules import Schedule
from ..learners.settings import Settings, may_change_on_resume

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_LABEL_KEY = re.compile(rf"(?:[a-zA-Z0-9][a-zA-Z0-9.-]{{0,252}}/)?{_LABEL}")
_LABEL_CONDITION = re.compile(rf"!?{_LABEL}|!?in\({_LABEL}(?:, ?{_LABEL})*\)")


def check_selector(selector: dict[str, str]) -> dict[str, str]:
    """The selector itself. Raises ValueError where Ray would not understand it."""
    for key, condition in selector.items():
        if not (_LABEL_KEY.fullmatch(key) and _LABEL_CONDITION.fullmatch(condition)):
            raise ValueError(
                f"{key!r}: {condition!r} selects no label: expected a label's name and a value, or !value, "
                "in(one, other), !in(one, other), as in {zone: left}"
            )
    return selector


class ActorsConfig(Settings):
    """The pool of workers that play."""

    pool: Literal["ray", "in_process"] = Field(
        "ray", description="ray: one actor process a worker; in_process: all in the learner's process, no Ray"
    )
    workers: int = may_change_on_resume(1, ge=1, description="number of workers")
    envs_per_worker: int = Field(16, ge=1, description="environments in a worker's vector, stepped together")
    split: Literal["equal", "compass"] = may_change_on_resume(
        "equal",
        description="equal: the same steps for every worker; compass: unequal workers get unequal amounts, so that "
        "their rollouts arrive together and none is old",
    )
    steps_per_assignment: int = Field(
        256, ge=1, description="environment steps a worker is asked for at a time; with compass the fastest one at most"
    )
    least_steps_per_assignment: int | None = Field(
        None, ge=1, description="with compass, of the slowest worker; None: a tenth of the fastest one's"
    )
    assignments_in_flight: int = Field(
        1, ge=1, le=8, description="pieces of work a worker has in hand at most; 2 hides the way there and back"
    )
    updates_per_step: float | None = Field(
        None, gt=0, description="updates for each environment step; without it players and learner run freely"
    )
    publish_every_updates: int = Field(10, ge=1, description="updates between two versions of the weights")
    max_versions_behind: int | None = Field(
        None,
        ge=1,
        description="versions published at most while a piece of play is in hand: publishing waits for the slowest "
        "worker then; None: as many as come",
    )
    epsilon: Schedule = Field(Schedule(start=0.02), description="probability of a random action, over the run")
    epsilon_spread: float = Field(
        0.0,
        ge=0,
        description="worker i of N explores with epsilon^(1 + epsilon_spread i / (N - 1)), as in Ape-X, where it is 7",
    )
    temperature: Schedule = Field(
        Schedule(start=0.0),
        description="of a softmax over the best actions' values, over the run, in units of return, or of their scale "
        "with value.normalise_returns; 0 is greedy",
    )
    label_selector: Annotated[dict[str, str], AfterValidator(check_selector)] = may_change_on_resume(
        {},
        description="labels of the nodes of a cluster where actors may play, as in {zone: left}: each a value, !value, "
        "in(one, other) or !in(one, other); {} is any node",
    )
    seconds_per_step: tuple[Annotated[float, Field(ge=0)], ...] = may_change_on_resume(
        (),
        description="emulates slow machines: least seconds that each worker takes for an environment step, as in "
        "[0.001, 0.008]; workers beyond it are as fast as they are",
    )
    max_failures: int = Field(
        5,
        ge=0,
        description="pieces of play that may fail one after another, by an environment that raises or gives what is no "
        "number; each time its worker makes new ones. One more ends the run, with a checkpoint. A deterministic run "
        "ends at the first",
    )
    hangs_after_seconds: float | None = may_change_on_resume(
        1_800.0,
        gt=0,
        description="on one piece of play or one evaluation, after which a worker's process is ended and replaced; "
        "null: never. In one process with the learner nothing can be ended",
    )
    max_restarts: int = Field(10, ge=0, description="times that one lost worker is replaced")

    @model_validator(mode="after")
    def _check(self) -> ActorsConfig:
        if self.q_min > self.steps_per_assignment:
            raise ValueError(
                f"least_steps_per_assignment is {self.q_min} and steps_per_assignment {self.steps_per_assignment}: "
                "the slowest worker cannot be asked for more than the fastest"
            )
        if len(self.seconds_per_step) > self.workers:
            raise ValueError(
                f"seconds_per_step has {len(self.seconds_per_step)} entries and there are {self.workers} workers: "
                "leave some out"
            )
        return self

    @property
    def q_min(self) -> int:
        """Least steps in a piece of work that compass gives."""
        return self.least_steps_per_assignment or math.ceil(self.steps_per_assignment / 10)
