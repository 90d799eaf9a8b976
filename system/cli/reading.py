"""Lines that a person types, or that come through a pipe."""

from __future__ import annotations

import io
import sys


class LineReader:
    """Prompts on stdout and reads stdin. What comes through a pipe is echoed, so that the output can be followed."""

    def __init__(self) -> None:
        self._echo = not sys.stdin.isatty()
        if isinstance(sys.stdin, io.TextIOWrapper):
            # Bytes that are no text are refused like any other mistyped line.
            sys.stdin.reconfigure(errors="replace")

    def read(self, prompt: str) -> str | None:
        """The next line without its end, None after the last one. Raises KeyboardInterrupt at Ctrl-C."""
        try:
            line = input(prompt)
        except EOFError:
            print(flush=True)
            return None
        except KeyboardInterrupt:
            print(flush=True)
            raise
        if self._echo:
            print("".join(character if character.isprintable() else " " for character in line), flush=True)
        return line
