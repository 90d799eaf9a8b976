"""A strategy of one's own: what it must have, and what is said where it raises."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isogon.learners.plugins import PluginError
from isogon.schedulers.events import Joined, Published, ReplayableScheduler
from isogon.schedulers.federated import FederatedScheduler, Silence
from isogon.system.federation.custom_strategy import build_custom_strategy
from isogon.system.federation.strategies import CustomStrategyConfig

SOURCE = """
from isogon.schedulers.federated import FederatedScheduler


class Whole(FederatedScheduler):
    name = "whole"
    def __init__(self, attempt, *, steps=5, **books):
        super().__init__(attempt, **books)
        self.steps = steps
    def on_ready(self, client): self.give(client, self.steps)
    def on_result(self, client, result, piece): self.commit([(result, 1.0)])

class Nameless(Whole):
    name = None

class Idle(FederatedScheduler):
    name = "idle"
    def on_ready(self, client): pass

class Raises(Whole):
    def on_ready(self, client):
        1 / 0

class Greedy(Whole):
    def on_ready(self, client):
        self.give(client, 1)
        self.give(client, 1)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "own_strategies.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield "own_strategies"
    sys.modules.pop("own_strategies", None)


def build(module: str, name: str, **kwargs: int) -> ReplayableScheduler:
    config = CustomStrategyConfig(class_=f"{module}:{name}", kwargs=kwargs)
    return build_custom_strategy(config, attempt=1, silence=Silence())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Nameless", "it lacks a name"),
        ("Idle", "it lacks the method on_result"),
        ("Whol", "did you mean Whole"),
        ("FederatedScheduler", "it lacks the method on_ready"),
    ],
)
def test_what_it_must_have(own: str, name: str, says: str) -> None:
    with pytest.raises(PluginError, match=says):
        build(own, name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Raises", r"of Published raised ZeroDivisionError: division by zero \(.*own_strategies.py:22\)"),
        ("Greedy", r"raised AssertionError: a is given work and is not free \(.*own_strategies.py:27\)"),
    ],
)
def test_what_it_raises_names_its_line(own: str, name: str, says: str) -> None:
    scheduler = build(own, name)
    scheduler.handle(Joined(0.0, "a", samples=1))
    with pytest.raises(PluginError, match=says):
        scheduler.handle(Published(0.0, 1))


def test_it_is_as_the_bare_one(own: str) -> None:
    guarded = build(own, "Whole", steps=7)
    bare: FederatedScheduler = importlib.import_module(own).Whole(1, steps=7, silence=Silence())
    for event in (Joined(0.0, "a", samples=3), Published(0.5, 1)):
        assert guarded.handle(event) == bare.handle(event)
    assert guarded.state_dict() == bare.state_dict()
    resumed = build(own, "Whole", steps=7)
    resumed.restore(guarded.state_dict())
    assert resumed.state_dict() == bare.state_dict()
    assert resumed.waiting_tokens() == []
    resumed.check_valid()
