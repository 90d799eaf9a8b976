"""Who watches a run: the contract of a callback, callbacks of the user's that may fail, TensorBoard."""

from .contract import Callback, Progress
from .guarded import GuardedCallbacks, build_callbacks
from .tensorboard import TensorBoard

__all__ = ["Callback", "GuardedCallbacks", "Progress", "TensorBoard", "build_callbacks"]
