"""How values are learnt from transitions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from .schedules import Schedule
from .settings import Settings


class QLearningConfig(Settings):
    """Q-learning: targets, optimiser, averages, conservatism."""

    learning_rate: Schedule = Field(
        Schedule(kind="cosine", start=1e-3, end=3e-5), description="of Adam, over the run, after the warm-up"
    )
    warmup_updates: int = Field(100, ge=0, description="updates over which the learning rate rises from 0")
    adam_epsilon: float = Field(1e-8, gt=0, description="Adam's term for numerical stability")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
    double_q: bool = Field(True, description="choose the next action by the online network (van Hasselt 2016)")
    target_update_every: int = Field(
        200, ge=0, description="updates between copies into the target network; 0: the averaged weights are the target"
    )
    average_decay: float = Field(
        0.999, ge=0, lt=1, description="of the averaged weights that act and are evaluated; 0 takes the newest"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the network's products; weights, the head's loss and Adam's moments stay in fp32"
    )
    channels_last: bool = Field(
        False, description="keep pictures and convolutions' weights with channels last, which some machines prefer"
    )
    cql_weight: Schedule = Field(
        Schedule(start=0.0), description="of the conservative regulariser (Kumar 2020), over the run"
    )
    cql_actions: int = Field(64, ge=0, description="actions drawn for the regulariser's log-sum-exp; 0 takes all")
    exploration_top: int = Field(64, ge=1, description="best actions that a softmax policy draws from")

    @field_validator("learning_rate", "cql_weight")
    @classmethod
    def _check_sign(cls, schedule: Schedule) -> Schedule:
        if schedule.start < 0 or (schedule.end or 0.0) < 0:
            raise ValueError(f"a schedule from {schedule.start} to {schedule.end}: neither may be negative")
        return schedule
