"""Callbacks that may fail without the run: one that raises is left out from then on, and everyone is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...learners.plugins import Plugin, where_raised
from ..config.keys import nearest
from ..errors import log_details
from .contract import Callback, Progress

if TYPE_CHECKING:
    from ..config.run import CallbackConfig


def build_callbacks(configs: Sequence[CallbackConfig]) -> list[Callback]:
    """The callbacks that a config names. Raises PluginError where one cannot be made, or is no `Callback`."""
    callbacks: list[Callback] = []
    for index, config in enumerate(configs):
        plugin = Plugin(f"callbacks[{index}]", config.class_)
        callback = plugin.make(**config.kwargs)
        if not isinstance(callback, Callback):
            raise plugin.error(f"it gave a {type(callback).__name__}, expected a subclass of isogon.Callback")
        if wrong := _never_called(callback):
            raise plugin.error(wrong)
        callbacks.append(callback)
    return callbacks


def _never_called(callback: Callback) -> str | None:
    known = [name for name in dir(Callback) if name.startswith("on_")]
    for name in dir(callback):
        if name.startswith("on_") and name not in known:
            meant = nearest(name, known)
            return f"nothing calls its method {name}{f'; did you mean {meant}?' if meant else ''}"
    return None


class GuardedCallbacks(Callback):
    """Tells several callbacks, in their order.

    A run is worth more than what watches it: a callback that raises is left out from then on, the others are told so in
    one line, and the run goes on. One that is `Callback.required`, and ``KeyboardInterrupt``, end the run instead.

    Attributes:
        left_out: callbacks that raised, in words; for the summary.
        log: where tracebacks go, once there is a place.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        """Raises ValueError where a callback has a method ``on_...`` that nobody calls."""
        for callback in callbacks:
            if wrong := _never_called(callback):
                raise ValueError(f"callback {type(callback).__name__}: {wrong}")
        self._callbacks = list(callbacks)
        self.left_out: list[str] = []
        self.log: Path | None = None

    def on_start(self, config: Any, run_dir: Path, resumed_from: str | None) -> None:
        """Tell all."""
        self._tell("on_start", config, run_dir, resumed_from)

    def on_message(self, text: str) -> None:
        """Tell all."""
        self._tell("on_message", text)

    def on_progress(self, progress: Progress) -> None:
        """Tell all."""
        self._tell("on_progress", progress)

    def on_evaluation(self, progress: Progress, scores: Mapping[str, float]) -> None:
        """Tell all."""
        self._tell("on_evaluation", progress, scores)

    def on_checkpoint(self, path: Path) -> None:
        """Tell all."""
        self._tell("on_checkpoint", path)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Tell all."""
        self._tell("on_end", summary)

    def _tell(self, method: str, *arguments: Any) -> None:
        for callback in list(self._callbacks):
            try:
                getattr(callback, method)(*arguments)
            except (Exception, SystemExit) as error:
                # A subclass of SystemExit is a signal's, that came while the callback ran.
                if callback.required or (isinstance(error, SystemExit) and type(error) is not SystemExit):
                    raise
                self._leave_out(callback, method, error)

    def _leave_out(self, callback: Callback, method: str, error: Exception | SystemExit) -> None:
        # One that fails while the others are told of its failure is out already.
        if callback not in self._callbacks:
            return
        self._callbacks.remove(callback)
        kind = type(callback)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        where = where_raised(error)
        what = f"{kind.__module__}:{kind.__qualname__} in {method}: {said}{f' ({where})' if where else ''}"
        self.left_out.append(what)
        details = ""
        if self.log is not None:
            with suppress(OSError):
                log_details(error, self.log)
                details = f" (details: {self.log})"
        self.on_message(f"a callback raised and is left out from now on, the run goes on: {what}{details}")
