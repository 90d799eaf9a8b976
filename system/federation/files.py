"""A federation's config from presets, files and run directories."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.files import FEDERATIONS, load_settings
from ..runs.directory import RunDirectory, RunDirectoryMissing
from .config import FederationConfig


def load_federation(source: str, overrides: Sequence[str] = ()) -> FederationConfig:
    """A federation's preset by its name, or a YAML file by its path, with ``a.b=value`` overrides.

    Raises:
        ConfigError: see `system.config.load_config`.
    """
    return load_settings(FederationConfig, source, overrides, FEDERATIONS)


def saved_federation(directory: RunDirectory) -> FederationConfig:
    """The config of a federation's run directory.

    Raises:
        RunDirectoryMissing: what ran there is no federation.
        ConfigError: this version does not understand it.
    """
    if not directory.is_federation:
        raise RunDirectoryMissing(f"run directory {directory.path} is of a training run: name a federation's")
    return load_federation(str(directory.path / "config.yaml"))
