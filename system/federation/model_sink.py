"""Where clients' updates go: into a spool as they arrive, and into the global model when they are committed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...actors.federation.client import Model
from ...actors.work import PolicyState, Update, WorkResult
from ...schedulers.aggregation import AverageKind, ServerRule, check_kinds, check_layout, check_update
from ...schedulers.events import Arrived, Token
from ..coordinate import CommitRefused, ResultRefused
from ..runs.checkpoints import CheckpointInvalid
from .spool import Spool, SpoolEntry

_SPOOLED = ("kind", "version", "amount", "samples", "compute_seconds", "stats", "stream", "first_step")
"""What is kept beside an update, to tell of it again."""


@dataclass(frozen=True)
class ClientScores:
    """What a client's evaluation of a version came to, ``score`` among them, and the samples it speaks for."""

    worker: str
    version: int
    samples: float
    scores: dict[str, float]


class GlobalModelSink:
    """A `Sink` before a global model.

    An update is checked whole and spooled before anybody is told of it; in memory only its name stays, so that what
    waits for a commit costs disk, not memory. A commit reads updates one after another, in token order.

    Args:
        model: at its beginning.
        kinds: how each of its tensors averages.
        rule: makes the next model of a commit.
        spool: where updates wait.
        most_norm: Euclidean norm of an update's trained part above which it is refused; None: any finite one is taken.

    Attributes:
        model: the newest.
        version: of it, from 1.
        evaluations: clients' scores that nobody has taken yet.
    """

    def __init__(
        self,
        model: Model,
        kinds: Mapping[str, AverageKind],
        rule: ServerRule,
        spool: Spool,
        *,
        most_norm: float | None = None,
    ) -> None:
        check_kinds(model, kinds)
        self.model = _read_only({name: np.array(part) for name, part in model.items()})
        self.version = 1
        self.evaluations: list[ClientScores] = []
        self._kinds = kinds
        self._rule = rule
        self._spool = spool
        self._most_norm = most_norm
        self._entries: dict[Token, SpoolEntry] = {}
        self._committed: list[SpoolEntry] = []

    def admit(self, result: WorkResult, arrived: Arrived) -> WorkResult:
        """Check a result and spool it. Gives the result without its payload, or an evaluation as it is.

        Raises:
            ResultRefused: other names, shapes or dtypes than the model's, a number that is not finite, too large a
                norm, figures that are no numbers.
            OSError: it could not be spooled.
        """
        if result.kind == "evaluate":
            if bad := [name for name, value in result.payload.items() if not np.isfinite(value).all()]:
                raise ResultRefused(f"the evaluation's {bad[0]} is not finite")
            return result
        try:
            check_update(result.payload, self.model, self._kinds)
        except ValueError as error:
            raise ResultRefused(str(error)) from error
        self._check_norm(result.payload)
        light = replace(result, payload={}, stats=_finite(result.stats))
        meta = {name: getattr(light, name) for name in _SPOOLED}
        try:
            self._entries[result.token] = self._spool.put(result.token, meta, result.payload)
        except ValueError as error:
            raise ResultRefused(str(error)) from error
        return light

    def commit(self, entries: list[tuple[WorkResult, float]]) -> PolicyState | None:
        """Apply updates, or note evaluations. None of the latter changes the model.

        Raises:
            CommitRefused: the rule cannot apply these, what comes of them is not finite, or one cannot be read any
                more.
        """
        if entries and entries[0][0].kind == "evaluate":
            for result, weight in entries:
                scores = {name: float(value[0]) for name, value in result.payload.items()}
                self.evaluations.append(ClientScores(result.token.worker, result.version, weight, scores))
            return None
        if entries:
            try:
                self.model = _read_only(self._rule.apply(self.model, self._updates(entries), self._kinds))
            except CommitRefused:
                raise
            except ValueError as error:
                raise CommitRefused(str(error)) from error
            self._committed += [self._entries.pop(result.token) for result, _ in entries]
        self.version += 1
        return self.state()

    def discard(self, result: WorkResult) -> None:
        """Forget an update that will not be applied."""
        if (entry := self._entries.pop(result.token, None)) is not None:
            self._spool.remove(entry)

    def forget_committed(self) -> None:
        """Take what was committed out of the spool: a checkpoint holds it now."""
        committed, self._committed = self._committed, []
        self._spool.remove(*committed)

    def recover(self) -> dict[Token, WorkResult]:
        """Results that an earlier process admitted and did not commit, by token."""
        results = {}
        for entry in self._spool.entries():
            self._entries[entry.token] = entry
            results[entry.token] = WorkResult(token=entry.token, payload={}, **entry.meta)
        return results

    def state(self) -> PolicyState:
        """The newest version, as clients are given it."""
        return PolicyState(self.version, self.model)

    def state_dict(self) -> dict[str, Any]:
        """Model, version and the rule's state."""
        return {"version": self.version, "model": dict(self.model), "rule": self._rule.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state. Raises CheckpointInvalid where it is of another model."""
        model = {name: np.asarray(part) for name, part in state["model"].items()}
        try:
            check_layout(model, self.model)
        except ValueError as error:
            raise CheckpointInvalid(f"the checkpoint's model does not fit the config: {error}") from error
        self.model, self.version = _read_only(model), int(state["version"])
        self._rule.load_state_dict(state["rule"])

    def _updates(self, entries: list[tuple[WorkResult, float]]) -> Iterator[tuple[Update, float]]:
        for result, weight in entries:
            try:
                update = self._spool.load(self._entries[result.token])
            except (ValueError, OSError) as error:
                raise CommitRefused(f"{result.token} cannot be read: {error}", [result.token]) from error
            yield update, weight
            del update  # Else it would stay in memory beside the next one.

    def _check_norm(self, update: Mapping[str, np.ndarray]) -> None:
        if self._most_norm is None:
            return
        trained = (update[name].ravel() for name, kind in self._kinds.items() if kind == "mean")
        norm = float(np.sqrt(sum(float(np.vdot(part, part)) for part in trained)))
        if norm > self._most_norm:
            raise ResultRefused(
                f"the update's norm is {norm:.4g}: at most {self._most_norm:g} is taken (server.most_norm); "
                "lower the client's learning rate"
            )


def _finite(stats: Mapping[str, float]) -> dict[str, float]:
    """Figures without those that say nothing. Raises ResultRefused where one is no number."""
    try:
        plain = {str(name): float(value) for name, value in stats.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ResultRefused(f"its stats {stats!r:.80} are not numbers by name") from error
    return {name: value for name, value in plain.items() if math.isfinite(value)}


def _read_only(model: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays, which clients of this process are given as they are, and may not write into."""
    for part in model.values():
        part.flags.writeable = False
    return model
