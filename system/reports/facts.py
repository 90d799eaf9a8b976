"""What there is to know of a run beside its curves and results: how far it came, on which machine, with what range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...learners.values.presets import support_of
from ..metrics.recorder import ENV_STEPS, LEARNER_UPDATES, TARGETS, TARGETS_CLIPPED, TARGETS_CLIPPED_RATIO
from .curves import number
from .results import NOTHING, fixed, percent
from .run_data import RunData


@dataclass(frozen=True)
class Facts:
    """What else there is to know of a run, by name."""

    title: str
    style: int
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def facts_of(run: RunData, style: int) -> Facts:
    """What is known of a run; ``style`` is its group's."""
    last: Mapping[str, Any] = run.rows[-1] if run.rows else {}
    newest = run.attempts[-1] if run.attempts else None
    words = {"done": "done", "going": "still going", "stopped": "ended before its end"}
    facts = [
        ("seed", str(run.settings.get("seed", NOTHING))),
        ("state", words[run.state]),
        ("seconds of training", fixed(number(last, "seconds"), 1)),
        ("updates", fixed(number(last, LEARNER_UPDATES.name), 0)),
        ("environment steps", fixed(number(last, ENV_STEPS.name), 0)),
        ("range of values", _range(run)),
        ("targets clipped", percent(_share_clipped(run.rows))),
        ("targets clipped at last", percent(number(last, TARGETS_CLIPPED_RATIO.name))),
        ("attempts", str(len(run.attempts))),
    ]
    if newest is not None:
        facts += [
            ("began", run.attempts[0].started),
            ("host", newest.host),
            ("machine", newest.machine or NOTHING),
            ("versions", ", ".join(f"{name} {version}" for name, version in newest.versions.items())),
        ]
    known = tuple((name, value) for name, value in facts if value != NOTHING)
    return Facts(str(run.path), style, known, run.notes)


def _share_clipped(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Of all targets so far; None of a run that began under a version which counted the clipped ones alone."""
    last: Mapping[str, Any] = rows[-1] if rows else {}
    targets, clipped = number(last, TARGETS.name), number(last, TARGETS_CLIPPED.name)
    return clipped / targets if targets and clipped is not None and clipped <= targets else None


def _range(run: RunData) -> str:
    """In units of return, or of their scale where they are normalised, from the run's own config."""
    value = None if run.config is None else run.config.value
    support = None if value is None or value.awaits_range else support_of(value)
    if value is None or support is None:
        return NOTHING
    unit = " times the returns' scale" if value.normalise_returns else ""
    whence = ", from the first games" if value.found_range else ""
    return f"{support.lowest:g} to {support.highest:g}{unit}{whence}".replace("-", "−")
