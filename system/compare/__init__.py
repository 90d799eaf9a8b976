"""Comparing losses fairly: each tuned alike, over several seeds, at equal steps and at equal time.

Planning (`plan`), statistics and the directory are apart from the running: Ray tasks, each one `system.api.train`.
"""

from .config import CompareConfig, load_comparison
from .session import Watcher

__all__ = ["CompareConfig", "Watcher", "load_comparison"]
