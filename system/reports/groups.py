"""Runs that are repetitions of each other, and what tells one group of them from another."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..config.problems import shown
from ..evaluation import FOUND, MAY_DIFFER
from .run_data import RunData

_MOST_KEYS = 3


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one config but for what may differ between repetitions.

    Attributes:
        label: what a reader calls it: the preset, or what it has that other groups have not.
        runs: at least one.
        style: its number among those that play the same, for colours.
    """

    label: str
    runs: tuple[RunData, ...]
    style: int

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of its first run, complete where this version understands them."""
        return complete_settings(self.runs[0])

    @property
    def environment(self) -> Mapping[str, Any]:
        """The settings of what its runs play."""
        environment = self.settings.get("environment")
        return environment if isinstance(environment, Mapping) else {}

    @property
    def task(self) -> str:
        """What its runs play, in a word."""
        kind = str(self.environment.get("kind", "unknown"))
        return str(self.environment.get("id", self.environment.get("game", kind.capitalize())))

    @property
    def done(self) -> list[RunData]:
        """Its runs that came to their end."""
        return [run for run in self.runs if run.state == "done"]


def complete_settings(run: RunData) -> Mapping[str, Any]:
    """A run's settings with every default, or as they stand where this version does not understand them."""
    return run.settings if run.config is None else run.config.model_dump(mode="json")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key, as ``--set`` takes them."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def group_runs(runs: Sequence[RunData]) -> list[Group]:
    """The runs in groups, in the order of their first ones."""
    together: dict[str, list[RunData]] = {}
    for run in runs:
        kept = {key: value for key, value in flatten(complete_settings(run)).items() if not _may_differ(key)}
        together.setdefault(json.dumps(kept, sort_keys=True, default=str), []).append(run)
    members = [tuple(same) for same in together.values()]
    flat = [flatten(complete_settings(same[0])) for same in members]
    labels = distinct_labels([str(one.get("name", "run")) for one in flat], flat, _may_differ)
    if len(set(labels)) < len(labels):
        labels = [f"{label} ({same[0].name})" for label, same in zip(labels, members, strict=True)]
    groups = [Group(label, same, 0) for label, same in zip(labels, members, strict=True)]
    styles = {id(group): style for task in by_task(groups) for style, group in enumerate(task)}
    return [replace(group, style=styles[id(group)]) for group in groups]


def _may_differ(key: str) -> bool:
    section, _, name = key.partition(".")
    return section in MAY_DIFFER or name in FOUND.get(section, ())


def by_task(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups that play the same, beside each other: their returns can be compared."""
    tasks: dict[str, list[Group]] = {}
    for group in groups:
        tasks.setdefault(json.dumps(group.environment, sort_keys=True, default=str), []).append(group)
    return list(tasks.values())


def distinct_labels(
    names: Sequence[str], settings: Sequence[Mapping[str, Any]], may_differ: Callable[[str], bool]
) -> list[str]:
    """Each name, with what it has that others of that name have not.

    Args:
        names: what a reader would call them, were each the only one.
        settings: theirs, as of `flatten`.
        may_differ: whether a key tells nothing.
    """
    labels = []
    for name, one in zip(names, settings, strict=True):
        namesakes = [other for other, its in zip(settings, names, strict=True) if its == name]
        telling = [
            f"{key} {value if isinstance(value, str) else shown(value)}"
            for key, value in one.items()
            if not may_differ(key) and any(other.get(key) != value for other in namesakes)
        ]
        labels.append(", ".join([name, *telling[:_MOST_KEYS]]))
    return labels
