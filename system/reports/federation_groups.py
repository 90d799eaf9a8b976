"""Federations that are repetitions of each other, and what tells one group of them from another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .federation_data import FederationRun
from .groups import distinct_labels, flatten

_MAY_DIFFER = ("seed", "ray", "metrics", "torch_threads", "simulation")
"""Parts of a config that say nothing of what is compared."""


@dataclass(frozen=True, eq=False)
class FederationGroup:
    """Runs of one config but for what may differ between repetitions.

    Attributes:
        label: what a reader calls it: the strategy, ``<client> alone``, or what it has that other groups have not.
        runs: at least one.
        style: its number, for colours.
    """

    label: str
    runs: tuple[FederationRun, ...]
    style: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of its first run."""
        return self.runs[0].settings

    @property
    def target(self) -> float | None:
        """Score whose time is told; None where there is none."""
        target = _section(self.settings, "budget").get("target")
        return float(target) if isinstance(target, int | float) else None


def group_federations(runs: Sequence[FederationRun]) -> list[FederationGroup]:
    """The runs in groups, in the order of their first ones."""
    together: dict[str, list[FederationRun]] = {}
    for run in runs:
        kept = {key: value for key, value in flatten(run.settings).items() if not _may_differ(key)}
        together.setdefault(json.dumps(kept, sort_keys=True, default=str), []).append(run)
    members = [tuple(same) for same in together.values()]
    settings = [same[0].settings for same in members]
    labels = distinct_labels(list(map(_name, settings)), list(map(flatten, settings)), _may_differ)
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({same[0].name})" for label, same in zip(labels, members, strict=True)]
    return [
        FederationGroup(label, same, style) for style, (label, same) in enumerate(zip(labels, members, strict=True))
    ]


def _may_differ(key: str) -> bool:
    return key.partition(".")[0] in _MAY_DIFFER


def _name(settings: Mapping[str, Any]) -> str:
    if (alone := _only_client(settings)) is not None:
        return f"{alone} alone"
    strategy = settings.get("strategy")
    return str(strategy.get("kind", "strategy")) if isinstance(strategy, Mapping) else str(strategy)


def _only_client(settings: Mapping[str, Any]) -> str | None:
    participants, groups = settings.get("participants"), settings.get("clients")
    if isinstance(participants, list):
        return str(participants[0]) if len(participants) == 1 else None
    if not isinstance(groups, list) or len(groups) != 1 or not isinstance(groups[0], Mapping):
        return None
    return str(groups[0].get("name", "client")) if groups[0].get("count", 1) == 1 else None


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = settings.get(name)
    return section if isinstance(section, Mapping) else {}
