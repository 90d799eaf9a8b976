"""What can be looked at."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from .contract import VectorEnvironment


@runtime_checkable
class HasScreen(Protocol):
    """An environment vector whose first environment has a picture."""

    def screen(self) -> np.ndarray:
        """``uint8 [H, W, 3]``: environment 0 as it is now, in colours. Raises ValueError before the first reset."""
        ...


class ShownEnvironment(HasScreen, VectorEnvironment, Protocol):
    """An environment vector that can be played and looked at."""
