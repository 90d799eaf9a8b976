"""Looking after an installation: what it has, and what it lacks."""

from .doctor import Fact, Status, examine

__all__ = ["Fact", "Status", "examine"]
