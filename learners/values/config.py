"""How values are represented: which head, over which bins."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from ..settings import Settings, may_change_on_resume


def _number_or_auto(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Pydantic would complain of each member of the union; one complaint, of the one that was meant, is enough."""
    if isinstance(value, str) and value != "auto":
        raise ValueError(f"{value!r} is neither a number nor auto")
    try:
        return check(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise PydanticCustomError("number", "{reason}", {"reason": first["msg"]}) from error


RangeEnd: TypeAlias = Annotated[float | Literal["auto"], WrapValidator(_number_or_auto)]
"""An end of the range: a number, or to be found from the first games."""


class RangeFromGames(Settings):
    """How ends of the range that are ``auto`` are found; see `learners.values.returns`."""

    episodes: int = Field(
        100, ge=1, description="first episodes that are looked at: offline games, or else games by the untrained policy"
    )
    margin: float = Field(0.1, ge=0, description="added beyond each end that is found, as a share of the width")


class ValueConfig(Settings):
    """The value head. One word, ``kind``, changes the loss of an experiment."""

    kind: Literal["hl_gauss", "two_hot", "c51", "mse", "mse_softmax"] = Field(
        "hl_gauss", description="what the head's output means and how its loss is made"
    )
    form: Literal["full", "dueling", "tilt"] = Field(
        "full",
        description="full: a linear map to bins for each action; dueling: what a state is worth, and what an action "
        "adds to it; tilt: one score per action tilts the state's distribution, cheap for thousands of actions",
    )
    stream_units: int | None = Field(
        None, ge=1, description="dueling: ReLU units of each of the two streams; None: both are linear"
    )
    noisy_sigma: float | None = Field(
        None,
        gt=0,
        description="full, dueling: learnt noise on the last layer's weights (Fortunato 2018, where it is 0.5), with "
        "which workers explore and updates learn; noise begins with this over the square root of the inputs",
    )
    preset: str | None = Field(
        None, description="named bins and range that other people's papers use; bins, vmin, vmax set here override it"
    )
    bins: int | None = Field(None, ge=2, description="number of bins; needed without a preset, unused by mse")
    vmin: RangeEnd | None = Field(
        None,
        description="lower end of the range, in units of return: outer edge of hl_gauss and mse_softmax, outer "
        "value of two_hot and c51; auto: found from the first games, once, before the run learns",
    )
    vmax: RangeEnd | None = Field(None, description="upper end of the range, as vmin")
    range_from_games: RangeFromGames = RangeFromGames()
    found_range: tuple[float | None, float | None] | None = may_change_on_resume(
        None, description="what auto came to as vmin and vmax; the run writes it into its config.yaml"
    )
    normalise_returns: bool = Field(
        False,
        description="divide targets by a running scale, so that one range and one temperature serve rewards of any "
        "size; vmin, vmax and actors.temperature are then in units of that scale, in which returns fill the range",
    )
    transform: Literal["none", "symlog", "symexp"] | None = Field(
        None,
        description="symlog, symexp: bins equally spaced in symlog(value), in which vmin and vmax are then given; "
        "symlog regresses there, symexp averages expanded values; unset takes the preset's",
    )
    sigma_ratio: float = Field(0.75, gt=0, description="HL-Gauss: standard deviation in bin widths")
    out_of_range: Literal["clamp", "error"] = Field(
        "clamp", description="what to do with targets outside the support; clamped ones are counted"
    )

    @model_validator(mode="after")
    def _check(self) -> ValueConfig:
        if self.noisy_sigma is not None and self.form == "tilt":
            raise ValueError(
                f"noisy_sigma is {self.noisy_sigma:g} and form tilt, whose scores have no noisy layer: set form to "
                "full or dueling, or noisy_sigma to null and actors.temperature above 0"
            )
        if self.normalise_returns and self.awaits_range:
            raise ValueError(
                "normalise_returns is true and an end of the range is auto: both fit returns and range to each "
                "other; set vmin and vmax to numbers, such as -1 and 1, or normalise_returns to false"
            )
        return self

    @property
    def awaits_range(self) -> bool:
        """Whether an end of the range is still to be found from the first games."""
        return self.kind != "mse" and self.found_range is None and "auto" in (self.vmin, self.vmax)

    def with_any_range(self) -> ValueConfig:
        """With some range, -1 to 1, for what does not hang on it: shapes, and which action is best."""
        return self.model_copy(update={"found_range": (-1.0, 1.0), "vmin": "auto", "vmax": "auto"})
