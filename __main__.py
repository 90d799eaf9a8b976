"""``python -m isogon``: the command line."""

from .system.cli import main

if __name__ == "__main__":
    main()
