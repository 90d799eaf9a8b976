"""Who does how much next. Pure state machines over `events`: no Ray, no sockets, no clock, no torch."""

from .equal_split import EqualSplit

__all__ = ["EqualSplit"]
