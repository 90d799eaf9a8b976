"""What a run leaves on disk: its directory, the attempts at it, checkpoints."""

from .checkpoints import Checkpoint, CheckpointInvalid
from .directory import RunDirectory

__all__ = ["Checkpoint", "CheckpointInvalid", "RunDirectory"]
