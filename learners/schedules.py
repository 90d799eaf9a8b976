"""Numbers that change as a run goes on: pure functions of progress in [0, 1]."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from .settings import Settings


class Schedule(Settings):
    """A value from ``start`` to ``end`` while progress goes from ``begin`` to ``until``; constant before and after."""

    kind: Literal["constant", "linear", "geometric", "cosine"] = Field(
        "constant", description="shape of the way from start to end; constant stays at start"
    )
    start: float = Field(description="value at the beginning, in the unit of what is scheduled")
    end: float | None = Field(None, description="value at `until` and after it; needed unless constant")
    begin: float = Field(0.0, ge=0, le=1, description="share of the run after which the value begins to move")
    until: float = Field(1.0, gt=0, le=1, description="share of the run at which `end` is reached")

    @model_validator(mode="after")
    def _check(self) -> Schedule:
        if self.kind != "constant" and self.end is None:
            raise ValueError(f"a {self.kind} schedule needs `end`")
        if self.kind == "geometric" and (self.start <= 0 or (self.end or 0) <= 0):
            raise ValueError(f"a geometric schedule needs start and end above 0, not {self.start} and {self.end}")
        if self.begin >= self.until:
            raise ValueError(f"begin is {self.begin} and until {self.until}: begin must be the smaller")
        return self

    def at(self, progress: float) -> float:
        """The value when this share of the run is done."""
        if self.kind == "constant" or self.end is None:
            return self.start
        share = min(max((progress - self.begin) / (self.until - self.begin), 0.0), 1.0)
        match self.kind:
            case "linear":
                return self.start + (self.end - self.start) * share
            case "geometric":
                return self.start * math.exp(share * math.log(self.end / self.start))
            case "cosine":
                return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * share))
