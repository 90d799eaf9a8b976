"""Where a report is written."""

from __future__ import annotations

from pathlib import Path

from ..runs.atomic_files import write_atomically

GENERATOR = "isogon report"
"""What a page says that it was made by; a file that does not is not written over."""

_HEAD_BYTES = 4096


class ReportUnwritable(ValueError):
    """The report cannot be written there. The message names the place and the remedy."""


def check_output(path: Path) -> None:
    """Raises ReportUnwritable where the report cannot go, or would replace something that is no report."""
    if path.is_dir():
        raise ReportUnwritable(f"{path} is a folder: name a file, such as {path / 'report.html'}")
    if not path.parent.is_dir():
        raise ReportUnwritable(f"{path} cannot be written: there is no folder {path.parent}; make it first")
    if path.exists() and not _is_report(path):
        raise ReportUnwritable(f"{path} is there and is no report of Isogon's: name another file with --output")


def write_report(path: Path, page: str) -> None:
    """Write a rendered page, whole or not at all.

    Raises:
        ReportUnwritable: see `check_output`.
        OSError: the disk is full, ...
    """
    check_output(path)
    # Names of files may hold bytes that are no UTF-8.
    write_atomically(path, page.encode("utf-8", errors="replace"))


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR}'.encode() in file.read(_HEAD_BYTES)
