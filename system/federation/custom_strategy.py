"""A scheduler of one's own: checked when it is made, and told apart from Isogon's where it raises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...learners.plugins import Plugin
from ...schedulers.events import Command, Event, ReplayableScheduler, Token
from ...schedulers.federated import FederatedScheduler, Silence
from .strategies import CustomStrategyConfig


def build_custom_strategy(
    config: CustomStrategyConfig, *, attempt: int, silence: Silence | None
) -> ReplayableScheduler:
    """Make it, as ``Class(attempt, silence=silence, **kwargs)``.

    Raises:
        PluginError: it cannot be made, is no `FederatedScheduler`, or lacks a name or a hook that it must have.
    """
    plugin = Plugin("strategy", config.class_)
    made = plugin.make(attempt, silence=silence, **config.kwargs)
    if not isinstance(made, FederatedScheduler):
        raise plugin.error(
            f"it gave a {type(made).__name__}, expected a subclass of isogon.schedulers.federated.FederatedScheduler"
        )
    for hook in ("on_ready", "on_result"):
        if getattr(type(made), hook) is getattr(FederatedScheduler, hook):
            raise plugin.error(f"it lacks the method {hook}: it says who works when")
    if not isinstance(getattr(made, "name", None), str):
        raise plugin.error("it lacks a name: give the class one, as in name = 'mine', which checkpoints carry")
    return _Guarded(plugin, made)


class _Guarded:
    """A scheduler of own code: whatever it raises is a PluginError that names its file and line."""

    def __init__(self, plugin: Plugin, scheduler: FederatedScheduler) -> None:
        self._plugin = plugin
        self._scheduler = scheduler

    def handle(self, event: Event) -> list[Command]:
        with self._plugin.running(f"what it does of {type(event).__name__}"):
            return self._scheduler.handle(event)

    def state_dict(self) -> dict[str, Any]:
        with self._plugin.running("state_dict"):
            return self._scheduler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with self._plugin.running("load_state_dict"):
            self._scheduler.load_state_dict(state)

    def restore(self, state: Mapping[str, Any]) -> None:
        with self._plugin.running("restore"):
            self._scheduler.restore(state)

    def waiting_tokens(self) -> list[Token]:
        return self._scheduler.waiting_tokens()

    def check_valid(self) -> None:
        self._scheduler.check_valid()
