"""What is on the disk at every moment of a run: a process killed at one of them leaves exactly that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from isogon.system.federation.journal import Journal

T = TypeVar("T")


@dataclass(frozen=True)
class Moment(Generic[T]):
    """A disk, and what else was known then.

    Attributes:
        files: contents by relative path; None is a folder.
        synced: bytes of each journal that were flushed to the disk; the rest a power cut would lose.
        known: what the caller keeps beside it.
    """

    files: dict[str, bytes | None]
    synced: dict[str, int]
    known: T

    @property
    def loses_by_power_cut(self) -> bool:
        """Whether something of a journal was not flushed."""
        journals = {name: content for name, content in self.files.items() if name.startswith("journal/")}
        return any(len(content or b"") > self.synced.get(name, 0) for name, content in journals.items())

    def restore(self, folder: Path, *, power_cut: bool = False) -> None:
        """Write it into a new folder; after a power cut the journal ends in the middle of what was not flushed."""
        folder.mkdir()
        for name, content in self.files.items():
            path = folder / name
            if content is None:
                path.mkdir(parents=True)
                continue
            if power_cut and name.startswith("journal/"):
                safe = self.synced.get(name, 0)
                content = content[: safe + (len(content) - safe) // 2]
            path.write_bytes(content)


@contextmanager
def every_moment(folder: Path, patch: pytest.MonkeyPatch, know: Callable[[], T]) -> Iterator[list[Moment[T]]]:
    """Take a moment before each flush, renaming, removal and row of the journal, and after the last one."""
    moments: list[Moment[T]] = []
    contents: dict[tuple[int, int, int], bytes] = {}
    synced: dict[str, int] = {}

    def content(path: Path) -> bytes:
        status = path.stat()
        key = (status.st_ino, status.st_mtime_ns, status.st_size)
        if path.suffix == ".jsonl" or key not in contents:
            contents[key] = path.read_bytes()
        return contents[key]

    def take() -> None:
        files: dict[str, bytes | None] = {}
        for path in sorted(folder.rglob("*")):
            files[str(path.relative_to(folder))] = None if path.is_dir() else content(path)
        if not moments or files != moments[-1].files:
            moments.append(Moment(files, dict(synced), know()))

    def before(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            take()
            return function(*arguments, **keywords)

        return call

    def fsync(descriptor: int) -> None:
        take()
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_relative_to(folder / "journal"):
            synced[str(path.relative_to(folder))] = os.fstat(descriptor).st_size

    with patch.context() as during:
        for name in ("rename", "replace", "unlink", "rmdir"):
            during.setattr(os, name, before(getattr(os, name)))
        during.setattr(os, "fsync", fsync)
        during.setattr(Journal, "observe", before(Journal.observe))
        yield moments
        take()
