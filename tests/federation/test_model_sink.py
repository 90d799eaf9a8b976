"""The way from updates to the global model: what a commit holds in memory."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest

from isogon.actors.work import Update, WorkResult
from isogon.learners.compression import layout_of
from isogon.schedulers.aggregation import Add, AveragedStep, AverageKind, Tensors, WeightedSum
from isogon.schedulers.events import Arrived, Token
from isogon.system.federation.model_sink import GlobalModelSink
from isogon.system.federation.spool import DiskSpool, SpoolEntry


class LetsGo(AveragedStep):
    """Has let go of each update when it asks for the next one."""

    def apply(
        self, model: Tensors, updates: Iterable[tuple[Tensors, float]], kinds: Mapping[str, AverageKind]
    ) -> dict[str, np.ndarray]:
        for update, _ in updates:
            del update
        return {name: np.array(part) for name, part in model.items()}


def test_a_commit_holds_no_update_that_its_rule_has_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[weakref.ref[np.ndarray]] = []
    alive: list[int] = []
    load = DiskSpool.load

    def watched(spool: DiskSpool, entry: SpoolEntry) -> Update:
        alive.append(sum(array() is not None for array in loaded))
        update = load(spool, entry)
        loaded.append(weakref.ref(update["w"]))
        return update

    monkeypatch.setattr(DiskSpool, "load", watched)
    model = {"w": np.zeros(4, np.float32)}
    spool = DiskSpool(tmp_path, layout_of(model), lambda path, error: None)
    sink = GlobalModelSink(model, {"w": "mean"}, LetsGo(WeightedSum(), Add()), spool)
    entries = []
    for number in range(3):
        token = Token(1, f"client-{number}", 1)
        result = WorkResult(token, "train", 1, 1, 1, {"w": np.ones(4, np.float32)}, 0.1)
        arrived = Arrived(0.0, token.worker, token, 1, 1, 1, 16, 0.1, 0.0)
        entries.append((sink.admit(result, arrived), 0.5))
    sink.commit(entries)
    assert alive == [0, 0, 0]
