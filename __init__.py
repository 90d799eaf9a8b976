"""Isogon: distributed reinforcement learning on Ray, with value functions learnt by classification.

``isogon.train(config)`` is what the command line does, from Python. The names below are loaded when they are first
used, so that ``import isogon.kernels`` loads neither Ray nor anything else of Isogon.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .system.api import RunResult, evaluate, report, train
    from .system.callbacks import Callback, Progress
    from .system.compare.command import compare
    from .system.compare.config import load_comparison
    from .system.config.files import load_config
    from .system.config.run import RunConfig
    from .system.federation.config import FederationConfig
    from .system.federation.files import load_federation
    from .system.federation.run import FederationResult, federate
    from .system.federation.simulate import SimulationOutcome, simulate

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "FederationConfig",
    "FederationResult",
    "Progress",
    "RunConfig",
    "RunResult",
    "SimulationOutcome",
    "__version__",
    "compare",
    "evaluate",
    "federate",
    "load_comparison",
    "load_config",
    "load_federation",
    "report",
    "simulate",
    "train",
]

_HOMES = {
    "Callback": "system.callbacks",
    "FederationConfig": "system.federation.config",
    "FederationResult": "system.federation.run",
    "Progress": "system.callbacks",
    "RunConfig": "system.config.run",
    "RunResult": "system.api",
    "SimulationOutcome": "system.federation.simulate",
    "compare": "system.compare.command",
    "evaluate": "system.api",
    "federate": "system.federation.run",
    "load_comparison": "system.compare.config",
    "load_config": "system.config.files",
    "load_federation": "system.federation.files",
    "report": "system.api",
    "simulate": "system.federation.simulate",
    "train": "system.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
