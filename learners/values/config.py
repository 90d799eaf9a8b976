"""How values are represented: which head, over which bins."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..settings import Settings


class ValueConfig(Settings):
    """The value head. One word, ``kind``, changes the loss of an experiment."""

    kind: Literal["hl_gauss", "two_hot", "c51", "mse", "mse_softmax"] = Field(
        "hl_gauss", description="what the head's output means and how its loss is made"
    )
    form: Literal["full", "tilt"] = Field(
        "full",
        description="full: a linear map to bins for each action; tilt: one score per action tilts the state's "
        "distribution, cheap for thousands of actions",
    )
    preset: str | None = Field(
        None, description="named bins and range that other people's papers use; bins, vmin, vmax set here override it"
    )
    bins: int | None = Field(None, ge=2, description="number of bins; needed without a preset, unused by mse")
    vmin: float | None = Field(
        None,
        description="lower end of the range, in units of return: outer edge of hl_gauss and mse_softmax, outer "
        "value of two_hot and c51",
    )
    vmax: float | None = Field(None, description="upper end of the range, as vmin")
    transform: Literal["none", "symlog", "symexp"] | None = Field(
        None,
        description="symlog, symexp: bins equally spaced in symlog(value), in which vmin and vmax are then given; "
        "symlog regresses there, symexp averages expanded values; unset takes the preset's",
    )
    sigma_ratio: float = Field(0.75, gt=0, description="HL-Gauss: standard deviation in bin widths")
    out_of_range: Literal["clamp", "error"] = Field(
        "clamp", description="what to do with targets outside the support; clamped ones are counted"
    )
