"""What is compared with what, and how each is tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from pydantic import Field, ValidationError, model_validator

from ...learners.settings import Settings
from ..config.files import ConfigError, load_config
from ..config.keys import nearest
from ..config.run import RunConfig

Loss: TypeAlias = Literal["hl_gauss", "two_hot", "c51", "mse_softmax", "mse"]
Mode: TypeAlias = Literal["offline", "online"]
"""``offline``: the data policy's games alone. ``online``: first those, then the learner's own."""
TableName: TypeAlias = Literal["tied", "untied"]

REFERENCE: Loss = "hl_gauss"
"""The loss that the others are compared with."""
LOSSES: tuple[Loss, ...] = get_args(Loss)
_UNTIED_LOSSES: tuple[Loss, ...] = ("hl_gauss", "two_hot", "mse")
_PRESETS: dict[TableName, str] = {"tied": "wordle-compare", "untied": "wordle-compare-untied"}
_QUICK_SHARE = 0.1

_SET_BY_COMPARISON = (
    ("value.kind", "choose losses with --loss"),
    ("seed", "choose how many there are with --seeds"),
    ("learner.learning_rate", "it is tuned"),
    ("learner.cql_weight", "it is tuned"),
    ("replay.returns", "c51 bootstraps, the others learn from whole games' returns"),
    ("name", "it is the preset's"),
)


class TableConfig(Settings):
    """One table: losses that learn under the same conditions."""

    losses: tuple[Loss, ...] = Field(min_length=1, description="hl_gauss, and those that are compared with it")
    modes: tuple[Mode, ...] = Field(min_length=1, description="offline alone; online: offline, then its own games")
    base: RunConfig = Field(description="what all runs have in common; the rest is set run by run")

    @model_validator(mode="after")
    def _check(self) -> TableConfig:
        if REFERENCE not in self.losses or len(set(self.losses)) < len(self.losses):
            raise ValueError(
                f"losses are {', '.join(self.losses)}: each must be there once, and {REFERENCE} among them, with which "
                "the others are compared"
            )
        base = self.base
        wanted = {
            "environment.kind": (base.environment.kind, "wordle"),
            "actors.pool": (base.actors.pool, "in_process"),
            "budget.updates set": (base.budget.updates is not None, True),
            "budget.seconds": (base.budget.seconds, None),
            "budget.env_steps": (base.budget.env_steps, None),
            "actors.updates_per_step set": (base.actors.updates_per_step is not None, True),
            "offline set": (base.offline is not None, True),
            "deterministic": (base.deterministic, False),
        }
        for name, (value, needed) in wanted.items():
            if value != needed:
                raise ValueError(f"{name} is {value}: in a comparison it must be {needed}, so that steps are equal")
        if "online" in self.modes and base.offline and base.offline.budget_share == 1:
            raise ValueError("offline.budget_share is 1: it must be below, for the runs that go on online")
        return self

    @property
    def updates(self) -> int:
        """Learner updates of every run at equal steps."""
        assert self.base.budget.updates is not None
        return self.base.budget.updates


class CompareConfig(Settings):
    """Everything that fixes a comparison."""

    tied: TableConfig | None = Field(description="weights shared by all letters")
    untied: TableConfig | None = Field(description="each letter with weights of its own, where learning is hard")
    offline_weights: tuple[float, ...] = Field(
        (0.1, 0.3, 1.0, 3.0, 10.0), min_length=1, description="of the conservative regulariser, tried offline alone"
    )
    online_weights: tuple[float, ...] = Field(
        (0.0, 0.3, 1.0, 3.0, 10.0),
        min_length=1,
        description="tried where own games follow: the weight at the beginning, from which it falls to 0 while offline",
    )
    learning_rates: tuple[float, ...] = Field(
        (1e-3, 5e-4, 2e-3), min_length=1, description="the first is used for all weights, the others for the best one"
    )
    tuning_seed: int = Field(1000, ge=0, description="of the runs that tune; none of the final ones")
    seeds: tuple[int, ...] = Field((0, 1, 2, 3, 4), min_length=2, description="of the final runs")
    time_tolerance: float = Field(
        0.05, gt=0, description="CPU time that may differ from hl_gauss's, as a share, before runs are made anew"
    )

    @model_validator(mode="after")
    def _check(self) -> CompareConfig:
        if not self.tables:
            raise ValueError("there is no table: leave tied, untied or both on")
        if self.tuning_seed in self.seeds:
            raise ValueError(f"tuning_seed {self.tuning_seed} is among the seeds: what was tuned on must not count")
        if len(self.offline_weights) != len(self.online_weights):
            raise ValueError("offline_weights and online_weights differ in number: all must have the same tries")
        return self

    @property
    def tables(self) -> dict[TableName, TableConfig]:
        """The tables that are on, by name."""
        tables: dict[TableName, TableConfig | None] = {"tied": self.tied, "untied": self.untied}
        return {name: table for name, table in tables.items() if table is not None}

    def weights(self, mode: Mode) -> tuple[float, ...]:
        """The regulariser's weights that are tried."""
        return self.offline_weights if mode == "offline" else self.online_weights


def load_comparison(
    overrides: Sequence[str] = (),
    *,
    losses: Sequence[str] = (),
    tables: Sequence[str] = (),
    seeds: int | None = None,
    quick: bool = False,
) -> CompareConfig:
    """The comparison that Isogon comes with, or a part of it.

    Args:
        overrides: ``a.b=value``, for the runs of both tables (presets wordle-compare and wordle-compare-untied).
        losses: those to compare; hl_gauss is always there. Empty: all.
        tables: ``tied``, ``untied``. Empty: both.
        seeds: how many seeds the final runs have, at least 2.
        quick: a tenth of the updates, fewer tries and two seeds, to see it work: nothing follows from its figures.

    Raises:
        ConfigError: an unknown loss or table, a key that the comparison sets itself, a config that does not fit.
    """
    _check_known("loss", losses, LOSSES)
    _check_known("table", tables, tuple(_PRESETS))
    for override in overrides:
        key = override.partition("=")[0].strip()
        for own, why in _SET_BY_COMPARISON:
            if key == own or key.startswith(f"{own}."):
                raise ConfigError(f"--set {override}: {own} is set by the comparison itself: {why}")
    chosen = tuple(loss for loss in LOSSES if not losses or loss in losses or loss == REFERENCE)
    if seeds is not None and seeds < 2:
        raise ConfigError(f"seeds is {seeds}: at least 2 are needed, to tell a difference from chance")
    untied = tuple(loss for loss in chosen if loss in _UNTIED_LOSSES)
    wanted = tables or tuple(_PRESETS)
    try:
        given: dict[str, TableConfig | None] = {
            "tied": TableConfig(losses=chosen, modes=("offline", "online"), base=_base("tied", overrides, quick))
            if "tied" in wanted
            else None,
            "untied": TableConfig(losses=untied, modes=("offline",), base=_base("untied", overrides, quick))
            if "untied" in wanted
            else None,
        }
        rest = _quick_settings() if quick else {}
        if seeds is not None:
            rest["seeds"] = tuple(range(seeds))
        return CompareConfig.model_validate({**given, **rest})
    except ValidationError as error:
        problems = [one["msg"].removeprefix("Value error, ") for one in error.errors()]
        raise ConfigError("\n".join(problems)) from error


def _quick_settings() -> dict[str, tuple[float, ...]]:
    return {
        "offline_weights": (0.3, 1.0, 3.0),
        "online_weights": (0.0, 1.0, 3.0),
        "learning_rates": (1e-3,),
        "seeds": (0, 1),
    }


def _base(table: TableName, overrides: Sequence[str], quick: bool) -> RunConfig:
    preset = _PRESETS[table]
    if not quick:
        return load_config(preset, overrides)
    updates = load_config(preset).budget.updates or 0
    return load_config(preset, [f"budget.updates={round(updates * _QUICK_SHARE)}", *overrides])


def _check_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            meant = nearest(name, known)
            hint = f"did you mean {meant}? There are" if meant else "there are"
            raise ConfigError(f"unknown {what} {name}: {hint} {', '.join(known)}")
