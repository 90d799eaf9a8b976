"""Who does the work. `ray_pool` is imported by its own path, so that a run without Ray never loads it."""

from .contract import Pool, PoolEvent, PoolExhausted, WorkFailed
from .in_process import InProcessPool

__all__ = ["InProcessPool", "Pool", "PoolEvent", "PoolExhausted", "WorkFailed"]
