"""Who does how much next. Pure state machines over `events`: no Ray, no sockets, no clock, no torch."""

from .compass import Compass, CompassOptions
from .compass_split import CompassSplit
from .equal_split import EqualSplit

__all__ = ["Compass", "CompassOptions", "CompassSplit", "EqualSplit"]
