"""Federations of a few clients on a real run directory, in set time; and what must be true of one that has ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isogon.actors.federation.worker import ClientWorker
from isogon.actors.pools.contract import PoolEvent
from isogon.actors.work import WorkDoer
from isogon.system.callbacks import Callback
from isogon.system.coordinate import Committed
from isogon.system.federation import attempt as attempts
from isogon.system.federation.attempt import FederationAttempt, Outcome
from isogon.system.federation.builder import silos
from isogon.system.federation.config import FederationConfig
from isogon.system.federation.server import FederationServer
from isogon.system.federation.span_log import read_spans
from isogon.system.federation.timeline import Span
from isogon.system.runs.attempts import Attempt
from isogon.system.runs.directory import RunDirectory

from ..actors.regression import FEATURES, Regression
from .timed_pool import Deeds, SetClock, TimedPool

FSYNC = os.fsync
SPEEDS = {"a": 0.1, "b": 0.13, "c": 0.31}
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedcompass": {"kind": "fedcompass", "q_min": 2, "q_max": 8},
    "fedbuff": {"kind": "fedbuff", "steps": 4, "buffer": 2, "optimiser": {"kind": "momentum", "momentum": 0.5}},
    "fedavg": {"kind": "fedavg", "steps": 4},
}


def federation_config(strategy: Mapping[str, Any] = STRATEGIES["fedcompass"], **changes: Any) -> FederationConfig:
    """Of as many clients as there are `SPEEDS`; the task is given beside it."""
    settings: dict[str, Any] = {
        "name": "regression",
        "task": {"kind": "classifier"},
        "clients": [{"name": name} for name in SPEEDS],
        "strategy": strategy,
        "budget": {"versions": 4},
        "pool": "in_process",
    }
    return FederationConfig.model_validate({**settings, **changes})


@dataclass
class Said(Callback):
    """What was told in words."""

    lines: list[str] = field(default_factory=list)

    def on_message(self, text: str) -> None:
        self.lines.append(text)

    def one(self, part: str) -> str:
        """The one line that has this in it."""
        (line,) = [line for line in self.lines if part in line]
        return line


class CheckedServer(FederationServer):
    """Its ledger is valid after each step."""

    def _take_in(self, committed: list[Committed]) -> None:
        self.coordinator.check_valid()
        super()._take_in(committed)


@dataclass
class Federation:
    """One federation on a run directory, attempt after attempt, each with a `TimedPool`.

    Attributes:
        path: of the run directory.
        config: of the federation.
        task: what it works on.
        deeds: of all its clients in all attempts.
        script: events beside the pool's own, for the next attempt.
        pool: makes the pool.
        said: what was told, in all attempts.
    """

    path: Path
    config: FederationConfig = field(default_factory=federation_config)
    task: Regression = field(default_factory=Regression)
    deeds: Deeds = field(default_factory=Deeds)
    script: Sequence[PoolEvent] = ()
    pool: Callable[..., TimedPool] = TimedPool
    said: Said = field(default_factory=Said)

    def run(self) -> Outcome:
        """Begin it, or take it up where it is, and work to the end."""
        there = (self.path / "config.yaml").exists()
        directory = RunDirectory.open(self.path) if there else RunDirectory.create(self.path)
        with directory.hold(), pytest.MonkeyPatch.context() as patch:
            checkpoint = directory.latest_checkpoint(self.said.on_message)
            if not there:
                directory.write_config(self.config.model_dump(mode="json"))
            attempt = directory.claim_attempt(checkpoint.ref if checkpoint else None)
            # Flushing takes longer than all the rest, and says nothing while the machine is not switched off.
            if os.fsync is FSYNC:
                patch.setattr(os, "fsync", lambda descriptor: None)
            patch.setattr(attempts, "build_pool", self._make_pool)
            patch.setattr(attempts, "FederationServer", CheckedServer)
            return self._attempt(directory, attempt).run(checkpoint)

    def _attempt(self, directory: RunDirectory, attempt: Attempt) -> FederationAttempt:
        clock: Any = SetClock()
        self.clock = clock
        return FederationAttempt(self.config, self.task, directory, attempt, [self.said], clock)

    def _make_pool(self, *_: Any) -> TimedPool:
        makers: dict[str, Callable[[], WorkDoer]] = {
            silo.name: partial(ClientWorker, self.task, silo) for silo in silos(self.config)
        }
        script = [replace(event, time=event.time + self.clock.base) for event in self.script]
        return self.pool(makers, SPEEDS, self.clock, self.deeds, script)

    def spans(self) -> dict[str, Span]:
        """All pieces that ended, by token."""
        spans, notes = read_spans(RunDirectory.open(self.path))
        assert not notes
        assert len({span.token for span in spans}) == len(spans)
        return {span.token: span for span in spans}


def check_ended(
    federation: Federation, outcome: Outcome, kept: Sequence[str] = (), may_drop: Sequence[str] = ("the run ends",)
) -> dict[str, Span]:
    """Assert all that must be true of a federation that has ended, from what is on the disk and what its clients did.

    Args:
        federation: the one.
        outcome: of its last attempt.
        kept: tokens whose updates were acknowledged before it was killed.
        may_drop: how the reasons begin for which such an update may be dropped.

    Returns:
        All pieces that ended, by token.
    """
    spans, updates = federation.spans(), federation.deeds.updates
    applied = {token: span for token, span in spans.items() if span.outcome == "applied"}
    for token in kept:
        if token in updates:
            assert token in spans, f"{token} was acknowledged and is forgotten"
            reason = spans[token].reason
            assert token in applied or reason.startswith(tuple(may_drop)), f"{token} was acknowledged; {reason}"
    np.testing.assert_allclose(outcome.model["weight"], recomputed(federation, applied), rtol=1e-12, atol=1e-15)
    assert outcome.model["seen"] == max(updates[token]["seen"] for token in applied)
    assert all(span.arrived is not None and span.weight > 0 for span in applied.values())
    assert all(span.reason for span in spans.values() if span.outcome == "dropped")
    made = {span.version + span.staleness + 1 for span in applied.values()}
    assert made == set(range(2, outcome.standing.version + 1)), "a version is not a commit"
    assert outcome.standing.updates == len(applied)
    assert outcome.standing.local_steps == sum(span.amount for span in applied.values())
    clients = outcome.totals.clients.values()
    assert sum(client.applied for client in clients) == len(applied)
    assert sum(client.dropped for client in clients) == len(spans) - len(applied)
    assert not list(federation.path.glob("spool/*.update*"))
    assert len(list(federation.path.glob("journal/*"))) == 1
    assert not list(federation.path.rglob("*.tmp"))
    return spans


def recomputed(federation: Federation, applied: Mapping[str, Span]) -> np.ndarray:
    """The model's weight, from what the clients did and with which weights it was applied, commit by commit."""
    momentum = getattr(federation.config.strategy.optimiser, "momentum", 0.0)
    commits: dict[int, list[str]] = {}
    for token, span in applied.items():
        commits.setdefault(span.version + span.staleness, []).append(token)
    weight, velocity = federation.task.initial_model()["weight"], np.zeros(FEATURES)
    for version in sorted(commits):
        changes = [applied[token].weight * federation.deeds.updates[token]["weight"] for token in commits[version]]
        velocity = momentum * velocity + sum(changes)
        weight = weight + velocity
    return np.asarray(weight)
