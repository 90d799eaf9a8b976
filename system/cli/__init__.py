"""The command line: ``isogon train``, ``evaluate``, ``report``, ``compare``, ``play``, ``doctor``, ``config``.

A thin shell over `system.api`.

Nothing here loads torch or Ray before a command needs it, so that help comes at once.
"""

from .app import main

__all__ = ["main"]
