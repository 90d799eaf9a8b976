"""What can be wrong with a run directory, where a caller can act."""

from __future__ import annotations


class RunDirectoryError(ValueError):
    """A run directory cannot serve. The message names its path and the remedy.

    ::

        RunDirectoryError
        ├── RunDirectoryExists        there is something where a new one was to be
        ├── RunDirectoryMissing       there is none to go on with
        ├── RunDirectoryUnwritable    permissions, a read-only disk, a file in the way
        ├── RunDirectoryInUse         another process is at work in it
        ├── RunDirectoryFleeting      it would go with the Ray job that makes it
        ├── RunDirectoryDamaged       a file in it is not as it was written
        └── RunDirectoryUnsuited      the run in it is not of the kind that is asked for
    """


class RunDirectoryExists(RunDirectoryError):
    """There is something where a new run directory was to be."""


class RunDirectoryMissing(RunDirectoryError):
    """There is no run directory to go on with."""


class RunDirectoryUnwritable(RunDirectoryError):
    """Permissions, a read-only disk or a file in the way forbid a run directory."""


class RunDirectoryInUse(RunDirectoryError):
    """Another process is at work in the run directory."""


class RunDirectoryFleeting(RunDirectoryError):
    """The run directory would go with the Ray job that makes it."""


class RunDirectoryDamaged(RunDirectoryError):
    """A file of the run directory is not as it was written."""


class RunDirectoryUnsuited(RunDirectoryError):
    """The run in the directory is not of the kind that is asked for, such as one of another environment."""
