"""Named bins and ranges that other people's papers and code use, and how a config becomes a `Support`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ...kernels import Support
from .config import ValueConfig


@dataclass(frozen=True)
class ValuePreset:
    """Bins and range as a paper or its code has them.

    Attributes:
        kind: the kind that they were published with. Another may be used: bins, range and transform stay, and the
            range names what that kind's ranges name.
        bins: number of bins.
        anchor: what the range names, see `Support`.
        source: where they come from.
        meaning: what the range stands for.
        vmin: lower end of the range, in symlog units under a transform; None if each environment has its own.
        vmax: upper end of the range.
        transform: see `Support`.
    """

    kind: Literal["hl_gauss", "two_hot", "c51"]
    bins: int
    anchor: Literal["edges", "atoms"]
    source: str
    meaning: str
    vmin: float | None = None
    vmax: float | None = None
    transform: Literal["symlog", "symexp"] | None = None


VALUE_PRESETS: Mapping[str, ValuePreset] = MappingProxyType(
    {
        "stop_regressing": ValuePreset(
            kind="hl_gauss",
            bins=51,
            vmin=-10.0,
            vmax=10.0,
            anchor="edges",
            source="Farebrother et al. 2024 (Stop Regressing); dopamine, labs/offline_rl",
            meaning="discounted return of clipped Atari rewards",
        ),
        "searchless_chess": ValuePreset(
            kind="hl_gauss",
            bins=128,
            vmin=0.0,
            vmax=1.0,
            anchor="edges",
            source="Ruoss et al. 2024 (Amortized planning with large-scale transformers); searchless_chess",
            meaning="probability of winning for the side to move",
        ),
        "catgpt": ValuePreset(
            kind="hl_gauss",
            bins=81,
            vmin=0.0,
            vmax=1.0,
            anchor="edges",
            source="CatGPT, a chess engine without search",
            meaning="probability of winning for the side to move",
        ),
        "reppo": ValuePreset(
            kind="hl_gauss",
            bins=151,
            anchor="atoms",
            source="REPPO (relative entropy pathwise policy optimization)",
            meaning="return of the environment at hand: vmin and vmax must be set; they name the outermost centres",
        ),
        "tdmpc2": ValuePreset(
            kind="two_hot",
            bins=101,
            vmin=-10.0,
            vmax=10.0,
            anchor="atoms",
            transform="symlog",
            source="Hansen et al. 2024 (TD-MPC2)",
            meaning="symlog of the return, regressed in symlog units: values up to 2.2e4",
        ),
        "dreamerv3": ValuePreset(
            kind="two_hot",
            bins=255,
            vmin=-20.0,
            vmax=20.0,
            anchor="atoms",
            transform="symexp",
            source="Hafner et al. 2025 (DreamerV3)",
            meaning="return over exponentially spaced bins, mirrored around 0: values up to 4.9e8",
        ),
        "mrq_reward": ValuePreset(
            kind="two_hot",
            bins=65,
            vmin=-10.0,
            vmax=10.0,
            anchor="atoms",
            transform="symexp",
            source="Fujimoto et al. 2025 (MR.Q)",
            meaning="one step's reward over exponentially spaced bins: values up to 2.2e4",
        ),
        "simbav2": ValuePreset(
            kind="c51",
            bins=101,
            vmin=-5.0,
            vmax=5.0,
            anchor="atoms",
            source="Lee et al. 2025 (SimbaV2); XQC has the same",
            meaning="return of rewards that were normalised by a running scale",
        ),
        "fasttd3": ValuePreset(
            kind="c51",
            bins=101,
            vmin=-250.0,
            vmax=250.0,
            anchor="atoms",
            source="Seo et al. 2025 (FastTD3)",
            meaning="return of a humanoid's dense rewards",
        ),
    }
)


def support_of(config: ValueConfig) -> Support | None:
    """The bins that a config asks for: its preset's, with what is set in the config itself put over them.

    Two-hot and C51 anchor their range at the outermost centres. HL-Gauss and the softmax-with-MSE ablation anchor it at
    the outermost edges, unless an HL-Gauss preset was published otherwise.

    Returns:
        The support, or None for mse.

    Raises:
        ValueError: the preset is unknown (the nearest name is offered), bins, vmin or vmax are missing or not found
            yet, they make no `Support`, or one that returns cannot be normalised for.
    """
    preset = _preset(config.preset)
    if config.kind == "mse":
        return None
    if config.awaits_range:
        raise ValueError("value.vmin or value.vmax is auto and not found yet: a run finds it from its first games")
    found = config.found_range or (None, None)
    own_vmin, own_vmax = (
        at if end == "auto" else end for end, at in zip((config.vmin, config.vmax), found, strict=True)
    )
    bins = config.bins if config.bins is not None or preset is None else preset.bins
    vmin = own_vmin if own_vmin is not None or preset is None else preset.vmin
    vmax = own_vmax if own_vmax is not None or preset is None else preset.vmax
    if bins is None or vmin is None or vmax is None:
        missing = [name for name, value in (("bins", bins), ("vmin", vmin), ("vmax", vmax)) if value is None]
        remedy = (
            f"preset {config.preset!r} leaves the range to the environment: {preset.meaning}"
            if preset
            else f"set them, or a preset (one of {', '.join(VALUE_PRESETS)})"
        )
        raise ValueError(f"value.kind is {config.kind!r} and {', '.join(missing)} not set: {remedy}")
    support = Support(
        vmin=vmin,
        vmax=vmax,
        bins=bins,
        sigma_ratio=config.sigma_ratio,
        anchor=_anchor(config, preset),
        transform=_transform(config, preset),
    )
    if config.normalise_returns:
        _check_normalisable(support)
    return support


def check_range(config: ValueConfig) -> None:
    """What can be known of a config's bins before its range is found. Raises ValueError as `support_of`."""
    if config.awaits_range:
        # A grid that any transform can expand.
        config = config.model_copy(update={"found_range": (-1.0, 1.0), "vmin": "auto", "vmax": "auto"})
    support_of(config)


def _check_normalisable(support: Support) -> None:
    if support.transform:
        raise ValueError(
            f"value.normalise_returns is true and the transform {support.transform}: bins spaced so serve returns of "
            "any size already; set normalise_returns to false or transform to none"
        )
    if not support.lowest <= 0 <= support.highest:
        raise ValueError(
            f"value.normalise_returns is true and the range is {support.lowest:g} to {support.highest:g}: returns are "
            "only scaled, not shifted, so 0 must be in it; -1 to 1 will do"
        )


def _preset(name: str | None) -> ValuePreset | None:
    if name is None:
        return None
    if name not in VALUE_PRESETS:
        nearest = difflib.get_close_matches(name, VALUE_PRESETS, n=1, cutoff=0.0)[0]
        raise ValueError(f"value.preset is {name!r}: did you mean {nearest!r}? There are {', '.join(VALUE_PRESETS)}")
    return VALUE_PRESETS[name]


def _anchor(config: ValueConfig, preset: ValuePreset | None) -> Literal["edges", "atoms"]:
    if config.kind in ("two_hot", "c51"):
        return "atoms"
    return preset.anchor if preset and preset.kind == "hl_gauss" else "edges"


def _transform(config: ValueConfig, preset: ValuePreset | None) -> Literal["symlog", "symexp"] | None:
    if config.transform is None:
        return preset.transform if preset else None
    return None if config.transform == "none" else config.transform
