"""Files that are there whole or not at all, whatever is killed or pulled out in between.

The pattern: write under a temporary name in the same folder, flush to the disk, rename, flush the folder. Temporary
names begin with a dot and end in ``.tmp``; what a killed process left under such a name, `remove_leftovers` removes.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

Data: TypeAlias = bytes | str | Iterable[bytes]
"""What a file is to hold: bytes, text (as UTF-8), or chunks of bytes that are made as they are written."""


def write_atomically(path: Path, data: Data) -> None:
    """Put ``data`` under ``path``, replacing what is there; readers see the old or the new, whole.

    When it returns, the file is on the disk. When it fails, ``path`` is as it was and no temporary file is left.

    Raises:
        OSError: the folder is not there or not writable, the disk is full, ...
    """
    temporary = temporary_sibling(path)
    try:
        write_durably(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_durably(path: Path, data: Data) -> None:
    """Write a new file and flush it to the disk; its folder's entry is not flushed.

    Raises:
        FileExistsError: there is something under that name.
        OSError: it could not be written; what was written is left.
    """
    with path.open("xb") as file:
        whole = data.encode() if isinstance(data, str) else data
        for chunk in [whole] if isinstance(whole, bytes) else whole:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that what was created, renamed or removed there stays so."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_sibling(path: Path) -> Path:
    """A fresh temporary name beside ``path``."""
    return path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"


def remove_atomically(folder: Path) -> None:
    """Remove a folder so that nobody ever finds half of it under its name."""
    temporary = temporary_sibling(folder)
    os.replace(folder, temporary)
    shutil.rmtree(temporary)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove what killed processes left under temporary names directly in ``folder``, and say what it was.

    Only for one who knows that nobody else is writing there.
    """
    leftovers = sorted(folder.glob(".*.tmp"))
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    return leftovers


def create_numbered(parent: Path, prefix: str, first: int) -> tuple[int, Path]:
    """Create the folder ``parent/<prefix><k>`` with the first free k from ``first`` on; no two processes get the same.

    Raises:
        OSError: ``parent`` is not there, not writable, ...
    """
    number = first
    while True:
        folder = parent / f"{prefix}{number}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return number, folder
