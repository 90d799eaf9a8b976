"""A run's config: what is in it (`run`), and how presets, files and ``--set`` become one (`files`)."""

from .files import ConfigError, load_config, preset_names
from .run import RunConfig

__all__ = ["ConfigError", "RunConfig", "load_config", "preset_names"]
