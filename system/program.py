"""How a person calls the command, for messages that name one to try next."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def program() -> str:
    """``isogon`` where a shell finds it, else as it was called just now."""
    called = Path(sys.argv[0])
    if shutil.which("isogon") or called.name not in ("isogon", "__main__.py"):
        return "isogon"
    return str(called) if called.name == "isogon" else "python -m isogon"
